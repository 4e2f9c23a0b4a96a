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


class DropAxes(ConversionOps):
    """A tensor that is stored with axes of length one around its own (RWKV's mixes, ViT's tokens).

    Args:
        before, after: how many of them.
    """

    def __init__(self, before: int, after: int = 0) -> None:
        self.before = before
        self.after = after

    def convert(
        self, input_dict: dict[str, Any], source_patterns: list[str], target_patterns: list[str], **kwargs: Any
    ) -> dict[str, Tensor]:
        """One tensor (1, ..., shape, 1, ...) -> (shape)."""
        (tensors,) = input_dict.values()
        tensor = tensors[0] if isinstance(tensors, list) else tensors
        shape = tensor.shape[self.before : tensor.ndim - self.after]
        return {target_patterns[0]: tensor.reshape(shape)}

    @property
    def reverse_op(self) -> "AddAxes":
        """The way back."""
        return AddAxes(self.before, self.after)


class AddAxes(ConversionOps):
    """The reverse of `DropAxes`."""

    def __init__(self, before: int, after: int = 0) -> None:
        self.before = before
        self.after = after

    def convert(
        self, input_dict: dict[str, Any], source_patterns: list[str], target_patterns: list[str], **kwargs: Any
    ) -> dict[str, Tensor]:
        """One tensor (shape) -> (1, ..., shape, 1, ...)."""
        (tensors,) = input_dict.values()
        tensor = tensors[0] if isinstance(tensors, list) else tensors
        return {target_patterns[0]: tensor.reshape((1,) * self.before + tuple(tensor.shape) + (1,) * self.after)}

    @property
    def reverse_op(self) -> DropAxes:
        """The way back."""
        return DropAxes(self.before, self.after)


class WithoutKeyBias(ConversionOps):
    """A fused bias of queries, keys and values into those of queries and values: softmax does not see that of keys."""

    def convert(
        self, input_dict: dict[str, Any], source_patterns: list[str], target_patterns: list[str], **kwargs: Any
    ) -> dict[str, Tensor]:
        """One tensor (3 D) -> two (D)."""
        (tensors,) = input_dict.values()
        q, _, v = (tensors[0] if isinstance(tensors, list) else tensors).chunk(3)
        return {target_patterns[0]: q.contiguous(), target_patterns[1]: v.contiguous()}

    @property
    def reverse_op(self) -> "WithZeroKeyBias":
        """The way back."""
        return WithZeroKeyBias()


class WithZeroKeyBias(ConversionOps):
    """The reverse of `WithoutKeyBias`."""

    def convert(
        self, input_dict: dict[str, Any], source_patterns: list[str], target_patterns: list[str], **kwargs: Any
    ) -> dict[str, Tensor]:
        """Two tensors (D) -> one (3 D), with zeros between."""
        q, v = ((t[0] if isinstance(t, list) else t) for t in (input_dict[name] for name in source_patterns))
        return {target_patterns[0]: torch.cat((q, torch.zeros_like(q), v))}

    @property
    def reverse_op(self) -> WithoutKeyBias:
        """The way back."""
        return WithoutKeyBias()


class SwapHalves(ConversionOps):
    """A projection of two vectors side by side, (out, 2 in), whose files have them in the other order."""

    def convert(
        self, input_dict: dict[str, Any], source_patterns: list[str], target_patterns: list[str], **kwargs: Any
    ) -> dict[str, Tensor]:
        """One tensor (out, 2 in) -> the same with its halves swapped."""
        (tensors,) = input_dict.values()
        first, second = (tensors[0] if isinstance(tensors, list) else tensors).chunk(2, dim=1)
        return {target_patterns[0]: torch.cat((second, first), dim=1)}

    @property
    def reverse_op(self) -> "SwapHalves":
        """The way back."""
        return self


class FoldIdentity(ConversionOps):
    """Two linear layers with nothing between them, the second of which is the identity, as the first (LLaVA)."""

    def convert(
        self, input_dict: dict[str, Any], source_patterns: list[str], target_patterns: list[str], **kwargs: Any
    ) -> dict[str, Tensor]:
        """Two tensors (D, E) and (D, D) -> the first.

        Raises:
            ValueError: the second is not the identity.
        """
        first, second = ((t[0] if isinstance(t, list) else t) for t in (input_dict[name] for name in source_patterns))
        if not second.equal(torch.eye(len(second), dtype=second.dtype, device=second.device)):
            raise ValueError("a projector without activation is read where its second layer is the identity")
        return {target_patterns[0]: first}

    @property
    def reverse_op(self) -> "UnfoldIdentity":
        """The way back."""
        return UnfoldIdentity()


class UnfoldIdentity(ConversionOps):
    """The reverse of `FoldIdentity`."""

    def convert(
        self, input_dict: dict[str, Any], source_patterns: list[str], target_patterns: list[str], **kwargs: Any
    ) -> dict[str, Tensor]:
        """One tensor (D, E) -> it and the identity (D, D)."""
        (tensors,) = input_dict.values()
        first = tensors[0] if isinstance(tensors, list) else tensors
        return {target_patterns[0]: first, target_patterns[1]: torch.eye(len(first)).to(first)}

    @property
    def reverse_op(self) -> FoldIdentity:
        """The way back."""
        return FoldIdentity()


class SumOfBiases(ConversionOps):
    """The biases of two such layers as one."""

    def convert(
        self, input_dict: dict[str, Any], source_patterns: list[str], target_patterns: list[str], **kwargs: Any
    ) -> dict[str, Tensor]:
        """Two tensors (D) -> their sum."""
        first, second = ((t[0] if isinstance(t, list) else t) for t in (input_dict[name] for name in source_patterns))
        return {target_patterns[0]: first + second}

    @property
    def reverse_op(self) -> "BiasAndNone":
        """The way back."""
        return BiasAndNone()


class BiasAndNone(ConversionOps):
    """The reverse of `SumOfBiases`."""

    def convert(
        self, input_dict: dict[str, Any], source_patterns: list[str], target_patterns: list[str], **kwargs: Any
    ) -> dict[str, Tensor]:
        """One tensor (D) -> it and zeros."""
        (tensors,) = input_dict.values()
        first = tensors[0] if isinstance(tensors, list) else tensors
        return {target_patterns[0]: first, target_patterns[1]: torch.zeros_like(first)}

    @property
    def reverse_op(self) -> SumOfBiases:
        """The way back."""
        return SumOfBiases()
