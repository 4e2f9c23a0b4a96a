"""Configuration of BigBird."""

from typing import Literal

from huggingface_hub.dataclasses import strict

from ..bert_config import BertLikeConfig


@strict
class ZooBigbirdConfig(BertLikeConfig):
    """The fields of BERT and those of blocks; the defaults are bigbird-roberta-base's.

    Args:
        attention_type: "block_sparse" as published, or "original_full", where every token sees all.
        block_size: tokens of a block.
        num_random_blocks: random blocks that a block sees beside its neighbours and the global ones.
        num_global_tokens: tokens with embeddings of their own beside every text, which see all and are seen by all
            (ETC); 0 for global blocks, the first and the last of the text, in their place.
        random_seed: of the draw of random blocks, which is the same whenever and wherever the model runs.
        sep_token_id: what ends a question, where answers are not looked for.
    """

    model_type = "zoo_bigbird"
    may_be_zero = ("num_random_blocks", "num_global_tokens")

    vocab_size: int = 50358
    attention_type: Literal["block_sparse", "original_full"] = "block_sparse"
    block_size: int = 64
    num_random_blocks: int = 3
    num_global_tokens: int = 0
    random_seed: int = 0
    max_position_embeddings: int = 4096
    hidden_act: str = "gelu_new"
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    sep_token_id: int | None = 66

    def validate_architecture(self) -> None:
        """How the sizes fit together."""
        super().validate_architecture()
        if self.num_global_tokens and self.attention_type == "original_full":
            raise ValueError(
                f"num_global_tokens={self.num_global_tokens} needs attention_type='block_sparse': under full "
                "attention every token is global"
            )
