"""Attention of the zoo as backends of transformers: any model of its own can choose them by name.

    AutoModelForCausalLM.from_pretrained("<a Mistral folder>", attn_implementation="zoo_local")

`zoo_local`: layers with a sliding window run in blocks (layers/local_attention.py); no mask of T x T is made for them.
`zoo_blockwise`: exact attention with memory that grows with T (layers/blockwise_attention.py).
`zoo_strided`, `zoo_fixed`: the patterns of the Sparse Transformer (layers/sparse_patterns.py), all heads with the
    union of both sets; `config.sparse_stride` and `config.sparse_summary_size` set l and c, 128 and 32 without them.
`zoo_block_permuted`: every head sees one block of the text from each (layers/block_permuted_attention.py), for
    encoders; `config.num_attention_blocks` and `config.head_shifts` set n and s_h, without them 2 and the shifts that
    follow from the number of heads.
`zoo_off_by_one`: softmax with 1 added to its denominator, so that a head may attend to nothing.

The first two compute what the model was trained for, the others change it: they are for training from scratch or
for tuning. What a backend has no form for (a layer without a window, a single new token, a model that sees both sides)
runs as under sdpa, or raises where that would be another function.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from .layers.block_permuted_attention import BlockedRows, block_permuted_attention, default_shifts
from .layers.blockwise_attention import blockwise_attention
from .layers.documents import Documents
from .layers.local_attention import local_attention
from .layers.sparse_attention import find_real, gathered_sparse_attention, text_sparse_attention
from .layers.sparse_patterns import fixed_pattern, strided_pattern


def register_attentions() -> None:
    """Enter the backends in transformers' tables; a second call changes nothing."""
    for name, forward, mask in (
        ("zoo_local", local_attention_forward, local_attention_mask),
        ("zoo_blockwise", blockwise_attention_forward, blockwise_attention_mask),
        ("zoo_strided", strided_attention_forward, documents_mask),
        ("zoo_fixed", fixed_attention_forward, documents_mask),
        ("zoo_block_permuted", block_permuted_attention_forward, documents_mask),
        ("zoo_off_by_one", off_by_one_forward, sdpa_mask),
    ):
        AttentionInterface.register(name, forward)
        AttentionMaskInterface.register(name, mask)


def _refuse_options(name: str, kwargs: dict[str, Any]) -> None:
    """Raise for an option that changes scores, which the backend does not know."""
    for option in ("position_bias", "softcap", "s_aux"):
        if kwargs.get(option) is not None:
            raise ValueError(f"{name} has no {option}: set attn_implementation='eager'")


def _repeat(module: nn.Module, *tensors: Tensor) -> list[Tensor]:
    """Keys and values (B, G, S, K) of grouped-query attention once for every head."""
    groups = getattr(module, "num_key_value_groups", 1)
    return [z if groups == 1 else z.repeat_interleave(groups, dim=1) for z in tensors]


def local_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """query (B, H, T, K), key and value (B, G, S, K), what `local_attention_mask` made -> (B, T, H, K).

    Raises:
        ValueError: an option that changes scores, which blocks do not know.
    """
    is_dense = attention_mask is not None and attention_mask.ndim == 4
    if is_dense or sliding_window is None or not getattr(module, "is_causal", True):
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    _refuse_options("zoo_local", kwargs)
    options = {"scaling": scaling, "dropout": dropout}
    return local_attention(query, key, value, sliding_window, attention_mask, **options), None


