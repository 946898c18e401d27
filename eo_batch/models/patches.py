"""Cutting chips into patches and back, and where patches lie.

Dims: `n` sample, `b` band, `y` row, `x` column, `t` token (patch, rows before columns), `p` pixel within a
patch.
"""

from functools import lru_cache

import torch
from torch import Tensor


def patchify(values_nbyx: Tensor, patch_px: int) -> Tensor:
    """Cut into square patches: `(n, b, y, x)` to `(n, t, b, p)`, patches and their pixels in row-major
    order."""
    n, b, height, width = values_nbyx.shape
    rows, columns = height // patch_px, width // patch_px
    cut = values_nbyx.reshape(n, b, rows, patch_px, columns, patch_px)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(n, rows * columns, b, patch_px * patch_px)


def unpatchify(values_ntbp: Tensor, patch_px: int) -> Tensor:
    """Inverse of `patchify` for square chips."""
    n, t, b, _ = values_ntbp.shape
    side = round(t**0.5)
    cut = values_ntbp.reshape(n, side, side, b, patch_px, patch_px)
    return cut.permute(0, 3, 1, 4, 2, 5).reshape(n, b, side * patch_px, side * patch_px)


@lru_cache(maxsize=64)
def positions(patches_per_side: int, finest_per_side: int, dim: int, device: torch.device) -> Tensor:
    """Fixed 2-D sine-cosine codes `(t, dim)` of the patch centres, in the frame of the chip.

    Coordinates are fractions of the chip's side, so patches of sensors with different pixel sizes that lie at
    the same place get the same code. Wavelengths grow geometrically from 2 patches of the finest sensor (the
    shortest that its spacing can carry) to 4 chips. Half of `dim` codes the row, half the column.
    """
    centres = (torch.arange(patches_per_side, dtype=torch.float64) + 0.5) / patches_per_side
    shortest, longest = 2.0 / finest_per_side, 4.0
    exponents = torch.linspace(0.0, 1.0, dim // 4, dtype=torch.float64)
    wavelengths = shortest * (longest / shortest) ** exponents
    angles = 2.0 * torch.pi * centres[:, None] / wavelengths[None, :]
    codes = torch.cat([angles.sin(), angles.cos()], dim=1)
    side = patches_per_side
    rows = codes[:, None, :].expand(side, side, dim // 2)
    columns = codes[None, :, :].expand(side, side, dim // 2)
    return torch.cat([rows, columns], dim=2).reshape(side * side, dim).float().to(device)
