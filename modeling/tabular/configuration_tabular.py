"""Configuration of transformers over the columns of a table."""

from itertools import pairwise
from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers.activations import ACT2FN

from ..base_config import ZooConfig


@strict
class ZooTabularConfig(ZooConfig):
    """Columns of a table and sizes; the defaults are those of FT-Transformer's authors.

    `config_fields()` of a fitted processor has what describes the table.

    Args:
        form: "ft": every column is a token (FT-Transformer); "tab": columns of categories are, and numbers join their
            flattened outputs before an MLP (TabTransformer).
        num_numeric_columns: columns of numbers, which come first.
        category_sizes: for each column of categories how many it has; the first is "missing or never seen".
        numeric_bins: edges for each numeric column, in the units that the model is given: numbers become piecewise
            linear encodings. Linear ones without it.
        identifier_size: how many numbers of a token of TabTransformer say which column it is of.
        row_mlp_factors: widths of the hidden layers of TabTransformer's MLP, as multiples of its input.
        pretraining_objective: whether hidden values are to be filled in, or replaced values to be found.
        mask_rate: share of the columns that pre-training hides or replaces.
    """

    model_type = "zoo_tabular"
    may_be_zero = ("num_numeric_columns", "identifier_size")

    form: Literal["ft", "tab"] = "ft"
    num_numeric_columns: int = 8
    category_sizes: list[int] | None = None
    numeric_bins: list[list[float]] | None = None
    hidden_size: int = 192
    intermediate_size: int = 256
    num_hidden_layers: int = 3
    num_attention_heads: int = 8
    hidden_act: str = "relu"
    norm_eps: float = 1e-5
    identifier_size: int = 0
    row_mlp_factors: list[int] | None = None
    attention_dropout: float = 0.2
    mlp_dropout: float = 0.1
    residual_dropout: float = 0.0
    pretraining_objective: Literal["masked_columns", "replaced_values"] = "masked_columns"
    mask_rate: float = 0.3

    def __post_init__(self, **kwargs) -> None:
        if self.category_sizes is None:
            self.category_sizes = []
        if self.row_mlp_factors is None:
            self.row_mlp_factors = [4, 2]
        super().__post_init__(**kwargs)

    @property
    def row_size(self) -> int:
        """How many numbers stand for a row before the last layer."""
        if self.form == "ft":
            return self.hidden_size
        return len(self.category_sizes) * self.hidden_size + self.num_numeric_columns

    def validate_architecture(self) -> None:
        """How columns and sizes fit together."""
        self.require_multiple("hidden_size", of="num_attention_heads")
        if not self.num_numeric_columns and not self.category_sizes:
            raise ValueError("num_numeric_columns is 0 and category_sizes is empty: a table has at least one column")
        for column, size in enumerate(self.category_sizes):
            if size < 1:
                raise ValueError(f"category_sizes[{column}] must be at least 1, got {size}")
        if not 0 <= self.identifier_size < self.hidden_size:
            raise ValueError(
                f"identifier_size must be at least 0 and below hidden_size={self.hidden_size}, "
                f"got {self.identifier_size}"
            )
        if self.form == "ft" and self.identifier_size:
            raise ValueError(f'identifier_size is of form="tab"; form="ft" has 0, got {self.identifier_size}')
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act {self.hidden_act!r} is not an activation that transformers knows")
        if not 0.0 < self.mask_rate < 1.0:
            raise ValueError(f"mask_rate must be above 0 and below 1, got {self.mask_rate}")
        if self.numeric_bins is not None:
            self._validate_bins(self.numeric_bins)

    def _validate_bins(self, bins: list[list[float]]) -> None:
        if self.form == "tab":
            raise ValueError('numeric_bins are of form="ft": TabTransformer makes no tokens of numbers')
        if len(bins) != self.num_numeric_columns:
            raise ValueError(
                f"numeric_bins must have edges for each of num_numeric_columns={self.num_numeric_columns} columns, "
                f"got {len(bins)}"
            )
        for column, edges in enumerate(bins):
            if len(edges) < 2 or not all(a < b for a, b in pairwise(edges)):
                raise ValueError(f"numeric_bins[{column}] must be at least two growing edges, got {edges}")