def local_attention_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    *,
    mask_function: Callable[..., Tensor],
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    allow_is_causal_skip: bool = True,
    use_vmap: bool = False,
    device: torch.device | str = "cpu",
    **kwargs: Any,
) -> Tensor | None:
    """Which document each key is of (B, S), with padding as one of its own; None where all are of one.

    Without a window, for one query, beside places of a static cache that are still empty, and for masks that are not
    made of padding and packing alone, it is sdpa's mask (B, 1, T, S), as are those that show later tokens.
    """
    is_local = local_size is not None and "allow_is_bidirectional_skip" not in kwargs
    is_last = is_local and q_length > 1 and not use_vmap and q_offset + q_length == kv_offset + kv_length
    if not is_last:
        return sdpa_mask(
            batch_size,
            q_length,
            kv_length,
            q_offset,
            kv_offset,
            mask_function=mask_function,
            attention_mask=attention_mask,
            local_size=local_size,
            allow_is_causal_skip=allow_is_causal_skip and not is_local,
            use_vmap=use_vmap,
            device=device,
            **kwargs,
        )
    documents = None
    if not allow_is_causal_skip and local_size > 1:  # packed: a document starts where a token does not see the last
        rows, queries = torch.arange(batch_size, device=device)[:, None], torch.arange(1, q_length, device=device)
        documents = F.pad((~mask_function(rows, 0, queries[None], queries[None] - 1)).cumsum(-1), (1, 0))
    if attention_mask is not None:
        real = attention_mask[:, -kv_length:].bool()
        if torch.compiler.is_compiling() or not real.all():
            documents = real.long() if documents is None else (documents + 1) * real
    return documents


def blockwise_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """query (B, H, T, K), key and value (B, G, S, K), what `blockwise_attention_mask` made -> (B, T, H, K).

    Raises:
        ValueError: an option that changes scores.
    """
    is_dense = attention_mask is not None and attention_mask.ndim == 4
    if is_dense or query.shape[2] == 1 or not query.numel():
        mask = attention_mask if attention_mask is None or is_dense else attention_mask[:, None, None].bool()
        return sdpa_attention_forward(module, query, key, value, mask, dropout, scaling, **kwargs)
    _refuse_options("zoo_blockwise", kwargs)
    is_causal = kwargs.get("is_causal")
    is_causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    key, value = _repeat(module, key, value)
    y = blockwise_attention(query, key, value, attention_mask, is_causal=is_causal, scaling=scaling, dropout=dropout)
    return y.transpose(1, 2), None


def blockwise_attention_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    *,
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    allow_is_causal_skip: bool = True,
    **kwargs: Any,
) -> Tensor | None:
    """Which keys (B, S) are real, None where all are. For windows, packed rows, and the empty places of a static cache
    it is sdpa's mask (B, 1, T, S)."""
    is_last = q_offset + q_length == kv_offset + kv_length
    if local_size is None and allow_is_causal_skip and is_last and not kwargs.get("use_vmap"):
        real = None if attention_mask is None else attention_mask[:, -kv_length:].bool()
        return None if real is None or real.all() else real
    return sdpa_mask(
        batch_size,
        q_length,
        kv_length,
        q_offset,
        kv_offset,
        attention_mask=attention_mask,
        local_size=local_size,
        allow_is_causal_skip=False,
        **kwargs,
    )


