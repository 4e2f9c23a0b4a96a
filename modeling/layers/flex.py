"""A pattern of attention as FlexAttention wants it: a rule of who sees whom, and no score where nobody sees anybody.

Dong et al. 2024, "Flex Attention", https://arxiv.org/abs/2412.05496. On a GPU one compiled kernel reads the blocks of
the score matrix that hold anything; on a CPU it runs forward alone.

Shapes: B batch, H heads, T tokens, K head size.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # (row, head, query, key) -> whether it sees


def block_mask(sees: Rule, shape: tuple[int, int | None, int], device: torch.device) -> BlockMask:
    """What a rule leaves of the scores of T tokens with each other.

    Args:
        sees: the rule.
        shape: (B, H, T); None for H where it is the same for all heads.
        device: of the batch.
    """
    rows, heads, num_tokens = shape
    # Compiled, the T x T scores are never laid out
    make = torch.compile(create_block_mask) if device.type == "cuda" else create_block_mask
    return make(sees, rows, heads, num_tokens, num_tokens, device=device)


def flex_attention(module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: BlockMask, dropout: float) -> Tensor:
    """q, k, v (B, H, T, K) -> (B, T, H, K).

    Args:
        module: whose attention it is; in training it must not drop weights.
        mask: who sees whom.
        dropout: on the weights, which FlexAttention has none of.

    Raises:
        ValueError: dropout is not zero.
    """
    return ALL_ATTENTION_FUNCTIONS["flex_attention"](module, q, k, v, mask, dropout=dropout)[0]
