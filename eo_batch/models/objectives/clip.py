"""What the sensors of a chip show is matched among all chips of the batch, for every pair of sensors.

Each sensor is encoded alone, so that a chip has an embedding of each sensor that it has; pairs of which a chip lacks
one do not count (Radford et al. 2021, arXiv 2103.00020, with images of other sensors in place of texts).

Dims: `n` sample of a part, `m` sample of the whole batch, `b` band, `k` projected feature.
"""

import math
from itertools import combinations

import numpy as np
import torch
from torch import Tensor, nn

from eo_batch.core.learning import ClipSpec
from eo_batch.models.batch import Batch
from eo_batch.models.blocks import initialise
from eo_batch.models.encoder import Encoder
from eo_batch.models.objectives.base import Draw, Objective, Terms, uniform
from eo_batch.models.objectives.contrast import Projection, cross_entropy_sum
from eo_batch.models.world import World

MAX_SCALE = 100.0
"""Largest factor of the cosine, as in the paper: keeps training stable."""


class Clip(Objective):
    """Encoder, and a projection for each sensor."""

    def __init__(self, encoder: Encoder, spec: ClipSpec) -> None:
        super().__init__()
        if len(encoder.shapes) < 2:
            raise ValueError(f"clip compares sensors; the encoder has only {encoder.shapes[0].name}")
        self.encoder, self.spec = encoder, spec
        self.projections = nn.ModuleDict(
            {shape.name: Projection(encoder.width, 0, spec.projection) for shape in encoder.shapes}
        )
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / spec.temperature)))
        initialise(self.projections)

    def draw(self, random: np.random.Generator, batch: Batch, count: int) -> Draw:
        """A number for each band: those below `drop_bands` are hidden."""
        return {shape.name: uniform(random, count, shape.bands) for shape in self.encoder.shapes}

    def terms(self, batch: Batch, draw: Draw, world: World) -> Terms:
        """See `Objective.terms`."""
        names = [shape.name for shape in self.encoder.shapes if shape.name in batch.pixels_nbyx]
        units = {name: self.projected(batch, name, draw) for name in names}
        count = world.count(batch.size)
        whole = {name: world.gather(unit_nk, count) for name, (unit_nk, _) in units.items()}
        exist = {name: world.gather(exists_n.float(), count) > 0 for name, (_, exists_n) in units.items()}
        mine = torch.arange(count)[world.part(count)].to(self.log_scale.device)
        scale = self.log_scale.exp().clamp_max(MAX_SCALE)
        sums: dict[str, Tensor] = {}
        counts: dict[str, Tensor] = {}
        for left, right in combinations(names, 2):
            both_m = exist[left] & exist[right]
            both_n = both_m[mine]
            total = torch.zeros((), device=mine.device)
            for one, other in ((left, right), (right, left)):
                scores_nm = (scale * units[one][0] @ whole[other].T).masked_fill(~both_m, -torch.inf)
                total = total + cross_entropy_sum(scores_nm, mine, both_n)
            sums[f"{left}+{right}"], counts[f"{left}+{right}"] = total, 2 * both_n.sum()
        return Terms(sums, counts)

    def projected(self, batch: Batch, name: str, draw: Draw | None = None) -> tuple[Tensor, Tensor]:
        """Unit vectors `(n, k)` of one sensor alone, and which samples have it."""
        alone = batch.only([name])
        if draw is not None and self.spec.drop_bands:
            stays_nb = (draw[name] >= self.spec.drop_bands) | (draw[name] == draw[name].max(dim=1, keepdim=True).values)
            alone = Batch(alone.pixels_nbyx, {name: alone.valid_nbyx[name] & stays_nb[:, :, None, None]})
        encoded = self.encoder(alone)
        return self.projections[name](encoded.pooled_nd), encoded.embeddable_n
