"""T5, T5 1.1 and CodeT5 as `zoo_seq2seq`."""

from typing import Any

from transformers.core_model_loading import WeightRenaming, WeightTransform

from .table import Upstream

NAMES = {
    r"shared\.": r"encoder\.embed_tokens\.",
    r"block\.(\d+)\.layer\.0\.layer_norm\.": r"layers\.\1\.mixer_norm\.",
    r"block\.0\.layer\.0\.SelfAttention\.relative_attention_bias\.": r"relative_bias\.",
    r"decoder\.block\.(\d+)\.layer\.1\.layer_norm\.": r"decoder\.layers\.\1\.cross_norm\.",
    r"decoder\.block\.(\d+)\.layer\.2\.layer_norm\.": r"decoder\.layers\.\1\.mlp_norm\.",
    r"encoder\.block\.(\d+)\.layer\.1\.layer_norm\.": r"encoder\.layers\.\1\.mlp_norm\.",
    r"final_layer_norm\.": r"(?<!_)norm\.",
    r"classification_head\.dense\.": r"score\.dense\.",
    r"classification_head\.out_proj\.": r"score\.out_proj\.",
}
for ours, theirs in {"q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "o"}.items():
    NAMES[rf"block\.(\d+)\.layer\.0\.SelfAttention\.{theirs}\."] = rf"layers\.\1\.self_attn\.{ours}\."
    NAMES[rf"block\.(\d+)\.layer\.1\.EncDecAttention\.{theirs}\."] = rf"layers\.\1\.cross_attn\.{ours}\."
for side, number in (("encoder", 1), ("decoder", 2)):
    for ours, theirs in {"gate_proj": "wi_0", "up_proj": "wi_1", "down_proj": "wo"}.items():
        theirs = rf"{side}\.block\.(\d+)\.layer\.{number}\.DenseReluDense\.{theirs}\."
        NAMES[theirs] = rf"{side}\.layers\.\1\.mlp\.{ours}\."


def t5_weights() -> list[WeightTransform]:
    """Only names differ."""
    return [WeightRenaming(theirs, ours) for theirs, ours in NAMES.items()]


def ungated(config: Any) -> list[WeightTransform]:
    """Without a gate there is one first matrix."""
    if config.is_gated_mlp:
        return []
    return [
        WeightRenaming(
            rf"{side}\.block\.(\d+)\.layer\.{number}\.DenseReluDense\.wi\.", rf"{side}\.layers\.\1\.mlp\.up_proj\."
        )
        for side, number in (("encoder", 1), ("decoder", 2))
    ]


def projection(config: Any) -> str:
    """T5's name for a feed-forward network; it takes "gated-gelu" for gated with `gelu_new`."""
    name = f"gated-{config.hidden_act}" if config.is_gated_mlp else config.hidden_act
    return "gated-gelu" if name == "gated-gelu_new" else name


UPSTREAM = [
    Upstream(
        "t5",
        t5_weights,
        sized_weights=ungated,
        renamed={
            "hidden_size": "d_model",
            "head_dim": "d_kv",
            "intermediate_size": "d_ff",
            "num_hidden_layers": "num_layers",
            "decoder_layers": "num_decoder_layers",
            "num_attention_heads": "num_heads",
            "norm_eps": "layer_norm_epsilon",
            "initializer_range": "initializer_factor",
            "hidden_dropout": "dropout_rate",
            "attention_dropout": "dropout_rate",
            "activation_dropout": "dropout_rate",
        },
        derived={
            "hidden_act": (None, lambda config: config.dense_act_fn),
            "is_gated_mlp": (None, lambda config: config.is_gated_act),
            # T5 scales scores where embeddings give them, which upstream's own `tie_word_embeddings` does not tell
            "tie_word_embeddings": ("tie_word_embeddings", lambda config: config.scale_decoder_outputs),
            "logit_multiplier": (None, lambda config: config.d_model**-0.5 if config.scale_decoder_outputs else 1.0),
            "decoder_start_token_id": (
                "decoder_start_token_id",
                lambda config: getattr(config, "decoder_start_token_id", None) or config.pad_token_id,
            ),
        },
        written={"feed_forward_proj": projection},
        fixed={
            "block_layout": "pre",
            "norm": "rms_norm",
            "positions": "relative",
            "attention_scaling": 1.0,
            "attention_bias": False,
            "mlp_bias": False,
            "embedding_multiplier": 1.0,
            "is_encoder_decoder": True,
        },
    )
]
