"""Cutting rows into chunks, for recurrences that are solved a chunk at a time.

Shapes: B batch, T tokens, H heads, K key size, C tokens a chunk, M chunks.
"""

from torch import Tensor
from torch.nn import functional as F


def split_chunks(x: Tensor, chunk_size: int) -> Tensor:
    """x (B, T, H, K) -> (B, H, M, C, K), with zeros after the last token."""
    x = F.pad(x, (0, 0, 0, 0, 0, -x.shape[1] % chunk_size))
    return x.unflatten(1, (-1, chunk_size)).permute(0, 3, 1, 2, 4).contiguous()


def join_chunks(x: Tensor, num_tokens: int) -> Tensor:
    """x (B, H, M, C, K) -> (B, T, H, K)."""
    return x.permute(0, 2, 3, 1, 4).flatten(1, 2)[:, :num_tokens]


class Documents:
    """Who may see whom within the chunks of packed rows, as factors 0 and 1.

    Args:
        starts: (B, T), True on the first token of a document.
        chunk_size: C.

    Attributes:
        same: (B, 1, M, C, C), 1 where two tokens are of one document.
        first: (B, 1, M, C, 1), 1 on tokens of the document that the chunk begins in: they see what came before it.
        last: (B, 1, M, C, 1), 1 on tokens of the document that the chunk ends in: the next chunk sees them.
    """

    def __init__(self, starts: Tensor, chunk_size: int) -> None:
        starts = F.pad(starts, (0, -starts.shape[1] % chunk_size))
        count = starts.unflatten(1, (-1, chunk_size)).cumsum(-1)[:, None]  # (B, 1, M, C)
        self.same = count[..., :, None] == count[..., None, :]
        self.first = (count == 0)[..., None]
        self.last = (count == count[..., -1:])[..., None]
