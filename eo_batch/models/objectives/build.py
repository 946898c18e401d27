"""An objective by its section of the spec."""

from collections.abc import Sequence

import torch

from eo_batch.core.learning import (
    AnyEncoder,
    ClipSpec,
    DinoSpec,
    ElevationSpec,
    MaeSpec,
    ObjectiveSpec,
    ResNetSpec,
    SimClrSpec,
)
from eo_batch.models.encoder import Encoder, MultiSensorViT, SensorShape
from eo_batch.models.objectives.base import Objective
from eo_batch.models.objectives.clip import Clip
from eo_batch.models.objectives.dino import Dino
from eo_batch.models.objectives.elevation import WithElevation
from eo_batch.models.objectives.mae import MaskedAutoencoder
from eo_batch.models.objectives.simclr import SimClr
from eo_batch.models.resnet import ResNet18


def build(
    shapes: Sequence[SensorShape],
    encoder: AnyEncoder,
    spec: ObjectiveSpec,
    seed: int,
    elevation: tuple[ElevationSpec, int] | None = None,
) -> Objective:
    """A fresh objective. Its encoder is that of `build_encoder` with the same seed: its untrained twin; torch's own
    random state stays untouched.

    elevation: a further task, and the number of the band of heights in its array.
    """
    untrained = build_encoder(shapes, encoder, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        main = _main(untrained, spec)
        return main if elevation is None else WithElevation(main, *elevation)


def build_encoder(shapes: Sequence[SensorShape], spec: AnyEncoder, seed: int) -> Encoder:
    """A fresh encoder; the same seed gives the same weights, and torch's own random state stays untouched."""
    if isinstance(spec, ResNetSpec):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return ResNet18(shapes, spec)
    return MultiSensorViT.build(shapes, spec, seed)


def _main(encoder: Encoder, spec: ObjectiveSpec) -> Objective:
    match spec:
        case MaeSpec():
            assert isinstance(encoder, MultiSensorViT)  # the spec refuses others
            return MaskedAutoencoder(encoder, spec)
        case DinoSpec():
            return Dino(encoder, spec)
        case SimClrSpec():
            return SimClr(encoder, spec)
        case ClipSpec():
            return Clip(encoder, spec)
