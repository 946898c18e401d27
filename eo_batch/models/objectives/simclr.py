"""Two views of a chip are told apart from those of all other chips (Chen et al. 2020, arXiv 2002.05709).

The loss is NT-Xent: for each view, the cross entropy of its partner among all other views of the batch, by cosine over
temperature.

Dims: `n` sample of a part, `m` sample of the whole batch, `k` projected feature, `r` random numbers of a view.
"""

import numpy as np
import torch

from eo_batch.core.learning import SimClrSpec
from eo_batch.models.batch import Batch
from eo_batch.models.blocks import initialise
from eo_batch.models.encoder import Encoder
from eo_batch.models.objectives.base import Draw, Objective, Terms, uniform
from eo_batch.models.objectives.contrast import Projection, cross_entropy_sum
from eo_batch.models.views import numbers, view
from eo_batch.models.world import World


class SimClr(Objective):
    """Encoder and projection."""

    def __init__(self, encoder: Encoder, spec: SimClrSpec) -> None:
        super().__init__()
        self.encoder, self.spec = encoder, spec
        self.projection = Projection(encoder.width, spec.hidden, spec.projection)
        initialise(self.projection)

    def draw(self, random: np.random.Generator, batch: Batch, count: int) -> Draw:
        """See `Objective.draw`."""
        return {name: uniform(random, count, numbers(self.encoder)) for name in ("first_nr", "second_nr")}

    def terms(self, batch: Batch, draw: Draw, world: World) -> Terms:
        """See `Objective.terms`."""
        views = [self.encoder(view(self.encoder, batch, random_nr, self.spec.views)) for random_nr in draw.values()]
        exists_n = views[0].embeddable_n & views[1].embeddable_n
        unit_nk = [self.projection(found.pooled_nd) for found in views]
        count = world.count(batch.size)
        mine = torch.arange(count)[world.part(count)].to(exists_n.device)
        whole_mk = [world.gather(unit, count) for unit in unit_nk]
        exists_m = world.gather(exists_n.float(), count) > 0
        every_mk, all_exist_m = torch.cat(whole_mk), torch.cat([exists_m, exists_m])
        total = torch.zeros((), device=exists_n.device)
        for own, unit in enumerate(unit_nk):
            scores_nm = unit @ every_mk.T / self.spec.temperature
            itself_nm = torch.arange(2 * count, device=mine.device) == (mine + own * count)[:, None]
            scores_nm = scores_nm.masked_fill(itself_nm | ~all_exist_m, -torch.inf)
            total = total + cross_entropy_sum(scores_nm, mine + (1 - own) * count, exists_n)
        return Terms({"simclr": total}, {"simclr": 2 * exists_n.sum()})
