"""Heights that the encoder does not see, read from its tokens, besides any other objective (arXiv 2304.06857).

Each token tells the mean height of the ground that it covers, standardised.

Dims: `n` sample, `t` token, `y` row, `x` column.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from eo_batch.core.learning import ElevationSpec
from eo_batch.models.batch import Batch
from eo_batch.models.blocks import initialise
from eo_batch.models.encoder import MIN_VALID_SHARE
from eo_batch.models.objectives.base import Draw, Objective, Terms
from eo_batch.models.world import World


class WithElevation(Objective):
    """Another objective, and a linear head for heights."""

    def __init__(self, main: Objective, spec: ElevationSpec, band: int) -> None:
        """band: number of the band of heights in its array."""
        super().__init__()
        self.main, self.spec, self._band = main, spec, band
        self.head = nn.Linear(main.encoder.width, 1)
        initialise(self.head)

    @property
    def encoder(self):  # type: ignore[no-untyped-def,override]
        """The other objective's."""
        return self.main.encoder

    def draw(self, random: np.random.Generator, batch: Batch, count: int) -> Draw:
        """See `Objective.draw`."""
        return self.main.draw(random, self._seen(batch), count)

    def terms(self, batch: Batch, draw: Draw, world: World) -> Terms:
        """See `Objective.terms`."""
        seen = self._seen(batch)
        terms = self.main.terms(seen, draw, world)
        encoded = self.encoder(seen)
        told_nt = self.head(encoded.tokens.values_ntd)[:, :, 0]
        heights_n1yx = batch.pixels_nbyx[self.spec.array][:, self._band, None]
        valid_n1yx = batch.valid_nbyx[self.spec.array][:, self._band, None]
        found = [_mean_of_cells(heights_n1yx, valid_n1yx, side) for side in encoded.sides]
        true_nt, share_nt = (torch.cat([pair[part] for pair in found], dim=1) for part in (0, 1))
        counts_nt = (share_nt >= MIN_VALID_SHARE) & encoded.tokens.mask_nt
        total = torch.where(counts_nt, told_nt - true_nt, 0.0).square().sum()
        return Terms(
            {**terms.sums, "elevation": total},
            {**terms.counts, "elevation": counts_nt.sum()},
            {**terms.extra, "elevation": self.spec.weight},
        )

    def stepped(self, progress: float, world: World) -> None:
        """See `Objective.stepped`."""
        self.main.stepped(progress, world)

    def _seen(self, batch: Batch) -> Batch:
        return batch.only(shape.name for shape in self.encoder.shapes)


def _mean_of_cells(pixels_n1yx: Tensor, valid_n1yx: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Mean of valid pixels and their share, `(n, side · side)`, of the cells of a grid over the chip."""
    weight = valid_n1yx.to(pixels_n1yx.dtype)
    filled = torch.where(valid_n1yx, pixels_n1yx, 0.0)
    if pixels_n1yx.shape[3] % side:  # cells that cut pixels: a few times finer pixels
        finer = side * -(-2 * pixels_n1yx.shape[3] // side)
        filled, weight = (functional.interpolate(values, (finer, finer), mode="nearest") for values in (filled, weight))
    cell = filled.shape[3] // side
    total, share = (functional.avg_pool2d(values, cell)[:, 0].flatten(1) for values in (filled, weight))
    return total / share.clamp_min(1e-6), share
