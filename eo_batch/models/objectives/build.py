"""An objective by its section of the spec."""

from collections.abc import Sequence

import torch

from eo_batch.core.learning import ClipSpec, DinoSpec, ElevationSpec, MaeSpec, ObjectiveSpec, SimClrSpec
from eo_batch.models.encoder import EncoderConfig, MultiSensorViT, SensorShape
from eo_batch.models.objectives.base import Objective
from eo_batch.models.objectives.clip import Clip
from eo_batch.models.objectives.dino import Dino
from eo_batch.models.objectives.elevation import WithElevation
from eo_batch.models.objectives.mae import MaskedAutoencoder
from eo_batch.models.objectives.simclr import SimClr


def build(
    shapes: Sequence[SensorShape],
    encoder: EncoderConfig,
    spec: ObjectiveSpec,
    seed: int,
    elevation: tuple[ElevationSpec, int] | None = None,
) -> Objective:
    """A fresh objective. Its encoder is that of `MultiSensorViT.build` with the same seed: its untrained twin; torch's
    own random state stays untouched.

    elevation: a further task, and the number of the band of heights in its array.
    """
    untrained = MultiSensorViT.build(shapes, encoder, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        main = _main(untrained, spec)
        return main if elevation is None else WithElevation(main, *elevation)


def _main(encoder: MultiSensorViT, spec: ObjectiveSpec) -> Objective:
    match spec:
        case MaeSpec():
            return MaskedAutoencoder(encoder, spec)
        case DinoSpec():
            return Dino(encoder, spec)
        case SimClrSpec():
            return SimClr(encoder, spec)
        case ClipSpec():
            return Clip(encoder, spec)
