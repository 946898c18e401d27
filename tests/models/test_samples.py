"""Samples from a cube, and the card from which a model is built again."""

import hashlib
import json

import numpy as np
import pytest
import torch

from eo_batch.core.errors import DataError
from eo_batch.models.card import ModelCard
from eo_batch.models.checkpoints import dump_weights
from eo_batch.models.encoder import MultiSensorViT, SensorShape
from eo_batch.models.inputs import BandScaling
from eo_batch.models.samples import CubeSamples, InputArray, Place
from tests.models.conftest import CONFIG


class Shelf:
    """A cube in memory: value 1000 * slot + time everywhere, static arrays 1000 * slot + 7; slot 3 is invalid."""

    def read(self, array, slots, time_index):
        assert (time_index is None) == (array == "dem")
        value = np.array([1000 * slot + (7 if time_index is None else time_index) for slot in slots], np.float32)
        pixels = np.broadcast_to(value[:, None, None, None], (len(slots), 1, 4, 4)).copy()
        valid = np.ones(pixels.shape, bool)
        valid[np.asarray(slots) == 3] = False
        return pixels, valid


SCALING = BandScaling("linear", (0.0,), (1.0,))
ARRAYS = (
    InputArray(SensorShape("s1", 1, 4, 2), ("VV",), False, BandScaling("linear", (0.0,), (1.0,))),
    InputArray(SensorShape("dem", 1, 4, 2), ("elevation",), True, SCALING),
)
PLACES = tuple(Place(slot, time) for slot in (5, 2, 3) for time in (0, 1))


def test_samples_come_in_the_order_asked_for_whatever_their_time():
    batch = CubeSamples(Shelf(), ARRAYS, PLACES).read([3, 0, 1, 3, 2])
    assert batch.pixels_nbyx["s1"][:, 0, 0, 0].tolist() == [2001, 5000, 5001, 2001, 2000]
    assert batch.pixels_nbyx["dem"][:, 0, 3, 3].tolist() == [2007, 5007, 5007, 2007, 2007]
    assert batch.valid_nbyx["s1"].all()
    missing = CubeSamples(Shelf(), ARRAYS, PLACES).read([4, 5])
    assert not missing.valid_nbyx["s1"].any()
    assert (missing.pixels_nbyx["s1"] == 0).all()


def test_memory_and_cube_give_the_same_bits():
    samples = CubeSamples(Shelf(), ARRAYS, PLACES)
    kept = samples.in_memory()
    assert len(kept) == len(samples) == 6
    for indices in ([0], [5, 0, 3, 3]):
        first, second = samples.read(indices), kept.read(indices)
        for name in ("s1", "dem"):
            assert torch.equal(first.pixels_nbyx[name], second.pixels_nbyx[name])
            assert torch.equal(first.valid_nbyx[name], second.valid_nbyx[name])
    held = sum(part[name].nbytes for part in (kept.pixels_nbyx, kept.valid_nbyx) for name in part)
    assert samples.nbytes == held


def card_of(model: MultiSensorViT) -> tuple[ModelCard, bytes]:
    weights = dump_weights(model.state_dict())
    card = ModelCard(
        "a model",
        3,
        ARRAYS,
        CONFIG,
        {"kind": "mae"},
        {"lr": 0.1},
        "models/x",
        hashlib.sha256(weights).hexdigest(),
        "twin",
    )
    return card, weights


def test_a_card_builds_its_model_again():
    model = MultiSensorViT.build([array.shape for array in ARRAYS], CONFIG, seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    card, weights = card_of(model)
    again = ModelCard.from_bytes(card.to_bytes(), "x")
    assert again == card
    restored = again.trained(weights)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), restored.parameters(), strict=True))
    assert not torch.equal(again.untrained().transformer.norm.weight, restored.transformer.norm.weight)
    document = json.loads(card.to_bytes())
    assert document["mlm:total_parameters"] == sum(p.numel() for p in again.untrained().parameters())
    assert [entry["input"]["shape"] for entry in document["mlm:input"]] == [[-1, 1, 4, 4], [-1, 1, 4, 4]]


def test_foreign_weights_and_documents_are_refused():
    model = MultiSensorViT.build([array.shape for array in ARRAYS], CONFIG, seed=3)
    card, weights = card_of(model)
    with pytest.raises(DataError, match=r"models/x.*pretrain again"):
        card.trained(weights[:-1])
    for content in (b"{}", b"nothing", b'{"eo-batch:model": {"seed": 1}, "mlm:name": "x"}'):
        with pytest.raises(DataError, match="card-7 is not a model card"):
            ModelCard.from_bytes(content, "card-7")
