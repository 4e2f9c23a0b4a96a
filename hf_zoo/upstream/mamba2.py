"""transformers' Mamba-2 as `zoo_mamba2`."""

from .mamba import mamba_weights
from .table import Upstream

UPSTREAM = [
    Upstream(
        "mamba2",
        mamba_weights,
        renamed={
            "norm_eps": "layer_norm_epsilon",
            "num_groups": "n_groups",
            "scale_residual_init": "rescale_prenorm_residual",
        },
        written={"num_heads": lambda config: config.num_heads},
        required={"hidden_act": "silu"},
    )
]
