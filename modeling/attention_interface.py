"""Attention of the zoo as backends of transformers: any model of its own can choose them by name.

    AutoModelForCausalLM.from_pretrained("<a Mistral folder>", attn_implementation="zoo_local")

`zoo_local`: layers with a sliding window run in blocks (layers/local_attention.py), and no mask of T x T is made for
them; everything else (layers without a window, a single new token, models that see both sides) runs as under sdpa.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from .layers.local_attention import local_attention


def register_attentions() -> None:
    """Enter the backends in transformers' tables; a second call changes nothing."""
    AttentionInterface.register("zoo_local", local_attention_forward)
    AttentionMaskInterface.register("zoo_local", local_attention_mask)


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
    for option in ("position_bias", "softcap", "s_aux"):
        if kwargs.get(option) is not None:
            raise ValueError(f"zoo_local has no {option}: set attn_implementation='eager'")
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
