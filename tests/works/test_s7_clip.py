"""S7 (arXiv 2310.00119): chips of one sensor find the same place in another, after training to match sensors.

Sham: the same training, of pairs that are no pairs.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eo_batch.core.learning import ClipSpec
from eo_batch.models.batch import ArraySamples, Batch
from eo_batch.models.encoder import EncoderConfig
from eo_batch.models.objectives.build import build
from eo_batch.models.objectives.clip import Clip
from eo_batch.models.training import TrainConfig, train
from tests.works.conftest import World, shuffled

pytestmark = [pytest.mark.works, pytest.mark.slow]

SEEDS = (0, 1, 2)
CHIPS = 200
CHANCE = 1 / CHIPS
LEAST = 0.2
"""Recall at 1 of held-out chips; 40 times chance, and half of what was measured (docs/seeds.md)."""


def trained(world: World, samples: ArraySamples, seed: int) -> Clip:
    model = build(world.shapes, EncoderConfig(dim=64, depth=2, heads=4), ClipSpec(drop_bands=0.2), seed)
    assert isinstance(model, Clip)
    config = TrainConfig(
        seed=seed, steps=60, batch=64, lr=2e-3, weight_decay=0.05, warmup_steps=10, clip_norm=1.0,
        checkpoint_every_steps=1000, validate_every_steps=1000,
    )  # fmt: skip
    train(model, samples, world.samples("test"), config, lambda checkpoint: None)
    return model.eval()


@torch.no_grad()
def recalls(model: Clip, chips: Batch, other: Batch | None = None) -> dict[str, float]:
    """Share of chips of one sensor whose nearest of the other sensor is of the same place, for both ways."""
    (radar, _), (optical, _) = model.projected(chips, "s1_10m"), model.projected(other or chips, "s2_10m")
    cosines = radar @ optical.T
    right = torch.arange(len(cosines))
    found = {"s1 to s2": cosines.argmax(dim=1), "s2 to s1": cosines.argmax(dim=0)}
    return {way: float((best == right).float().mean()) for way, best in found.items()}


def test_a_chip_is_found_again_in_another_sensor(world: World, record_property: pytest.RecordProperty) -> None:
    chips = world.samples("test").read(range(CHIPS))
    measured = [recalls(trained(world, world.samples("train"), seed), chips) for seed in SEEDS]
    record_property("recall", measured)
    print("recall at 1 among", CHIPS, measured)
    assert min(recall for one in measured for recall in one.values()) >= LEAST


def test_sham_pairs_that_are_none_teach_nothing(world: World) -> None:
    chips = world.samples("test").read(range(CHIPS))
    measured = [recalls(trained(world, shuffled(world.samples("train"), ["s2_10m"], seed), seed), chips) for seed in SEEDS]
    print("sham: recall at 1 among", CHIPS, measured)
    assert np.mean([recall for one in measured for recall in one.values()]) < 4 * CHANCE
    assert max(recall for one in measured for recall in one.values()) < LEAST / 4


def test_one_band_of_several_is_enough_to_do_better_than_chance(world: World) -> None:
    samples = world.samples("test")
    model = trained(world, world.samples("train"), SEEDS[0])
    chips = samples.read(range(CHIPS))
    for band in range(3):
        valid = torch.zeros_like(chips.valid_nbyx["s2_10m"])
        valid[:, band] = chips.valid_nbyx["s2_10m"][:, band]
        one = recalls(model, chips, Batch(chips.pixels_nbyx, {**chips.valid_nbyx, "s2_10m": valid}))
        print("with band", band, "alone:", one)
        assert min(one.values()) >= 10 * CHANCE
