"""Self-distillation without labels (Caron et al. 2021, arXiv 2104.14294).

A student sees large and small views of a chip, a teacher the large ones; the student's output for each view is to agree
with the teacher's for every other large view. The teacher is a moving average of the student. Its outputs are centred,
which keeps one prototype from taking all, and sharpened, which keeps them from becoming all alike.

Dims: `n` sample, `k` prototype, `r` random numbers of a view.
"""

import copy
import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from eo_batch.core.learning import DinoSpec
from eo_batch.models.batch import Batch
from eo_batch.models.blocks import initialise
from eo_batch.models.encoder import Encoder
from eo_batch.models.objectives.base import Draw, Objective, Terms, uniform
from eo_batch.models.views import numbers, view
from eo_batch.models.world import World

_LARGE = 2


class Head(nn.Module):
    """From an embedding to scores of prototypes, unit vectors compared with a unit vector."""

    def __init__(self, width: int, spec: DinoSpec) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, spec.hidden),
            nn.GELU(),
            nn.Linear(spec.hidden, spec.hidden),
            nn.GELU(),
            nn.Linear(spec.hidden, spec.bottleneck),
        )
        self.prototypes_kd = nn.Parameter(torch.randn(spec.prototypes, spec.bottleneck))
        initialise(self)

    def forward(self, values_nd: Tensor) -> Tensor:
        """Cosines `(n, k)`."""
        return functional.normalize(self.layers(values_nd), dim=1) @ functional.normalize(self.prototypes_kd, dim=1).T


class Dino(Objective):
    """Student (the encoder, which is kept), teacher and heads."""

    centre_k: Tensor

    def __init__(self, encoder: Encoder, spec: DinoSpec) -> None:
        super().__init__()
        self.encoder, self.spec = encoder, spec
        self.head = Head(encoder.width, spec)
        self.teacher = nn.ModuleList([copy.deepcopy(encoder), copy.deepcopy(self.head)]).requires_grad_(False)
        self.register_buffer("centre_k", torch.zeros(spec.prototypes))
        self._outputs_k = torch.zeros(spec.prototypes)
        self._count = torch.zeros(())

    def draw(self, random: np.random.Generator, batch: Batch, count: int) -> Draw:
        """See `Objective.draw`."""
        views = _LARGE + self.spec.local_views
        return {f"view_{number}_nr": uniform(random, count, numbers(self.encoder)) for number in range(views)}

    def terms(self, batch: Batch, draw: Draw, world: World) -> Terms:
        """See `Objective.terms`."""
        spec = self.spec
        views = [
            view(self.encoder, batch, random_nr, spec.views)
            if number < _LARGE
            else view(self.encoder, batch, random_nr, spec.local, spec.local_share)
            for number, random_nr in enumerate(draw.values())
        ]
        students = [self.encoder(shown) for shown in views]
        logs_nk = [(self.head(found.pooled_nd) / spec.student_temperature).log_softmax(dim=1) for found in students]
        teacher_encoder, teacher_head = self.teacher
        with torch.no_grad():
            raw_nk = [teacher_head(teacher_encoder(shown).pooled_nd) for shown in views[:_LARGE]]
            wanted_nk = [((raw - self.centre_k) / spec.teacher_temperature).softmax(dim=1) for raw in raw_nk]
        total, count = torch.zeros((), device=self.centre_k.device), torch.zeros((), device=self.centre_k.device).long()
        for t, wanted in enumerate(wanted_nk):
            for v, log in enumerate(logs_nk):
                if v == t:
                    continue
                both_n = students[t].embeddable_n & students[v].embeddable_n
                total = total - torch.where(both_n, (wanted * log).sum(dim=1), 0.0).sum()
                count = count + both_n.sum()
        if self.training:
            exists_n = [found.embeddable_n for found in students[:_LARGE]]
            self._outputs_k = sum((raw[exists].sum(dim=0) for raw, exists in zip(raw_nk, exists_n, strict=True)))
            self._count = sum(exists.sum() for exists in exists_n)
        return Terms({"dino": total}, {"dino": count})

    @torch.no_grad()
    def stepped(self, progress: float, world: World) -> None:
        """Move centre and teacher towards the last step's outputs and the student."""
        spec = self.spec
        outputs_k, count = world.sum(self._outputs_k), world.sum(self._count)
        if int(count):
            self.centre_k.mul_(spec.centre_momentum).add_(outputs_k / count, alpha=1 - spec.centre_momentum)
        momentum = 1 - (1 - spec.teacher_momentum) * (math.cos(math.pi * progress) + 1) / 2
        for old, new in zip(
            self.teacher.parameters(), nn.ModuleList([self.encoder, self.head]).parameters(), strict=True
        ):
            old.lerp_(new, 1 - momentum)
