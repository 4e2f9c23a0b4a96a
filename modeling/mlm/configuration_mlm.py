"""Configuration of the masked language model."""

from huggingface_hub.dataclasses import strict

from ..bert_config import BertLikeConfig
from ..layers.block_permuted_attention import default_shifts


@strict
class ZooMlmConfig(BertLikeConfig):
    """The fields of BERT and those of blocks; the defaults are bert-base-uncased's.

    Args:
        num_attention_blocks: blocks that a text is cut into, of which a head sees one from each (BlockBERT); 1 for
            full attention.
        head_shifts: how many blocks further on each head looks, round the end; without it most look at their own.
    """

    model_type = "zoo_mlm"

    num_attention_blocks: int = 1
    head_shifts: list[int] | None = None

    def __post_init__(self, **kwargs) -> None:
        if self.head_shifts is None and self.num_attention_blocks > 1:
            self.head_shifts = default_shifts(self.num_attention_heads, self.num_attention_blocks)
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """How the sizes fit together."""
        super().validate_architecture()
        shifts, num_heads, most = self.head_shifts, self.num_attention_heads, self.num_attention_blocks - 1
        if shifts is not None and (len(shifts) != num_heads or not all(0 <= shift <= most for shift in shifts)):
            raise ValueError(
                f"head_shifts must be num_attention_heads={num_heads} numbers from 0 to num_attention_blocks - 1 = "
                f"{most}, got {shifts}"
            )
