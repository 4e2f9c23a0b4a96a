"""A spectrogram as tokens: patches that overlap.

Gong et al. 2021, https://arxiv.org/abs/2104.01778, section 2.1: patches of P by P, a step of S < P apart, of a picture
whose rows are M frequencies and whose columns are T frames, give

    floor((M - P) / S + 1) floor((T - P) / S + 1) tokens,   each E x_n + p_n, frequency by frequency

Shapes: B sounds, T frames, M frequencies, N patches, D hidden size.
"""

from torch import Tensor, nn


class SpectrogramTokens(nn.Module):
    """Patches and their positions; a sound may be shorter than the positions are for.

    Args:
        max_frames: T of the longest sound.
        num_mel_bins: M.
        patch_size: P.
        stride: S.
        hidden_size: D.
    """

    def __init__(self, max_frames: int, num_mel_bins: int, patch_size: int, stride: int, hidden_size: int) -> None:
        super().__init__()
        self.max_frames = max_frames
        self.num_mel_bins = num_mel_bins
        self.patch_size = patch_size
        self.patch_embed = nn.Conv2d(1, hidden_size, patch_size, stride=stride)
        self.grid = tuple((length - patch_size) // stride + 1 for length in (num_mel_bins, max_frames))
        self.embed_positions = nn.Embedding(self.grid[0] * self.grid[1], hidden_size)

    def forward(self, frames: Tensor) -> Tensor:
        """frames (B, T, M) -> (B, N, D).

        Raises:
            ValueError: other frequencies, more frames than there are positions, or less than a patch.
        """
        fits = frames.ndim == 3 and frames.shape[2] == self.num_mel_bins
        if not fits or not self.patch_size <= frames.shape[1] <= self.max_frames:
            raise ValueError(
                f"audio must be (sounds, frames, num_mel_bins={self.num_mel_bins}) with {self.patch_size} to "
                f"max_frames={self.max_frames} frames, got {tuple(frames.shape)}"
            )
        x = self.patch_embed(frames.to(self.patch_embed.weight.dtype).mT[:, None])  # (B, D, rows, columns)
        positions = self.embed_positions.weight.unflatten(0, self.grid)[:, : x.shape[3]]
        return x.flatten(2).mT + positions.flatten(0, 1)
