"""transformers' Mamba as `zoo_mamba`."""

from transformers.core_model_loading import WeightRenaming, WeightTransform

from .table import Upstream


def mamba_weights() -> list[WeightTransform]:
    """The mixer has the same names."""
    return [
        WeightRenaming(r"embeddings\.", r"embed_tokens\."),
        WeightRenaming(r"layers\.(\d+)\.norm\.", r"layers\.\1\.mixer_norm\."),
        WeightRenaming(r"norm_f\.", r"(?<!_)(?<!mixer\.)norm\."),  # the last one, not those of layers
    ]


UPSTREAM = [
    Upstream(
        "mamba",
        mamba_weights,
        renamed={"norm_eps": "layer_norm_epsilon", "scale_residual_init": "rescale_prenorm_residual"},
        required={"hidden_act": "silu"},
    )
]
