"""Conversions of weights that transformers does not have."""

from typing import Any

import torch
from torch import Tensor
from transformers.core_model_loading import Concatenate, ConversionOps


class SplitByTarget(ConversionOps):
    """One fused projection into parts as long as the parameters they become, such as H K, K and K rows (StarCoder)."""

    def convert(
        self, input_dict: dict[str, Any], source_patterns: list[str], target_patterns: list[str], **kwargs: Any
    ) -> dict[str, Tensor]:
        """One tensor (sum of rows, ...) -> a tensor for each target."""
        (tensors,) = input_dict.values()
        fused = tensors[0] if isinstance(tensors, list) else tensors
        first = kwargs["full_layer_name"]
        names = [first.replace(target_patterns[0], target) for target in target_patterns]
        parts = fused.split([len(kwargs["model"].get_parameter(name)) for name in names])
        return {name: part.contiguous() for name, part in zip(target_patterns, parts, strict=True)}

    @property
    def reverse_op(self) -> Concatenate:
        """The way back."""
        return Concatenate(dim=0)


class SplitByHead(ConversionOps):
    """One fused projection whose rows are ordered head by head, (H, parts, K), into one tensor a part (BLOOM)."""

    def convert(
        self, input_dict: dict[str, Any], source_patterns: list[str], target_patterns: list[str], **kwargs: Any
    ) -> dict[str, Tensor]:
        """One tensor (H parts K, ...) -> a tensor (H K, ...) for each target."""
        (tensors,) = input_dict.values()
        fused = tensors[0] if isinstance(tensors, list) else tensors
        num_heads = kwargs["config"].num_attention_heads
        parts = fused.unflatten(0, (num_heads, len(target_patterns), -1)).unbind(1)
        return {name: part.flatten(0, 1).contiguous() for name, part in zip(target_patterns, parts, strict=True)}

    @property
    def reverse_op(self) -> "MergeByHead":
        """The way back."""
        return MergeByHead()


class MergeByHead(ConversionOps):
    """The reverse of `SplitByHead`."""

    def convert(
        self, input_dict: dict[str, Any], source_patterns: list[str], target_patterns: list[str], **kwargs: Any
    ) -> dict[str, Tensor]:
        """A tensor (H K, ...) for each source -> one tensor (H parts K, ...)."""
        num_heads = kwargs["config"].num_attention_heads
        tensors = (input_dict[name] for name in source_patterns)
        parts = [(t[0] if isinstance(t, list) else t).unflatten(0, (num_heads, -1)) for t in tensors]
        return {target_patterns[0]: torch.stack(parts, dim=1).flatten(0, 2)}

    @property
    def reverse_op(self) -> SplitByHead:
        """The way back."""
        return SplitByHead()


class Flatten(ConversionOps):
    """A vector that is stored as (1, 1, D) (RWKV's mixes)."""

    def convert(
        self, input_dict: dict[str, Any], source_patterns: list[str], target_patterns: list[str], **kwargs: Any
    ) -> dict[str, Tensor]:
        """One tensor (1, 1, D) -> (D,)."""
        (tensors,) = input_dict.values()
        return {target_patterns[0]: (tensors[0] if isinstance(tensors, list) else tensors).flatten()}

    @property
    def reverse_op(self) -> "Unflatten":
        """The way back."""
        return Unflatten()


class Unflatten(ConversionOps):
    """The reverse of `Flatten`."""

    def convert(
        self, input_dict: dict[str, Any], source_patterns: list[str], target_patterns: list[str], **kwargs: Any
    ) -> dict[str, Tensor]:
        """One tensor (D,) -> (1, 1, D)."""
        (tensors,) = input_dict.values()
        return {target_patterns[0]: (tensors[0] if isinstance(tensors, list) else tensors)[None, None]}

    @property
    def reverse_op(self) -> Flatten:
        """The way back."""
        return Flatten()
