"""An image as a row of tokens: patches, a class token before them, a position for each.

Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929, equation (1):

    z = [x_class; E x_1; ...; E x_N] + P,   x_n the n-th patch, row by row

An image of another size than the table was made for takes its positions by bicubic interpolation of the grid; the
class token keeps its own.

Shapes: B batch, C channels, N patches, D hidden size.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

_CLASS_TOKEN_STD = 0.02


class PatchEmbedding(nn.Conv2d):
    """A linear map of every patch: a convolution whose stride is its size."""

    def __init__(self, num_channels: int, hidden_size: int, patch_size: int, bias: bool = True) -> None:
        super().__init__(num_channels, hidden_size, patch_size, stride=patch_size, bias=bias)

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels (B, C, height, width), whole patches alone are read -> (B, N, D), row by row.

        Raises:
            ValueError: another number of channels, or less than a patch.
        """
        num_channels, size = self.in_channels, self.kernel_size[0]
        if pixels.ndim != 4 or pixels.shape[1] != num_channels or min(pixels.shape[2:]) < size:
            raise ValueError(
                f"pixel_values must be (images, num_channels={num_channels}, height, width) with at least one patch "
                f"of {size} x {size}, got {tuple(pixels.shape)}"
            )
        return super().forward(pixels.to(self.weight.dtype)).flatten(2).mT


class GridPositions(nn.Embedding):
    """A table of positions: first those of tokens that stand for no patch, then one for each cell of a square."""

    def __init__(self, side: int, hidden_size: int, num_extra: int = 0) -> None:
        super().__init__(num_extra + side * side, hidden_size)
        self.side = side
        self.num_extra = num_extra

    def forward(self, height: int, width: int) -> Tensor:
        """For a grid of height by width cells -> (num_extra + height width, D)."""
        if height == width == self.side:
            return self.weight
        extra, cells = self.weight.tensor_split([self.num_extra])
        grid = cells.T.unflatten(1, (self.side, self.side))[None]  # (1, D, side, side)
        grid = F.interpolate(grid.float(), (height, width), mode="bicubic", align_corners=False)
        return torch.cat((extra, grid.to(extra.dtype)[0].flatten(1).T))


class ImageTokens(nn.Module):
    """Patches, the class token, and positions of all.

    Args:
        image_size: side of the image that the positions are for.
        patch_size: side of a patch.
        num_channels: C.
        hidden_size: D.
        use_cls: whether a class token comes first.
        patch_bias: whether the map of patches has a bias.
        use_mask_token: whether patches can be replaced by a learned vector.
    """

    def __init__(
        self,
        image_size: int,
        patch_size: int,
        num_channels: int,
        hidden_size: int,
        use_cls: bool = True,
        patch_bias: bool = True,
        use_mask_token: bool = False,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.patch_size = patch_size
        self.cls_token = nn.Parameter(torch.zeros(hidden_size)) if use_cls else None
        self.mask_token = nn.Parameter(torch.zeros(hidden_size)) if use_mask_token else None
        self.patch_embed = PatchEmbedding(num_channels, hidden_size, patch_size, patch_bias)
        self.embed_positions = GridPositions(image_size // patch_size, hidden_size, int(use_cls))

    @torch.no_grad()
    def initialise(self) -> None:
        """The class token as ViT starts it, the mask token at zero."""
        if self.cls_token is not None:
            init.trunc_normal_(self.cls_token, std=_CLASS_TOKEN_STD)
        if self.mask_token is not None:
            init.zeros_(self.mask_token)

    def forward(self, pixels: Tensor, masked: Tensor | None = None, interpolate: bool = False) -> Tensor:
        """pixels (B, C, height, width) -> (B, N, D), or (B, 1 + N, D) with a class token.

        Args:
            masked: (B, N), true where the mask token stands for the patch.
            interpolate: whether an image of another size takes interpolated positions.

        Raises:
            ValueError: another size without `interpolate`, or `masked` without a mask token.
        """
        x = self.patch_embed(pixels)
        sides = tuple(pixels.shape[2:])
        if not interpolate and sides != (self.image_size, self.image_size):
            raise ValueError(
                f"the image is {sides[0]} x {sides[1]} and image_size is {self.image_size}: resize it, or set "
                "interpolate_pos_encoding=True"
            )
        if masked is not None:
            if self.mask_token is None:
                raise ValueError("bool_masked_pos needs a model that was made with use_mask_token=True")
            x = torch.where(masked.bool()[..., None], self.mask_token, x)
        positions = self.embed_positions(*(side // self.patch_size for side in sides))
        if self.cls_token is None:
            return x + positions
        first = (self.cls_token + positions[0]).expand(len(x), 1, -1)
        return torch.cat((first, x + positions[1:]), dim=1)
