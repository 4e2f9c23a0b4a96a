"""transformers' RWKV as `zoo_rwkv4`."""

from transformers.core_model_loading import WeightConverter, WeightRenaming, WeightTransform

from .operations import DropAxes
from .table import Upstream

PROJECTIONS = {
    "attention.key": "mixer.k_proj",
    "attention.value": "mixer.v_proj",
    "attention.receptance": "mixer.r_proj",
    "attention.output": "mixer.o_proj",
    "feed_forward.key": "mlp.up_proj",
    "feed_forward.value": "mlp.down_proj",
    "feed_forward.receptance": "mlp.gate_proj",
}
MIXES = {
    "attention.time_mix_key": "mixer.mix_k",
    "attention.time_mix_value": "mixer.mix_v",
    "attention.time_mix_receptance": "mixer.mix_r",
    "feed_forward.time_mix_key": "mlp.mix_k",
    "feed_forward.time_mix_receptance": "mlp.mix_r",
}


def rwkv_weights() -> list[WeightTransform]:
    """The norm of the embedding stands in the first block, and mixes have two axes of 1 before their own."""
    escaped = {theirs.replace(".", r"\."): ours.replace(".", r"\.") for theirs, ours in PROJECTIONS.items()}
    return [
        WeightRenaming(r"embeddings\.", r"embed_tokens\."),
        WeightRenaming(r"blocks\.0\.pre_ln\.", r"embed_norm\."),
        WeightRenaming(r"blocks\.(\d+)\.", r"layers\.\1\."),
        WeightRenaming(r"ln1\.", r"mixer_norm\."),
        WeightRenaming(r"ln2\.", r"mlp_norm\."),
        WeightRenaming(r"ln_out\.", r"(?<!_)norm\."),
        WeightRenaming(r"^head\.", r"^lm_head\."),
        *(WeightRenaming(rf"{theirs}\.", rf"{ours}\.") for theirs, ours in escaped.items()),
        WeightRenaming(r"attention\.time_(decay|first)", r"mixer\.time_\1"),
        *(WeightConverter(theirs, ours, [DropAxes(2)]) for theirs, ours in MIXES.items()),
    ]


UPSTREAM = [
    Upstream(
        "rwkv",
        rwkv_weights,
        renamed={"norm_eps": "layer_norm_epsilon"},
        # Not among upstream's own fields, but kept by it if given
        derived={"pad_token_id": ("pad_token_id", lambda config: getattr(config, "pad_token_id", None))},
        # Upstream's final norm has this eps whatever the config says
        required={"layer_norm_epsilon": 1e-5},
    )
]
