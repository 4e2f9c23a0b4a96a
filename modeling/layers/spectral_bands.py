"""A hyperspectral picture as tokens: one a band, made of the band and its neighbours.

Hong et al. 2021, https://arxiv.org/abs/2107.02988, section II-B: with K bands in a group and a patch of P by P pixels

    z_b = E [x_{b - K/2}; ...; x_{b + K/2}] + p_b,   x_b all pixels of band b

Beyond the first and the last band stand these again.

Shapes: B pictures, S bands, K bands of a group, P side of the patch, D hidden size.
"""

from torch import Tensor, nn
from torch.nn import functional as F


class BandTokens(nn.Module):
    """Groups of neighbouring bands and their positions.

    Args:
        num_bands: S.
        patch_size: P.
        group_size: K, odd.
        hidden_size: D.
    """

    def __init__(self, num_bands: int, patch_size: int, group_size: int, hidden_size: int) -> None:
        super().__init__()
        self.expected = (num_bands, patch_size, patch_size)
        self.group_size = group_size
        self.group_proj = nn.Linear(group_size * patch_size**2, hidden_size)
        self.embed_positions = nn.Embedding(num_bands, hidden_size)

    def forward(self, bands: Tensor) -> Tensor:
        """bands (B, S, P, P) -> (B, S, D).

        Raises:
            ValueError: another number of bands, or another size.
        """
        if bands.ndim != 4 or tuple(bands.shape[1:]) != self.expected:
            wanted = "num_bands={}, patch_size={}, {}".format(*self.expected)
            raise ValueError(f"a hyperspectral picture must be (pictures, {wanted}), got {tuple(bands.shape)}")
        pixels = bands.to(self.group_proj.weight.dtype).flatten(2).mT  # (B, P P, S)
        reach = self.group_size // 2
        pixels = F.pad(pixels, (reach, reach), mode="replicate")
        groups = pixels.unfold(2, self.group_size, 1).permute(0, 2, 3, 1).flatten(2)  # (B, S, K P P)
        return self.group_proj(groups) + self.embed_positions.weight
