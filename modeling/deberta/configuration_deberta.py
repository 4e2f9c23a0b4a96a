"""Configuration of DeBERTa, versions 1 to 3."""

import copy
from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers.activations import ACT2FN

from ..base_config import ZooConfig


@strict
class ZooDebertaConfig(ZooConfig):
    """Sizes of a DeBERTa; the defaults are those of deberta-v3-base.

    Args:
        embedding_size: numbers in an embedding, where they are projected to hidden_size; hidden_size without it.
        type_vocab_size: kinds of sentences in a row; 0, as published, where they are not told apart.
        position_terms: which scores look at relative positions: "c2p" (a query's content, a key's position), "p2c".
        max_relative_positions: distances beyond it are as one; max_position_embeddings without it.
        position_buckets: distances share a row of the table, the more of them the farther they are; 0: none do.
        norm_relative: whether the table of relative positions is normalised before use (version 2).
        share_projections: whether positions are projected by the weights of the content (version 2).
        key_bias: whether keys have a bias (version 2).
        p2c_index: which distance the "p2c" term looks up: i - j as in the published "code" and weights, or j - i as
            in the "paper".
        position_biased_input: whether absolute positions are added to the embeddings.
        mask_decoder_steps: how often a masked LM runs its last layer as enhanced mask decoder, on queries that know
            their absolute position; 0: never, as transformers does.
        conv_kernel_size: tokens that the convolution beside the first layer sees (xlarge of version 2); 0: none.
        legacy_head: whether the head of a masked LM is written under transformers' names for it; if not, under the
            authors' own, who always tie it to embeddings of the hidden size.
        classifier_dropout: before the score of a classifier; hidden_dropout without it.
        generator: fields in which the generator of replaced-token detection differs; half as many layers without it.
        replaced_loss_weight: what the loss of replaced-token detection counts beside that of masked tokens.
    """

    model_type = "zoo_deberta"
    may_be_zero = ("type_vocab_size", "conv_kernel_size")

    vocab_size: int = 128100
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    embedding_size: int | None = None
    max_position_embeddings: int = 512
    type_vocab_size: int = 0
    position_terms: list[str] | None = None
    max_relative_positions: int | None = None
    position_buckets: int = 256
    norm_relative: bool = True
    share_projections: bool = True
    key_bias: bool = True
    p2c_index: Literal["code", "paper"] = "code"
    position_biased_input: bool = False
    mask_decoder_steps: int = 0
    conv_kernel_size: int = 0
    conv_groups: int = 1
    conv_act: str = "tanh"
    legacy_head: bool = True
    hidden_act: str = "gelu"
    pooler_act: str = "gelu"
    norm_eps: float = 1e-7
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    pooler_dropout: float = 0.0
    classifier_dropout: float | None = None
    generator: dict | None = None
    replaced_loss_weight: float = 50.0
    initializer_range: float = 0.02
    tie_word_embeddings: bool = True
    pad_token_id: int | None = 0
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self, **kwargs) -> None:
        if self.position_terms is None:
            self.position_terms = ["p2c", "c2p"]
        if self.max_relative_positions is None:
            self.max_relative_positions = self.max_position_embeddings
        if self.classifier_dropout is None:
            self.classifier_dropout = self.hidden_dropout
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """How the sizes fit together."""
        self.require_multiple("hidden_size", of="num_attention_heads")
        for field in ("hidden_act", "pooler_act", "conv_act"):
            if getattr(self, field) not in ACT2FN:
                raise ValueError(f"{field} {getattr(self, field)!r} is not an activation that transformers knows")
        if not set(self.position_terms) <= {"c2p", "p2c"} or len(set(self.position_terms)) < len(self.position_terms):
            raise ValueError(f"position_terms may hold 'c2p' and 'p2c', each once, not {self.position_terms}")
        for field in ("position_buckets", "mask_decoder_steps"):
            if getattr(self, field) < 0:
                raise ValueError(f"{field} must be at least 0, got {getattr(self, field)}")
        if self.max_relative_positions < 1:
            raise ValueError(f"max_relative_positions must be at least 1, got {self.max_relative_positions}")
        if self.position_buckets and self.max_relative_positions < self.position_buckets // 2 + 2:
            raise ValueError(
                f"position_buckets={self.position_buckets} leave nothing to share within "
                f"max_relative_positions={self.max_relative_positions}: set position_buckets=0"
            )
        if self.conv_kernel_size:
            if self.conv_kernel_size % 2 == 0:
                raise ValueError(
                    f"conv_kernel_size must be odd, so that both sides are alike: {self.conv_kernel_size}"
                )
            self.require_multiple("hidden_size", of="conv_groups")
        if self.mask_decoder_steps and self.num_hidden_layers < 2:
            raise ValueError("mask_decoder_steps need num_hidden_layers of at least 2: the last one is the decoder")

    def generator_config(self) -> "ZooDebertaConfig":
        """The configuration of the generator, which shares the embedding.

        Raises:
            ValueError: `generator` names a field that there is not, or its embedding could not be shared.
        """
        config = copy.deepcopy(self)
        config.generator, config.num_hidden_layers = None, max(1, self.num_hidden_layers // 2)
        if config.num_hidden_layers < 2:  # nothing would be left below the decoder
            config.mask_decoder_steps = 0
        for field, value in (self.generator or {}).items():
            if not hasattr(self, field):
                raise ValueError(f"generator has {field!r}, which is no field of {type(self).__name__}")
            setattr(config, field, value)
        if config.hidden_size != self.hidden_size and "embedding_size" not in (self.generator or {}):
            config.embedding_size = self.embedding_size or self.hidden_size
        sizes = [(c.vocab_size, c.embedding_size or c.hidden_size) for c in (self, config)]
        if sizes[0] != sizes[1]:
            raise ValueError(f"the generator's embedding {sizes[1]} cannot be shared with the model's {sizes[0]}")
        config.validate()
        return config
