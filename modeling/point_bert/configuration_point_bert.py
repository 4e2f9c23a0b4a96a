"""Configuration of Point-BERT."""

from typing import ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers.activations import ACT2FN

from ..base_config import ZooConfig


@strict
class ZooPointBertConfig(ZooConfig):
    """Groups of points and sizes; the defaults are those of ULIP.

    Args:
        num_points: of a cloud, as the processor makes them; the model takes any number from group_size on.
        num_channels: numbers a point: three of its place, then others such as its colour.
        num_groups: centres that are chosen of a cloud; each is a token.
        group_size: points of a group.
        group_embedding_size: of a group before it is projected to hidden_size.
        position_size: of the hidden layer of the positions' MLP.
        projection_dim: size of a space that is shared with images and texts; 0 for none.
        codebook_size: how many discrete point tokens there are.
        codebook_dim: size of the vector of each.
        graph_size: width of the tokenizer's graph networks, see `GraphNetwork`.
        graph_neighbors: how many groups each of them sees, itself among them.
        folding_size: width of the tokenizer's decoder.
        code_usage_coefficient: of the loss that keeps all point tokens in use.
        mask_rate: least and most share of the groups that pre-training hides.
        classifier_dropout: before the score of a classifier.
    """

    model_type = "zoo_point_bert"
    may_be_zero = ("projection_dim",)
    # What the block of zoo_vit may also do, and Point-BERT's does not
    norm: ClassVar[str] = "layer_norm"
    norm_position: ClassVar[str] = "pre"
    is_parallel: ClassVar[bool] = False
    qk_norm: ClassVar[bool] = False

    num_points: int = 8192
    num_channels: int = 3
    num_groups: int = 512
    group_size: int = 32
    group_embedding_size: int = 256
    position_size: int = 128
    hidden_size: int = 384
    intermediate_size: int = 1536
    num_hidden_layers: int = 12
    num_attention_heads: int = 6
    hidden_act: str = "gelu"
    norm_eps: float = 1e-5
    qkv_bias: Literal["all", "qv", "none"] = "none"
    projection_dim: int = 0
    codebook_size: int = 8192
    codebook_dim: int = 256
    graph_size: int = 128
    graph_neighbors: int = 4
    folding_size: int = 512
    code_usage_coefficient: float = 0.1
    mask_rate: list[float] | None = None
    hidden_dropout: float = 0.0
    attention_dropout: float = 0.0
    path_dropout: float = 0.0
    classifier_dropout: float = 0.0
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs) -> None:
        if self.mask_rate is None:
            self.mask_rate = [0.25, 0.45]
        super().__post_init__(**kwargs)

    @property
    def pooled_size(self) -> int:
        """Of the vector that stands for a cloud."""
        return self.projection_dim or 2 * self.hidden_size

    def validate_architecture(self) -> None:
        """How groups and sizes fit together."""
        self.require_multiple("hidden_size", of="num_attention_heads")
        if self.num_channels < 3:
            raise ValueError(f"num_channels must be at least 3, the place of a point, got {self.num_channels}")
        if max(self.num_groups, self.group_size) > self.num_points:
            raise ValueError(
                f"num_points={self.num_points} is less than num_groups={self.num_groups} or "
                f"group_size={self.group_size}"
            )
        if self.group_size % 4:
            raise ValueError(f"group_size must be a multiple of 4, which are folded together, got {self.group_size}")
        if self.graph_neighbors > self.num_groups or self.graph_neighbors < 1:
            raise ValueError(
                f"graph_neighbors must be from 1 to num_groups={self.num_groups}, got {self.graph_neighbors}"
            )
        if self.graph_size % 2:
            raise ValueError(f"graph_size must be even, twice of which is normalised in groups, got {self.graph_size}")
        if self.group_embedding_size % 2:
            raise ValueError(f"group_embedding_size must be even, got {self.group_embedding_size}")
        if len(self.mask_rate) != 2 or not 0.0 < self.mask_rate[0] <= self.mask_rate[1] < 1.0:
            raise ValueError(f"mask_rate must be two shares between 0 and 1, the lesser first, got {self.mask_rate}")
        if not 0.0 <= self.path_dropout < 1.0:
            raise ValueError(f"path_dropout must be at least 0 and below 1, got {self.path_dropout}")
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act {self.hidden_act!r} is not an activation that transformers knows")
