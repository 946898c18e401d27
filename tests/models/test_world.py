"""Several processes train what one would, and none waits for ever for another."""

import json
import os
import pickle
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from eo_batch.core import errors
from eo_batch.core.errors import EoBatchError, ReadError, ShardFailed, UsageError
from eo_batch.models.checkpoints import Checkpoint, dump_checkpoint, load_checkpoint
from eo_batch.models.training import batch_indices, reproducible
from eo_batch.models.world import World, join
from eo_batch.settings import Ranks, Settings, keep_cublas_deterministic
from tests.models.ranks import BATCHES, OBJECTIVES, RESUMED, SAMPLES, config, failure, patchy, trained, wild

ROOT = Path(__file__).resolve().parents[2]
LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Outcomes:
    """What one process, and each of two together, came to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with reproducible(1):
            self.alone = {batch: trained(batch, None, save=self._keep(batch)) for batch in BATCHES}
            (folder / "alone-10.ckpt").write_bytes((folder / f"alone-{RESUMED}-10.ckpt").read_bytes())
            torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
            done = subprocess.run(
                [*torchrun, "-m", "tests.models.ranks", str(folder)],
                cwd=ROOT, env=os.environ | LOOPBACK, capture_output=True, text=True, timeout=120, check=False,
            )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def _keep(self, batch: int):
        def keep(checkpoint: Checkpoint) -> None:
            (self.folder / f"alone-{batch}-{checkpoint.step}.ckpt").write_bytes(dump_checkpoint(checkpoint))

        return keep

    def of(self, case: str) -> tuple[Any, Any]:
        first, second = (json.loads((self.folder / f"{case}-{rank}.json").read_text()) for rank in (0, 1))
        return first, second


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    return Outcomes(tmp_path_factory.mktemp("world"))


def assert_same_curve(found: list[dict[str, float]], wanted: list[dict[str, float]]) -> None:
    assert len(found) == len(wanted) == 20
    for row, other in zip(found, wanted, strict=True):
        assert row == pytest.approx(other, rel=1e-4)


@pytest.mark.parametrize("batch", BATCHES)
def test_two_processes_have_the_losses_of_one(outcomes, batch):
    first, second = outcomes.of(f"batch-{batch}")
    assert first == second
    assert_same_curve(first, outcomes.alone[batch])
    # Before the first step is taken nothing but the order of sums can differ.
    assert first[0] == pytest.approx(outcomes.alone[batch][0], rel=1e-6)
    assert sum("val" in row for row in first) == 2


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_objectives_that_compare_chips_compare_those_of_all_processes(outcomes, objective):
    first, second = outcomes.of(objective)
    with reproducible(1):
        alone = trained(RESUMED, None, objective=objective)
    assert first == second
    assert_same_curve(first, alone)
    assert first[0] == pytest.approx(alone[0], rel=1e-6)


def test_the_parts_of_these_batches_are_as_unequal_as_they_can_be():
    """What the test above rests on: a sensor that one part has and the other lacks, a sensor that the whole batch
    lacks, a batch with nothing in it, a part without a sample."""
    valid = {name: v.any(axis=(1, 2, 3)) for name, v in patchy(SAMPLES, 0).valid_nbyx.items()}
    one_sided = absent = empty = 0
    for batch in BATCHES:
        for step in range(20):
            indices = batch_indices(config(batch).seed, step, batch, SAMPLES)
            parts = [[bool(valid[name][indices[rank::2]].any()) for name in valid] for rank in (0, 1)]
            one_sided += any(a != b for a, b in zip(*parts, strict=True)) and batch > 1
            absent += any(not (a or b) for a, b in zip(*parts, strict=True))
            empty += not any(parts[0] + parts[1])
    assert min(one_sided, absent, empty) > 0


def test_resuming_with_another_number_of_processes_changes_nothing_beyond_rounding(outcomes):
    first, second = outcomes.of("resumed")
    wanted = outcomes.alone[RESUMED]
    assert first == second
    assert first[:10] == wanted[:10]
    assert_same_curve(first, wanted)
    kept = load_checkpoint((outcomes.folder / "two-10.ckpt").read_bytes(), "two")
    alone = trained(RESUMED, None, kept)
    assert alone[:10] == outcomes.of("kept")[0][:10]
    assert_same_curve(alone, wanted)


def test_a_loss_that_is_not_finite_in_one_part_is_the_same_error_in_all(outcomes):
    first, second = outcomes.of("wild")
    assert first == second == failure(lambda: trained(16, None, samples=wild()))
    assert first[0] == "DataError"
    assert "step 3: the loss of s1, s2 is not finite" in first[1]


def test_what_fails_in_one_process_fails_in_all(outcomes):
    assert outcomes.of("unreadable") == (["DataError", "chips are cut short"],) * 2
    assert outcomes.of("unwritable") == (["StoreError", "disk full"],) * 2
    first, second = outcomes.of("bug")
    assert second == ["IndexError", "far out"]
    assert first == ["ShardFailed", "process 1 of 2 failed: IndexError: far out"]


def test_the_first_process_acts_for_all(outcomes):
    (first, first_error, first_sum), (second, second_error, second_sum) = outcomes.of("led")
    assert (first, second) == (True, False)
    assert first_error[0] == "ZeroDivisionError"
    assert second_error == ["ShardFailed", f"process 0 of 2 failed: ZeroDivisionError: {first_error[1]}"]
    assert first_sum == second_sum == 3  # still in step after a failure


def test_processes_that_disagree_say_so(outcomes):
    first, second = outcomes.of("disagreement")
    assert first == second
    assert first[0] == "UsageError"
    assert "the same seed: process 0 has '0', process 1 has '1'" in first[1]


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_process_that_is_lost_ends_the_other_in_time(tmp_path, how):
    """Killed, its connections close; stopped, like a machine that is gone, it just does not answer any more."""
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    command = [sys.executable, "-m", "tests.models.ranks", str(tmp_path), how]
    processes = [
        subprocess.Popen(
            command, cwd=ROOT, env=os.environ | LOOPBACK | shared | {"RANK": rank}, stderr=subprocess.DEVNULL
        )
        for rank in ("0", "1")
    ]
    try:
        assert processes[0].wait(timeout=120) == 1  # an error that nothing catches, in this script
    finally:
        for process in processes:
            process.kill()
            process.wait()
    turns, name, text, retryable = json.loads((tmp_path / f"{how}-0.json").read_text())
    assert turns > 3  # they had met, and worked together
    assert name == "ShardFailed"
    assert retryable
    assert "process 0 of 2 lost the others" in text
    assert "run it again" in text


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_does_not_come_is_not_waited_for_without_end(rank):
    began = time.monotonic()
    with (
        pytest.raises(ShardFailed, match=rf"process {rank} of 2 lost the others, or they did not come"),
        join(rank, 2, 0, "127.0.0.1", free_port(), timeout_s=1.0),
    ):
        pass
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(("count", "size"), [(16, 2), (5, 2), (1, 2), (0, 3), (7, 3)])
def test_parts_are_disjoint_whole_and_even(count, size):
    parts = [list(range(count))[World(rank, size, torch.device("cpu")).part(count)] for rank in range(size)]
    assert sorted(position for part in parts for position in part) == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_each_process_has_a_gpu_of_its_own_where_there_are_any(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert World.alone().device == torch.device("cuda", 0)
    with (
        pytest.raises(UsageError, match=r"process 2 of this machine has no GPU.*--nproc-per-node=2"),
        join(2, 4, 2, "127.0.0.1", 1),
    ):
        pass


def test_every_error_reaches_other_processes_as_it_is():
    classes = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, EoBatchError)]
    assert len(classes) > 10
    for kind in classes:
        error = ReadError("s3://b/k", "transient", "503") if kind is ReadError else kind("what, where, what to do")
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), again.retryable) == (kind, str(error), error.retryable)


TORCHRUN = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "MASTER_ADDR": "gang-0", "MASTER_PORT": "29500"}


def test_ranks_are_read_as_torchrun_gives_them():
    assert Settings.from_env(TORCHRUN).ranks == Ranks(3, 4, 1, "gang-0", 29500)
    assert Settings.from_env({"WORLD_SIZE": "1", "RANK": "0"}).ranks is None
    assert Settings.from_env({}).ranks is None


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"RANK": ""}, "WORLD_SIZE=4 needs RANK, MASTER_ADDR and MASTER_PORT"),
        ({"MASTER_ADDR": ""}, "start with torchrun"),
        ({"RANK": "4"}, "RANK=4 is not below WORLD_SIZE=4"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE='two' is not a whole number"),
    ],
)
def test_ranks_that_make_no_sense_are_refused(changed, says):
    with pytest.raises(UsageError, match=says):
        Settings.from_env(TORCHRUN | changed)


def test_cublas_is_told_to_be_deterministic_unless_somebody_chose(monkeypatch):
    for given, kept in (({}, ":4096:8"), ({"CUBLAS_WORKSPACE_CONFIG": ":16:8"}, ":16:8")):
        monkeypatch.setattr(os, "environ", given)
        keep_cublas_deterministic()
        assert given["CUBLAS_WORKSPACE_CONFIG"] == kept
