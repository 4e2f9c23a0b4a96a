"""A video as tokens: each is a patch through several frames.

Arnab et al. 2021, https://arxiv.org/abs/2103.15691, section 3.2: a linear map of blocks of L frames by P by P pixels,

    z_n = E x_n + p_n,   blocks in the order of time, then rows, then columns

A map of patches of images becomes one of blocks that gives the same token for a clip in which nothing moves, if every
frame has a share of it, or the middle one has all of it (section 3.4, equations 8 and 9).

Shapes: B clips, F frames, C channels, L frames of a block, N blocks, D hidden size.
"""

import torch
from torch import Tensor, nn


class TubeletEmbedding(nn.Conv3d):
    """A linear map of every block: a convolution in space and time whose stride is its size."""

    def __init__(self, num_channels: int, hidden_size: int, tubelet_size: int, patch_size: int) -> None:
        size = (tubelet_size, patch_size, patch_size)
        super().__init__(num_channels, hidden_size, size, stride=size)

    def forward(self, frames: Tensor) -> Tensor:
        """frames (B, F, C, height, width) -> (B, N, D); what fills no block is left out."""
        return super().forward(frames.to(self.weight.dtype).transpose(1, 2)).flatten(2).mT

    @torch.no_grad()
    def inflate(self, patches: nn.Conv2d, kind: str = "mean") -> None:
        """Take over a map of patches.

        Args:
            patches: with a kernel (D, C, P, P) and a bias.
            kind: "mean", every frame has the same share, or "central", the middle one has all.
        """
        self.bias.copy_(patches.bias)
        if kind == "mean":
            self.weight.copy_(patches.weight[:, :, None].expand_as(self.weight) / self.kernel_size[0])
        else:
            self.weight.zero_()
            self.weight[:, :, self.kernel_size[0] // 2] = patches.weight


class TubeletTokens(nn.Module):
    """Blocks and their positions, of videos of one size.

    Args:
        num_frames: F.
        image_size: side of a frame.
        tubelet_size: L.
        patch_size: side of a block.
        num_channels: C.
        hidden_size: D.
    """

    def __init__(
        self,
        num_frames: int,
        image_size: int,
        tubelet_size: int,
        patch_size: int,
        num_channels: int,
        hidden_size: int,
    ) -> None:
        super().__init__()
        self.expected = (num_frames, num_channels, image_size, image_size)
        self.tubelet_embed = TubeletEmbedding(num_channels, hidden_size, tubelet_size, patch_size)
        num_blocks = (num_frames // tubelet_size) * (image_size // patch_size) ** 2
        self.embed_positions = nn.Embedding(num_blocks, hidden_size)

    def forward(self, frames: Tensor) -> Tensor:
        """frames (B, F, C, height, width) -> (B, N, D).

        Raises:
            ValueError: another number of frames, of channels, or another size.
        """
        if frames.ndim != 5 or tuple(frames.shape[1:]) != self.expected:
            wanted = "num_frames={}, num_channels={}, image_size={}, {}".format(*self.expected)
            raise ValueError(f"a video must be (clips, {wanted}), got {tuple(frames.shape)}")
        return self.tubelet_embed(frames) + self.embed_positions.weight
