"""What all objectives have in common: an encoder, randomness that is drawn outside, and a loss made of sums.

A batch may be divided among processes (`models.world`). So an objective gives sums and what they are to be divided by,
which add up over the parts, and never a mean; and a part's randomness is a part of what is drawn for the whole batch.

Dims: `n` sample.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from eo_batch.models.batch import Batch
from eo_batch.models.encoder import Encoder
from eo_batch.models.world import World

Draw = Mapping[str, Tensor]
"""Random numbers by what they are for; the first axis of each is the sample."""


@dataclass(frozen=True)
class Losses:
    """Means over the batch."""

    total: Tensor
    """What is minimised: the mean of the main terms that had anything to count, and the extra ones by their weights."""

    by_term: Mapping[str, Tensor]
    """One scalar for each term that had anything to count."""


@dataclass(frozen=True)
class Terms:
    """What the losses of a batch, or of a part of it, are made of. Those of a batch's parts add up to its own; their
    means would not, since parts count unequal numbers."""

    sums: Mapping[str, Tensor]
    """One scalar for each term of the batch; 0 for one that had nothing to count."""

    counts: Mapping[str, Tensor]
    """int64: how many values each is the sum of."""

    extra: Mapping[str, float] = field(default_factory=dict)
    """Weights of the terms that are added to the mean of the main ones."""

    def losses(self, counts: Mapping[str, Tensor] | None = None) -> Losses:
        """Mean losses. Given the `counts` of a whole batch, this part's share in them: shares add up to the losses of
        the whole batch, and their gradients to its gradient."""
        whole = self.counts if counts is None else counts
        by_term = {name: total / whole[name] for name, total in self.sums.items() if int(whole[name])}
        if not by_term:
            # A batch without any observation teaches nothing, and its gradient is 0 rather than absent.
            return Losses(torch.stack(list(self.sums.values())).sum(), {})
        main = [loss for name, loss in by_term.items() if name not in self.extra]
        parts = [torch.stack(main).mean()] if main else []
        parts += [weight * by_term[name] for name, weight in self.extra.items() if name in by_term]
        return Losses(torch.stack(parts).sum(), by_term)


class Objective(nn.Module):
    """An encoder and what it is trained for. `Objective.encoder` starts as the encoder's untrained twin."""

    encoder: Encoder

    def draw(self, random: np.random.Generator, batch: Batch, count: int) -> Draw:
        """Random numbers for `count` samples of the sensors of `batch`."""
        raise NotImplementedError

    def terms(self, batch: Batch, draw: Draw, world: World) -> Terms:
        """What the losses are made of, of this process's part of a batch, which may be empty."""
        raise NotImplementedError

    def stepped(self, progress: float, world: World) -> None:
        """Called after every optimiser step; progress: share of the steps done, in (0, 1]."""


def uniform(random: np.random.Generator, *shape: int) -> Tensor:
    """Uniform numbers in [0, 1), float32."""
    return torch.from_numpy(random.random(shape, dtype=np.float32))
