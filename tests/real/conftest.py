"""Runs of the recipes on real data, the whole job, once per session; training is cut short."""

import subprocess
import sys
from pathlib import Path

import pytest
import xarray as xr

from eo_batch.core import layout
from eo_batch.entry.run import Run, open_run
from eo_batch.io.store import parse_store
from eo_batch.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


SHORT = ("pretrain.steps=30", "pretrain.warmup_steps=3", "pretrain.checkpoint_every_steps=30")


class Recipe:
    """A recipe that has run."""

    def __init__(self, run: Run, folder: Path) -> None:
        self.run = run
        self.folder = folder
        """Folder of the data set that it ran on."""
        cube = layout.cube(run.identity.prefix("chips"))
        self.stored = xr.open_zarr(run.store.zarr(cube, read_only=True), mask_and_scale=False).load()
        """The cube with stored values."""
        self.physical = xr.open_zarr(run.store.zarr(cube, read_only=True)).load()
        """The cube as xarray decodes it."""


def eo_batch(*words: str) -> "subprocess.CompletedProcess[str]":
    """The command line in a process of its own."""
    code = "from eo_batch.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=600)


def _run(name: str, folder: Path, store: Path) -> Recipe:
    words = (str(ROOT / f"recipes/{name}.yaml"), f"catalog={folder}/items.json", *SHORT)
    done = eo_batch("run", *words, "-s", str(store))
    assert done.returncode == 0, done.stderr
    return Recipe(open_run(parse_store(str(store)), name, Settings()), folder)


@pytest.fixture(scope="session")
def croatia(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return _run("real-33tw", shared_data / "data/s2-33tw", tmp_path_factory.mktemp("croatia"))


@pytest.fixture(scope="session")
def sahara(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return _run("real-29rkh", shared_data / "data/s2-29rkh", tmp_path_factory.mktemp("sahara"))


@pytest.fixture(scope="session")
def flanders(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return _run("real-flanders", shared_data / "data/flanders", tmp_path_factory.mktemp("flanders"))