def strided_attention_forward(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
    """Attention with the strided pattern; see `_sparse_attention_forward`."""
    stride = getattr(module.config, "sparse_stride", 128)
    return _sparse_attention_forward(
        "zoo_strided", lambda heads: strided_pattern(stride, heads), module, *args, **kwargs
    )


def fixed_attention_forward(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
    """Attention with the fixed pattern; see `_sparse_attention_forward`."""
    stride, columns = getattr(module.config, "sparse_stride", 128), getattr(module.config, "sparse_summary_size", 32)
    return _sparse_attention_forward(
        "zoo_fixed", lambda heads: fixed_pattern(stride, columns, heads), module, *args, **kwargs
    )


def _sparse_attention_forward(
    name: str,
    make_pattern: Callable[[int], Any],
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """query (B, H, T, K), key and value (B, G, S, K), what `documents_mask` made -> (B, T, H, K).

    Raises:
        ValueError: attention that sees both sides, or an option that changes scores.
    """
    _refuse_options(name, kwargs)
    if not getattr(module, "is_causal", True) or (attention_mask is not None and attention_mask.ndim != 2):
        raise ValueError(f"{name} is for causal attention over padding and packed rows alone")
    B, num_heads, T, K = query.shape
    scaling, pattern = K**-0.5 if scaling is None else scaling, make_pattern(num_heads)
    key, value = _repeat(module, key, value)
    real = None if attention_mask is None else attention_mask > 0
    if real is not None:  # a static cache has places that are not written yet
        key, value = key[:, :, : real.shape[1]], value[:, :, : real.shape[1]]
    S = key.shape[2]
    if S > T:
        positions = torch.arange(S - T, S, device=query.device).expand(B, T)
        if real is not None:
            positions = (real.long().cumsum(-1)[:, -T:] - 1).clamp_min(0)
        y = gathered_sparse_attention(query, key, value, pattern, positions, find_real(real), scaling)
        return y.transpose(1, 2), None
    starts = _starts(attention_mask)
    real = None if real is None or real.all() else real
    y = text_sparse_attention(query, key, value, pattern, real, starts, scaling, dropout)
    return y.transpose(1, 2), None


def _starts(documents: Tensor | None) -> Tensor | None:
    """(B, T) of 0 where a document starts and 1 elsewhere, from their numbers; None where rows hold one."""
    if documents is None or not bool((documents > 1).any()):
        return None
    return F.pad((documents[:, 1:] == documents[:, :-1]).long(), (1, 0))


def block_permuted_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """query (B, H, T, K), key and value (B, G, T, K), what `documents_mask` made -> (B, T, H, K).

    Raises:
        ValueError: attention that hides later tokens or reads another text, or an option that changes scores.
    """
    _refuse_options("zoo_block_permuted", kwargs)
    B, num_heads, T, _ = query.shape
    is_dense = attention_mask is not None and attention_mask.ndim != 2
    if getattr(module, "is_causal", True) or is_dense or key.shape[2] != T:
        raise ValueError("zoo_block_permuted is for encoders: a text's blocks are known when all of it is there")
    num_blocks = getattr(module.config, "num_attention_blocks", 2)
    shifts = getattr(module.config, "head_shifts", None) or default_shifts(num_heads, num_blocks)
    documents = None
    if attention_mask is not None:
        documents = Documents(attention_mask > 0, _starts(attention_mask), (B, T))
    rows = BlockedRows((B, T), query.device, num_blocks, documents)
    key, value = _repeat(module, key, value)
    return block_permuted_attention(query, key, value, shifts, rows, scaling, dropout), None


def documents_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    *,
    mask_function: Callable[..., Tensor],
    attention_mask: Tensor | None = None,
    allow_is_causal_skip: bool = True,
    device: torch.device | str = "cpu",
    **_: Any,
) -> Tensor | None:
    """Which document each key written so far is of (B, S): from 1 on, and 0 for padding; None where all are of one."""
    written = int(q_offset + q_length) - kv_offset
    documents = torch.ones(batch_size, written, dtype=torch.long, device=device)
    if not allow_is_causal_skip and q_length == written > 1:  # packed: a token there does not see the last
        rows, queries = torch.arange(batch_size, device=device)[:, None], torch.arange(1, q_length, device=device)
        documents[:, 1:] += (~mask_function(rows, 0, queries[None], queries[None] - 1)).cumsum(-1)
    if attention_mask is not None:
        documents = documents * attention_mask[:, kv_offset : kv_offset + written].bool()
    return None if written == kv_length and bool((documents == 1).all()) else documents


def off_by_one_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """query (B, H, T, K), key and value (B, G, S, K), sdpa's mask -> (B, T, H, K), by one more key of zeros."""
    _refuse_options("zoo_off_by_one", kwargs)
    T, S = query.shape[2], key.shape[2]
    if attention_mask is None and T > 1 and getattr(module, "is_causal", True):
        attention_mask = torch.ones(T, S, dtype=torch.bool, device=query.device).tril()[None, None]
    key, value = F.pad(key, (0, 0, 0, 1)), F.pad(value, (0, 0, 0, 1))
    if attention_mask is not None:
        attention_mask = F.pad(attention_mask, (0, 1), value=True if attention_mask.dtype == torch.bool else 0.0)
    kwargs["is_causal"] = False
    return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
