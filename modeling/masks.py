"""Masks and positions: who may see whom, in the form each kind of layer and each attention backend wants."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache
from transformers.masking_utils import (
    create_bidirectional_mask,
    create_causal_mask,
    create_sliding_window_causal_mask,
)

from .cache import RECURRENT_LAYERS, LayerOfCache, StateCache
from .layers.documents import Documents

_ATTENTION_MASKS = {
    "full_attention": create_causal_mask,
    "sliding_attention": create_sliding_window_causal_mask,
    "hybrid": create_causal_mask,  # attention before a channel mixer that keeps a state
    "hybrid_sliding": create_sliding_window_causal_mask,
}


def drop_useless_mask(attention_mask: Tensor | None) -> Tensor | None:
    """None for a mask (B, S) of ones: a collator that adds one must not hide that rows are packed."""
    if not isinstance(attention_mask, Tensor) or attention_mask.ndim != 2 or torch.compiler.is_compiling():
        return attention_mask
    return None if bool(attention_mask.all()) else attention_mask


def seen_tokens(cache: Cache | None, layer_types: list[str]) -> int | Tensor:
    """How many tokens a cache holds; 0 for a static one without attention layers, which cannot tell."""
    is_recurrent = all(kind in RECURRENT_LAYERS for kind in layer_types)
    if cache is None or is_recurrent and not isinstance(cache, StateCache):
        return 0
    return cache.get_seq_length()


def token_positions(x: Tensor, attention_mask: Tensor | None, num_seen: int) -> Tensor:
    """Position of each token of x (B, T, D) in its row, counting real tokens only -> (B or 1, T).

    Args:
        x: embedded tokens (B, T, D).
        attention_mask: (B, num_seen + T) with 1 on real tokens, or anything else, which is not looked at.
        num_seen: tokens that a cache holds already.
    """
    num_tokens = x.shape[1]
    if isinstance(attention_mask, Tensor) and attention_mask.ndim == 2:
        return (attention_mask.long().cumsum(-1) - 1).clamp_min(0)[:, -num_tokens:]
    return torch.arange(num_tokens, device=x.device)[None] + num_seen


def key_positions(x: Tensor, attention_mask: Tensor | None, cache: Cache | None) -> Tensor:
    """Position of each key that attention will see, counting real tokens only -> (B or 1, S).

    Args:
        x: embedded tokens (B, T, D), the last of the keys.
        attention_mask: (B, past + T) with 1 on real tokens, or anything else, which is not looked at.
        cache: what holds the keys before; a static one has room for more, whose positions do not matter.
    """
    num_keys, offset = x.shape[1], 0
    if cache is not None:
        num_keys, offset = cache.get_mask_sizes(x.shape[1], 0)
    if isinstance(attention_mask, Tensor) and attention_mask.ndim == 2:
        positions = (attention_mask.long().cumsum(-1) - 1).clamp_min(0)[:, offset : offset + num_keys]
        return F.pad(positions, (0, num_keys - positions.shape[1]))
    return torch.arange(num_keys, device=x.device)[None] + offset


def decoder_masks(
    config: PreTrainedConfig,
    x: Tensor,
    attention_mask: Tensor | dict[str, Tensor] | None,
    past_key_values: Cache | None,
    position_ids: Tensor | None,
    has_local_attention: bool = False,
) -> dict[str, Tensor | None]:
    """One mask for each kind of layer in `config.layer_types`.

    Attention layers get what their backend wants (None, 4-D, or a block mask); recurrent layers get (B, T) with 1 on
    real tokens, or None where all are. `generate` with a static cache brings the dictionary ready made. With
    `config.is_causal` false every token sees both sides.

    Args:
        x: embedded tokens (B, T, D).
        attention_mask: (B, past + T) with 1 on real tokens.
        position_ids: (B, T) as the caller gave them: where they restart at 0, a packed document starts.
        has_local_attention: whether layers with a sliding window are `LocalAttention`, see `local_mask`.
    """
    if isinstance(attention_mask, dict):
        return attention_mask
    masks = {}
    has_states = any(kind in RECURRENT_LAYERS for kind in config.layer_types)
    for kind in set(config.layer_types):
        if kind in RECURRENT_LAYERS:
            masks[kind] = recurrent_mask(x, attention_mask)
        elif kind == "sliding_attention" and has_local_attention:
            masks[kind] = local_mask(config, x, attention_mask, past_key_values, position_ids)
        elif not getattr(config, "is_causal", True):
            masks[kind] = encoder_mask(config, x, attention_mask, position_ids)
        else:
            cache = past_key_values
            if cache is not None and has_states:
                cache = LayerOfCache(cache, config.layer_types.index(kind))
            masks[kind] = _ATTENTION_MASKS[kind](
                config=config,
                inputs_embeds=x,
                attention_mask=attention_mask,
                past_key_values=cache,
                position_ids=position_ids,
            )
    return masks


def local_mask(
    config: PreTrainedConfig,
    x: Tensor,
    attention_mask: Tensor | None,
    past_key_values: Cache | None,
    position_ids: Tensor | None,
) -> Tensor | None:
    """What `LocalAttention` wants: which document each key is of (B, S), with padding as one of its own.

    None where all keys are of one. A static cache that has room left holds keys after those of the present tokens;
    then the mask is (B, 1, T, S), true where a key is seen, and S is no more than the window.
    """
    num_tokens = num_keys = x.shape[1]
    if past_key_values is not None:
        layer_idx = config.layer_types.index("sliding_attention")
        seen = past_key_values.get_seq_length(layer_idx)
        num_keys, offset = past_key_values.get_mask_sizes(num_tokens, layer_idx)
        if seen - offset + num_tokens != num_keys:
            queries = torch.arange(num_tokens, device=x.device)[:, None] + seen
            keys = torch.arange(num_keys, device=x.device) + offset
            mask = (keys <= queries).expand(len(x), 1, -1, -1)  # all of them within the window
            if attention_mask is None:
                return mask
            real = F.pad(attention_mask, (0, num_keys + offset - attention_mask.shape[1]))[:, offset:]
            return mask & real.bool()[:, None, None]
    if attention_mask is not None:
        attention_mask = attention_mask[:, -num_keys:]
    return document_numbers(attention_mask, position_ids, has_past=past_key_values is not None)


def recurrent_mask(x: Tensor, attention_mask: Tensor | dict[str, Tensor] | None) -> Tensor | None:
    """The part (B, T) of a padding mask that concerns the tokens of x (B, T, D); None for one token, which is real."""
    if not isinstance(attention_mask, Tensor) or attention_mask.ndim != 2 or x.shape[1] == 1:
        return None
    return attention_mask[:, -x.shape[1] :]


def packed_positions(position_ids: Tensor | None, attention_mask: Tensor | None, has_past: bool) -> Tensor | None:
    """Positions (B, T) that tell packed documents apart, None where the rows cannot be packed.

    As for attention masks in transformers, rows are packed only without padding and without a past.
    """
    return None if attention_mask is not None or has_past else position_ids


def document_numbers(
    attention_mask: Tensor | None, position_ids: Tensor | None, has_past: bool = False
) -> Tensor | None:
    """Which document each token is of (B or 1, T), with padding as one of its own; None where all are of one.

    Args:
        attention_mask: (B, T) with 1 on real tokens.
        position_ids: (B, T) as the caller gave them: where they restart at 0, a packed document starts.
        has_past: whether a cache holds tokens before these.
    """
    if attention_mask is not None:
        return attention_mask.long()
    packed = packed_positions(position_ids, attention_mask, has_past)
    if packed is None or not (torch.compiler.is_compiling() or bool((packed[:, 1:] == 0).any())):
        return None
    return (packed == 0).cumsum(-1)


def find_documents(x: Tensor, attention_mask: Tensor | None, position_ids: Tensor | None) -> Documents | None:
    """Where the documents of x (B, T, D) stand, None where each row is one; for the rest see `document_numbers`."""
    if document_numbers(attention_mask, position_ids) is None:
        return None
    return Documents(attention_mask, None if attention_mask is not None else position_ids, x.shape[:2])


def encoder_mask(
    config: PreTrainedConfig, x: Tensor, attention_mask: Tensor | None, position_ids: Tensor | None
) -> Tensor | None:
    """What the attention backend wants in order to let every token see all real ones of its document.

    Args:
        x: embedded tokens (B, T, D).
        attention_mask: (B, T) with 1 on real tokens.
        position_ids: (B, T) as the caller gave them: where they restart at 0, a packed document starts.
    """
    documents = packed_documents(x, attention_mask, position_ids)
    return create_bidirectional_mask(
        config=config,
        inputs_embeds=x,
        attention_mask=attention_mask,
        and_mask_function=None if documents is None else _same(documents, documents),
    )


def cross_mask(
    config: PreTrainedConfig,
    x: Tensor,
    context: Tensor,
    attention_mask: Tensor | None,
    documents: Tensor | None = None,
    context_documents: Tensor | None = None,
) -> Tensor | None:
    """What the attention backend wants in order to let every token see all real ones of a context.

    Args:
        x: embedded tokens (B, T, D).
        context: (B, S, D).
        attention_mask: (B, S) with 1 on real tokens of the context.
        documents, context_documents: see `packed_documents`; both or neither, as many in a row of the one as of the
            other.
    """
    return create_bidirectional_mask(
        config=config,
        inputs_embeds=x,
        attention_mask=attention_mask,
        encoder_hidden_states=context,
        and_mask_function=None if documents is None else _same(documents, context_documents),
    )


def packed_documents(x: Tensor, attention_mask: Tensor | None, position_ids: Tensor | None) -> Tensor | None:
    """Which of the documents packed into its row each token of x (B, T, D) is of (B, T), None where rows hold one."""
    if position_ids is None or attention_mask is not None or not bool((position_ids[:, 1:] == 0).any()):
        return None
    return (position_ids == 0).cumsum(-1).expand(x.shape[0], -1)


def _same(queries: Tensor, keys: Tensor) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """The function of indices, in the form transformers wants, that tells whether both are of one document."""

    def same(batch_idx: Tensor, head_idx: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        return queries[batch_idx, q_idx] == keys[batch_idx, kv_idx]

    return same


def add_bias(mask: Tensor | None, bias: Tensor, is_causal: bool) -> tuple[Tensor | None, Tensor | None]:
    """A mask and a bias on the scores as one mask, so that a stack of layers joins them once.

    Args:
        mask: as the attention backend wants it, for one of its own form given back beside the bias.
        bias: (1, H, T, S).
        is_causal: what no mask means for more than one query.

    Returns:
        The mask (B or 1, H, T, S), to be added to the scores, and None; or both as they were.
    """
    if mask is None:
        num_queries, num_keys = bias.shape[-2:]
        if not is_causal or num_queries == 1:
            return bias, None
        mask = torch.ones(num_queries, num_keys, dtype=torch.bool, device=bias.device).tril(num_keys - num_queries)
    elif not isinstance(mask, Tensor) or mask.ndim != 4:
        return mask, bias
    allowed = mask if mask.dtype == torch.bool else mask == 0
    return bias.masked_fill(~allowed, torch.finfo(bias.dtype).min), None
