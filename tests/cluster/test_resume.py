"""A pod that takes over a training goes on from the checkpoint that is in the store, and does not begin anew: a mark
that is put into the checkpoint is found in the curve.
"""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest

from eo_batch.core import layout
from eo_batch.entry.run import open_run
from eo_batch.io.store import Store, parse_store
from eo_batch.io.tables import read_table
from eo_batch.models.checkpoints import dump_checkpoint, load_checkpoint
from eo_batch.settings import Settings
from tests.cluster.disturbing import signalled
from tests.cluster.given import S3
from tests.cluster.kube import delete_pod, wait_for
from tests.cluster.place import Place
from tests.cluster.runs import Reference, nearly_done, start
from tests.cluster.ways import ByCommand

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.matrix]

_STEPS = 1000
"""Takes some ten seconds: enough to stop a pod in the middle."""
_MARK = 1234.5


def test_training_goes_on_from_the_checkpoint_in_the_store(place: Place, reference: Reference, s3_here: S3) -> None:
    url, _ = nearly_done(reference, s3_here.server, {})
    way = ByCommand(place.release, "kubernetes", place.release.profile("kubernetes"))
    overrides = ["pretrain.seeds=[0]", f"pretrain.steps={_STEPS}"]
    argv = ["run", str(reference.spec), *overrides, "--store", url, "--on", str(way.profile), "--until", "pretrain"]
    driver = start(argv)
    try:
        wait_for(lambda: stopped(way, url, driver), "a pod is stopped in the middle of its training", 240, every_s=0.1)
        names = mark(parse_store(url))
        for _, pod in way.at_work():
            delete_pod(way.space, pod["metadata"]["name"], 0)
        said, _ = driver.communicate(timeout=300)
    finally:
        driver.kill()
    assert driver.returncode == 0, said
    run = open_run(parse_store(url), "same", Settings.from_env())
    losses = read_table(run.store, layout.losses(run.identity.prefix("pretrain"), 0))
    assert losses["step"].to_pylist() == list(range(1, _STEPS + 1))
    train = losses["train"].to_pylist()
    assert train[0] == _MARK, f"marked were {names}"
    assert _MARK not in train[1:]


def checkpoints(store: Store) -> list[str]:
    """Keys of the checkpoints of the spec that was submitted last."""
    run = open_run(store, "same", Settings.from_env())
    return sorted(store.list(f"{run.identity.prefix('pretrain')}/checkpoints/"))


def stopped(way: ByCommand, url: str, driver: subprocess.Popen[str]) -> bool:
    """Whether a pod that has left a checkpoint was stopped."""
    assert driver.poll() is None, driver.communicate()[0]
    there = checkpoints(parse_store(url))
    return bool(there) and any(signalled(way.space, pod, "STOP") for _, pod in way.at_work())


def mark(store: Store) -> list[str]:
    """Change the first row of the curve in every checkpoint; their keys."""
    keys = checkpoints(store)
    for key in keys:
        found = load_checkpoint(store.get(key), key)
        first, *others = found.curve
        store.put(key, dump_checkpoint(replace(found, curve=({**first, "train": _MARK}, *others))))
    assert not any(key.endswith(f"{_STEPS:08d}.ckpt") for key in keys), "it was done already"
    return keys
