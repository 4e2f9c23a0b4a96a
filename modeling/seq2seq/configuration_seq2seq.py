"""Configuration of the encoder-decoder."""

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers.activations import ACT2FN

from ..base_config import ZooConfig


@strict
class ZooSeq2seqConfig(ZooConfig):
    """Sizes and choices of an encoder-decoder; the defaults are those of t5-small.

    Args:
        decoder_layers: as many as `num_hidden_layers`, those of the encoder, without it.
        head_dim: hidden_size / num_attention_heads without it; the two need not multiply to hidden_size.
        block_layout: "pre" norm with a norm at the end of each stack (T5), "post" norm without (the 2017 transformer).
        positions: "relative" biases on the scores, one table a stack (T5), or "sinusoidal", added to the embeddings.
        relative_attention_num_buckets, relative_attention_max_distance: rows of that table; tokens further apart than
            the distance share the last row.
        attention_scaling: factor on the scores. 1 as in T5, which starts its queries smaller instead; None for
            1 / sqrt(head_dim).
        embedding_multiplier: on the embeddings, sqrt(hidden_size) in the 2017 transformer.
        logit_multiplier: on the last hidden state before scores, 1 / sqrt(hidden_size) where T5 ties them.
        hidden_dropout: on embeddings, on every branch and, with "pre" norms, on the output of a stack.
        activation_dropout: on the hidden units of the feed-forward network.
        initializer_range: of weights, times 1 / sqrt(inputs) of the layer.
    """

    model_type = "zoo_seq2seq"
    keys_to_ignore_at_inference = ["past_key_values"]
    # transformers makes caches of as many layers as this name says
    attribute_map = {"num_decoder_layers": "decoder_layers"}

    vocab_size: int = 32128
    hidden_size: int = 512
    intermediate_size: int = 2048
    num_hidden_layers: int = 6
    decoder_layers: int | None = None
    num_attention_heads: int = 8
    head_dim: int | None = None
    block_layout: Literal["pre", "post"] = "pre"
    norm: Literal["rms_norm", "layer_norm"] = "rms_norm"
    norm_eps: float = 1e-6
    hidden_act: str = "relu"
    is_gated_mlp: bool = False
    positions: Literal["relative", "sinusoidal"] = "relative"
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    attention_scaling: float | None = 1.0
    attention_bias: bool = False
    mlp_bias: bool = False
    embedding_multiplier: float = 1.0
    logit_multiplier: float | None = None
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.1
    classifier_dropout: float = 0.0
    initializer_range: float = 1.0
    tie_word_embeddings: bool = True
    use_cache: bool = True
    is_encoder_decoder: bool = True
    pad_token_id: int | None = 0
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = 1
    decoder_start_token_id: int | None = 0

    def __post_init__(self, **kwargs) -> None:
        if self.decoder_layers is None:
            self.decoder_layers = self.num_hidden_layers
        if self.head_dim is None:
            self.head_dim = self.hidden_size // max(self.num_attention_heads, 1)
        if self.logit_multiplier is None:
            self.logit_multiplier = abs(self.hidden_size) ** -0.5 if self.tie_word_embeddings else 1.0
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """How the sizes fit together."""
        if self.head_dim < 1:
            raise ValueError(
                f"head_dim must be at least 1, got {self.head_dim}: with num_attention_heads="
                f"{self.num_attention_heads} and hidden_size={self.hidden_size} it must be given"
            )
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act {self.hidden_act!r} is not an activation that transformers knows")
        if self.positions == "relative":
            buckets, furthest = self.relative_attention_num_buckets, self.relative_attention_max_distance
            if buckets < 4 or buckets % 4:
                raise ValueError(
                    f"relative_attention_num_buckets must be a multiple of 4, got {buckets}: half for each side, half "
                    "of those for exact distances"
                )
            if furthest <= buckets // 2:
                raise ValueError(
                    "relative_attention_max_distance must be more than half of relative_attention_num_buckets="
                    f"{buckets}, got {furthest}"
                )
