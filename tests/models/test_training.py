"""The loop: it learns, it resumes to the bit, it refuses what is broken."""

import dataclasses

import numpy as np
import pytest
import torch

from eo_batch.core.errors import DataError
from eo_batch.models.checkpoints import Checkpoint, dump_checkpoint, load_checkpoint
from eo_batch.models.training import TrainConfig, batch_indices, learning_rate, train
from tests.models.conftest import fresh_mae, make_samples

TRAIN = TrainConfig(
    seed=9, steps=30, batch=16, lr=3e-3, weight_decay=0.05, warmup_steps=5, clip_norm=1.0,
    checkpoint_every_steps=10, validate_every_steps=10,
)  # fmt: skip


EMPTY = {"state": {}, "param_groups": []}


def run(config: TrainConfig = TRAIN, resume: Checkpoint | None = None):
    """Train a fresh model; returns it, its curve and the checkpoints as bytes."""
    model, saved = fresh_mae(), {}
    curve = train(
        model, make_samples(50), make_samples(20, seed=1), config,
        lambda checkpoint: saved.__setitem__(checkpoint.step, dump_checkpoint(checkpoint)), resume,
    )  # fmt: skip
    return model, curve, saved


def test_resuming_is_bit_equal_to_never_having_stopped():
    model, curve, saved = run()
    assert sorted(saved) == [10, 20, 30]
    for step in (10, 20):
        again, resumed_curve, resumed = run(resume=load_checkpoint(saved[step], "x"))
        assert resumed_curve == curve
        assert resumed[30] == saved[30]
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_torch_state_has_no_influence():
    _, curve, _ = run()
    torch.manual_seed(123)
    assert run()[1] == curve
    assert run(dataclasses.replace(TRAIN, seed=10))[1] != curve


def test_losses_stay_what_they_were():
    """Golden values: a change of the model, the masks or the loop shows here. Loose enough for other CPUs."""
    _, curve, _ = run()
    found = [curve[0]["train"], curve[-1]["train"], curve[-1]["val"]]
    assert found == pytest.approx([1.9214, 1.0876, 1.1018], rel=2e-3)


def test_training_lowers_the_validation_loss():
    _, curve, _ = run(dataclasses.replace(TRAIN, steps=150, checkpoint_every_steps=150))
    validated = [row["val"] for row in curve if "val" in row]
    assert len(validated) == 15
    assert validated[-1] < 0.6 * validated[0]
    assert {"val.s1", "val.s2", "train.s1", "train.s2"} <= set(curve[-1])


def test_every_epoch_is_a_permutation():
    seen = [i for step in range(10) for i in batch_indices(4, step, 10, 25)]
    assert sorted(seen[:25]) == list(range(25))
    assert sorted(seen[25:50]) == list(range(25))
    assert seen[:25] != seen[25:50]
    assert sorted(batch_indices(4, 0, 10, 4) + batch_indices(4, 1, 10, 4)) == sorted(list(range(4)) * 5)


def test_the_rate_rises_and_falls():
    rates = [learning_rate(TRAIN, step) for step in range(30)]
    assert rates[0] == pytest.approx(TRAIN.lr / 5)
    assert max(rates) == rates[5] == TRAIN.lr
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert 0 < rates[-1] < 0.02 * TRAIN.lr


def test_a_loss_that_is_not_finite_stops_the_run_naming_step_and_sensor():
    samples = make_samples(50)
    samples.pixels_nbyx["s2"][batch_indices(TRAIN.seed, 3, 16, 50)[0]] = np.nan
    with pytest.raises(DataError, match=r"step \d+: the loss of .*s2"):
        train(fresh_mae(), samples, make_samples(5), TRAIN, lambda checkpoint: None)


def test_nothing_to_train_on_is_refused():
    with pytest.raises(DataError, match="enlarge the area"):
        train(fresh_mae(), make_samples(0), make_samples(5), TRAIN, lambda checkpoint: None)


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[:-1], lambda b: b[:20], lambda b: b"", lambda b: b[:-9] + bytes([b[-9] ^ 1]) + b[-8:]],
)
def test_a_damaged_checkpoint_is_refused(damage):
    model = fresh_mae()
    whole = dump_checkpoint(Checkpoint(7, model.state_dict(), EMPTY, ({"step": 1.0},)))
    restored = load_checkpoint(whole, "x")
    assert restored.step == 7
    assert restored.curve == ({"step": 1.0},)
    assert all(torch.equal(restored.model[key], value) for key, value in model.state_dict().items())
    with pytest.raises(DataError, match="ckpt-7"):
        load_checkpoint(damage(whole), "ckpt-7")
