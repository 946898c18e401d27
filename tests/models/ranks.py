"""What each process of `test_world.py` does; torchrun starts it.

    torchrun --nproc-per-node=2 -m tests.models.ranks FOLDER
    python -m tests.models.ranks FOLDER kill|stop        (with torchrun's variables set by hand)

Outcomes go to FOLDER/CASE-RANK.json.
"""

import dataclasses
import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch

from eo_batch.core.errors import DataError, EoBatchError, StoreError
from eo_batch.core.learning import ClipSpec, DinoSpec, ObjectiveSpec, SimClrSpec
from eo_batch.models.batch import ArraySamples, Batch, Samples
from eo_batch.models.checkpoints import Checkpoint, dump_checkpoint, load_checkpoint
from eo_batch.models.objectives.build import build
from eo_batch.models.training import TrainConfig, batch_indices, reproducible, train
from eo_batch.models.world import TIMEOUT_S, World, join
from eo_batch.settings import Settings
from tests.models.conftest import CONFIG, SHAPES, fresh_mae, make_samples

BATCHES = (16, 5, 1)
"""One that two processes share evenly, one that they do not, and one that leaves a process without a sample."""
RESUMED = 5
"""Batch of the trainings that are resumed by another number of processes."""
SAMPLES = 50


def config(batch: int) -> TrainConfig:
    return TrainConfig(
        seed=9, steps=20, batch=batch, lr=3e-3, weight_decay=0.05, warmup_steps=5, clip_norm=1.0,
        checkpoint_every_steps=10, validate_every_steps=10,
    )  # fmt: skip


def patchy(count: int, seed: int) -> ArraySamples:
    """Samples of which many lack one sensor, some lack both, and all have holes."""
    samples = make_samples(count, seed)
    rng = np.random.default_rng(seed + 100)
    for valid in samples.valid_nbyx.values():
        valid[rng.random(count) < 0.4] = False
        valid[rng.random(valid.shape) < 0.1] = False
    return samples


OBJECTIVES: dict[str, ObjectiveSpec] = {
    "dino": DinoSpec(prototypes=32, hidden=16, bottleneck=8, local_views=2, teacher_momentum=0.9),
    "simclr": SimClrSpec(hidden=16, projection=8),
    "clip": ClipSpec(projection=8, drop_bands=0.3),
}
"""Those beside the masked autoencoder, which is what is trained where nothing is said."""


def trained(
    batch: int,
    world: World | None,
    resume: Checkpoint | None = None,
    save: Callable[[Checkpoint], None] = lambda checkpoint: None,
    samples: Samples | None = None,
    objective: str = "mae",
) -> list[dict[str, float]]:
    """The curve of a fresh model; that all processes end with the same weights is checked on the way."""
    model = fresh_mae() if objective == "mae" else build(SHAPES, CONFIG, OBJECTIVES[objective], seed=3)
    # Eleven validation samples: the last of its batches is smaller than the world.
    curve = train(model, samples or patchy(SAMPLES, 0), patchy(11, 1), config(batch), save, resume, world=world)
    if world is not None:
        weights = b"".join(value.numpy().tobytes() for value in model.state_dict().values())
        world.agree("weights", hashlib.sha256(weights).hexdigest())
    return list(curve)


@dataclasses.dataclass
class Failing:
    """Samples whose third read fails in the processes in which `error` is given."""

    samples: ArraySamples
    error: Exception | None
    reads: int = 0

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, indices: Sequence[int]) -> Batch:
        self.reads += 1
        if self.error is not None and self.reads == 3:
            raise self.error
        return self.samples.read(indices)


def failure(act: Callable[[], object]) -> list[str]:
    """Class and text of what an action raises."""
    try:
        act()
    except Exception as error:
        return [type(error).__name__, str(error)]
    return []


def wild() -> ArraySamples:
    """Samples of which one in the second process's part of step 3 is not finite."""
    samples = make_samples(SAMPLES)
    samples.pixels_nbyx["s2"][batch_indices(9, 3, 16, SAMPLES)[1]] = np.nan
    return samples


def cases(world: World, folder: Path) -> dict[str, Callable[[], object]]:
    first = world.rank == 0

    def keep(checkpoint: Checkpoint) -> None:
        (folder / f"two-{checkpoint.step}.ckpt").write_bytes(dump_checkpoint(checkpoint))

    def refuse(checkpoint: Checkpoint) -> None:
        assert first, "only the first process writes"
        raise StoreError("disk full")

    def read_with(error: Exception) -> Callable[[], object]:
        failing = Failing(patchy(SAMPLES, 0), None if first else error)
        return lambda: failure(lambda: trained(16, world, samples=failing))

    def led() -> object:
        found = world.lead(lambda: os.getpid())
        error = failure(lambda: world.lead(lambda: 1 // 0))
        return [found == os.getpid(), error, int(world.sum(torch.tensor(world.rank + 1)))]

    resumed_from = load_checkpoint((folder / "alone-10.ckpt").read_bytes(), "alone")
    return {
        **{f"batch-{batch}": lambda batch=batch: trained(batch, world) for batch in BATCHES},
        **{name: lambda name=name: trained(RESUMED, world, objective=name) for name in OBJECTIVES},
        "kept": lambda: trained(RESUMED, world, save=keep),
        "resumed": lambda: trained(RESUMED, world, resumed_from),
        "wild": lambda: failure(lambda: trained(16, world, samples=wild())),
        "unreadable": read_with(DataError("chips are cut short")),
        "bug": read_with(IndexError("far out")),
        "unwritable": lambda: failure(lambda: trained(16, world, save=refuse)),
        "led": led,
        "disagreement": lambda: failure(lambda: world.agree("seed", str(world.rank))),
    }


def joined(timeout_s: float = TIMEOUT_S) -> AbstractContextManager[World]:
    ranks = Settings.from_env().ranks
    assert ranks is not None
    return join(ranks.rank, ranks.world_size, ranks.local_rank, ranks.master_addr, ranks.master_port, timeout_s)


def run_all(folder: Path) -> None:
    with joined() as world:
        names = list(cases(world, folder))
    for name in names:  # a meeting for each
        with joined() as world, reproducible(1):
            outcome = cases(world, folder)[name]()
        (folder / f"{name}-{world.rank}.json").write_text(json.dumps(outcome))


def lose(folder: Path, how: str) -> None:
    """The second process is killed, or stops to answer; the first notes what it finds."""
    turn = 0
    try:
        with joined(timeout_s=8.0) as world:
            for turn in range(1000):
                world.sum(torch.ones(1000))
                if turn == 3 and world.rank == 1:
                    os.kill(os.getpid(), signal.SIGKILL if how == "kill" else signal.SIGSTOP)
    except EoBatchError as error:
        found = [turn, type(error).__name__, str(error), error.retryable]
        (folder / f"{how}-0.json").write_text(json.dumps(found))
        raise


if __name__ == "__main__":
    if len(sys.argv) > 2:
        lose(Path(sys.argv[1]), sys.argv[2])
    else:
        run_all(Path(sys.argv[1]))
