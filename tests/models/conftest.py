"""Small models and batches."""

import numpy as np
import pytest
import torch

from eo_batch.core.learning import EncoderSpec, MaeSpec, TransformerSpec
from eo_batch.models.batch import ArraySamples, Batch
from eo_batch.models.encoder import MultiSensorViT, SensorShape
from eo_batch.models.objectives.base import Losses, Objective
from eo_batch.models.objectives.build import build
from eo_batch.models.objectives.mae import MaskedAutoencoder
from eo_batch.models.training import reproducible
from eo_batch.models.world import World

SHAPES = (SensorShape("s1", 2, 16, 4), SensorShape("s2", 3, 8, 2))
CONFIG = EncoderSpec(dim=16, depth=2, heads=2)
MAE = MaeSpec(decoder=TransformerSpec(dim=16, depth=1, heads=2))


@pytest.fixture(autouse=True)
def one_thread():
    with reproducible(threads=1):
        yield


@pytest.fixture
def encoder() -> MultiSensorViT:
    return MultiSensorViT.build(SHAPES, CONFIG, seed=3).eval()


@pytest.fixture
def mae() -> MaskedAutoencoder:
    return fresh_mae()


def fresh_mae(**changes: object) -> MaskedAutoencoder:
    model = build(SHAPES, CONFIG, MAE.model_copy(update=changes), seed=3)
    assert isinstance(model, MaskedAutoencoder)
    return model


def make_samples(count: int, seed: int = 0) -> ArraySamples:
    """Stripes of random phase, of one of two directions, the same in both sensors, and a little noise."""
    rng = np.random.default_rng(seed)
    pixels, valid = {}, {}
    phase, upright = rng.uniform(0, 2 * np.pi, count), rng.random(count) < 0.5
    for shape in SHAPES:
        side = (np.arange(shape.px) + 0.5) / shape.px
        wave = np.sin(2 * np.pi * 2 * side[None, :] + phase[:, None])
        stripes = np.where(upright[:, None, None], wave[:, None, :], wave[:, :, None])
        full = np.broadcast_to(stripes[:, None], (count, shape.bands, shape.px, shape.px))
        pixels[shape.name] = (full + 0.1 * rng.normal(size=full.shape)).astype(np.float32)
        valid[shape.name] = np.ones(full.shape, bool)
    return ArraySamples(pixels, valid)


def drawn(model: Objective, batch: Batch, seed: int = 1) -> dict[str, torch.Tensor]:
    """Random numbers for all samples of a batch."""
    return dict(model.draw(np.random.default_rng(seed), batch, batch.size))


def losses_of(model: Objective, batch: Batch, seed: int = 1) -> Losses:
    return model.terms(batch, drawn(model, batch, seed), World.alone()).losses()
