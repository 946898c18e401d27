"""Random views of chips: the same part of the ground in all sensors, turned, with another contrast.

Dims: `n` sample, `b` band, `y` row, `x` column, `r` random number of a view, `s` sensor.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from eo_batch.core.learning import ViewSpec
from eo_batch.models.batch import Batch
from eo_batch.models.encoder import Encoder

_PLACE = 4
"""Random numbers for size, row, column and turn; three more for each sensor."""
MIN_VALID = 0.5
"""A resampled pixel is valid if at least this share of its kernel's weight lies on valid pixels."""


def numbers(encoder: Encoder) -> int:
    """How many random numbers (uniform in [0, 1)) a view takes."""
    return _PLACE + 3 * len(encoder.shapes)


def view(encoder: Encoder, batch: Batch, random_nr: Tensor, spec: ViewSpec, share: float = 1.0) -> Batch:
    """A view of each sample, of `numbers` random numbers; share: side of its image, of the chip's, in whole patches."""
    map_n23 = _places(random_nr, spec)
    pixels, valid = {}, {}
    kept = _kept(encoder, batch, random_nr, spec.drop)
    for number, shape in enumerate(encoder.shapes):
        if shape.name not in batch.pixels_nbyx:
            continue
        side = max(round(shape.patches_per_side * share), 1) * shape.patch_px
        gain_n, shift_n, _ = random_nr[:, _PLACE + 3 * number :][:, :3].mul(2).sub(1).unbind(1)
        found, holds = _resampled(batch.pixels_nbyx[shape.name], batch.valid_nbyx[shape.name], map_n23, side)
        gain_n111, shift_n111 = (
            values[:, None, None, None] for values in (1 + spec.gain * gain_n, spec.shift * shift_n)
        )
        pixels[shape.name] = found * gain_n111 + shift_n111
        valid[shape.name] = holds & kept[shape.name][:, None, None, None]
    return Batch(pixels, valid)


def _places(random_nr: Tensor, spec: ViewSpec) -> Tensor:
    """Affine maps (n, 2, 3) of the views: from an image to the chip, both from -1 to 1, as `affine_grid` takes them."""
    size_n, row_n, col_n, turn_n = random_nr[:, :_PLACE].unbind(1)
    low, high = spec.area
    half_n = (low + (high - low) * size_n).sqrt()  # half the side of the view, of the chip's half
    turn_n = (8 * turn_n).long().clamp_max(7) if spec.turn else torch.zeros_like(turn_n, dtype=torch.long)
    angle_n = (turn_n % 4) * (math.pi / 2)
    cos_n, sin_n = angle_n.cos().round(), angle_n.sin().round()
    mirror_n = torch.where(turn_n >= 4, -1.0, 1.0)
    slack_n = 1 - half_n
    across_n3 = torch.stack([half_n * cos_n * mirror_n, -half_n * sin_n, slack_n * (2 * col_n - 1)], dim=1)
    down_n3 = torch.stack([half_n * sin_n * mirror_n, half_n * cos_n, slack_n * (2 * row_n - 1)], dim=1)
    return torch.stack([across_n3, down_n3], dim=1)


def _resampled(pixels_nbyx: Tensor, valid_nbyx: Tensor, map_n23: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Bilinear, of valid pixels only."""
    n, bands = pixels_nbyx.shape[:2]
    if not n:
        return pixels_nbyx.new_zeros((0, bands, side, side)), valid_nbyx.new_zeros((0, bands, side, side))
    grid = functional.affine_grid(map_n23.to(pixels_nbyx.dtype), [n, bands, side, side], align_corners=False)
    weight_nbyx = valid_nbyx.to(pixels_nbyx.dtype)
    both = torch.cat([torch.where(valid_nbyx, pixels_nbyx, 0.0), weight_nbyx], dim=1)
    both = functional.grid_sample(both, grid, padding_mode="border", align_corners=False)
    found, weight = both[:, :bands], both[:, bands:]
    holds = weight >= MIN_VALID
    return torch.where(holds, found / weight.clamp_min(MIN_VALID), 0.0), holds


def _kept(encoder: Encoder, batch: Batch, random_nr: Tensor, drop: float) -> dict[str, Tensor]:
    """Which samples keep which sensor: of those that hold anything, the one with the largest number always stays."""
    names = [shape.name for shape in encoder.shapes if shape.name in batch.pixels_nbyx]
    numbers_of = {shape.name: number for number, shape in enumerate(encoder.shapes)}
    lots_ns = torch.stack([random_nr[:, _PLACE + 3 * numbers_of[name] + 2] for name in names], dim=1)
    holds_ns = torch.stack([batch.valid_nbyx[name].flatten(1).any(dim=1) for name in names], dim=1)
    best_n1 = torch.where(holds_ns, lots_ns, -1.0).max(dim=1, keepdim=True).values
    kept_ns = (lots_ns >= drop) | (lots_ns == best_n1)
    return {name: kept_ns[:, number] for number, name in enumerate(names)}
