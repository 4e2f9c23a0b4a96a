"""Signals as rows of tokens: stretches of a film, of a spectrogram, of a map, of what sensors measure.

Girdhar et al. 2023, "ImageBind", https://arxiv.org/abs/2305.05665, section 3.2 and appendix B: a linear map of every
piece, a class token before them, a learnt position for each.

Shapes: B batch, C channels, F frames, N pieces, D hidden size.
"""

import torch
from torch import Tensor, nn
from transformers import initialization as init

_TOKEN_STD = 0.02


class TubeEmbedding(nn.Conv3d):
    """A linear map of every patch through all frames of a clip; a single image stands still."""

    def __init__(self, num_channels: int, hidden_size: int, num_frames: int, patch_size: int) -> None:
        size = (num_frames, patch_size, patch_size)
        super().__init__(num_channels, hidden_size, size, stride=size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, F, height, width) or images (B, C, height, width) -> (B, N, D)."""
        if x.ndim == 4:
            x = x[:, :, None].expand(-1, -1, self.kernel_size[0], -1, -1)
        return super().forward(x.to(self.weight.dtype)).flatten(2).mT


class MapEmbedding(nn.Conv2d):
    """A linear map of patches of a map (B, C, height, width), which overlap where the stride is less than a patch."""

    def __init__(self, num_channels: int, hidden_size: int, patch_size: int, stride: int) -> None:
        super().__init__(num_channels, hidden_size, patch_size, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, height, width) -> (B, N, D)."""
        return super().forward(x.to(self.weight.dtype)).flatten(2).mT


class WindowEmbedding(nn.Linear):
    """A linear map of windows of several series (B, C, length), all channels of a window together."""

    def __init__(self, num_channels: int, hidden_size: int, window: int) -> None:
        super().__init__(num_channels * window, hidden_size, bias=False)
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, length) -> (B, N, D)."""
        windows = x.to(self.weight.dtype).unfold(2, self.window, self.window)  # (B, C, N, window)
        return super().forward(windows.transpose(1, 2).flatten(2))


class SignalTokens(nn.Module):
    """Pieces, perhaps normalised, the class token, and positions of all.

    Args:
        patch_embed: makes (B, N, D) of the signal.
        num_pieces: N.
        hidden_size: D.
        norm: of the pieces, if any.
    """

    def __init__(
        self, patch_embed: nn.Module, num_pieces: int, hidden_size: int, norm: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.patch_embed = patch_embed
        self.norm = norm
        self.cls_token = nn.Parameter(torch.zeros(hidden_size))
        self.positions = nn.Parameter(torch.zeros(1 + num_pieces, hidden_size))

    @torch.no_grad()
    def initialise(self) -> None:
        """Both are drawn."""
        init.trunc_normal_(self.cls_token, std=_TOKEN_STD)
        init.trunc_normal_(self.positions, std=_TOKEN_STD)

    def forward(self, signal: Tensor) -> Tensor:
        """signal as the map of pieces takes it -> (B, 1 + N, D)."""
        x = self.patch_embed(signal)
        if self.norm is not None:
            x = self.norm(x)
        return torch.cat((self.cls_token.expand(len(x), 1, -1), x), dim=1) + self.positions
