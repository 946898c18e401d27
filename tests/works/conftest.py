"""One simulated planet and its chips for all works tests."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from eo_batch.core.learning_plan import learning_arrays
from eo_batch.core.planet import TEXTURE_CODES, PlanetSpec
from eo_batch.core.specfile import parse_spec
from eo_batch.entry.drive import drive
from eo_batch.entry.run import Run
from eo_batch.io.cube import CubeReader
from eo_batch.io.store import parse_store
from eo_batch.io.tables import read_table
from eo_batch.models.batch import ArraySamples
from eo_batch.models.encoder import SensorShape
from eo_batch.models.samples import CubeSamples, InputArray, Place
from eo_batch.models.training import reproducible
from eo_batch.runners.local import LocalRunner
from eo_batch.settings import Settings
from eo_batch.stages.pretrain import _input_arrays
from eo_batch.stages.simulate import simulate
from tests.stages.test_learning import Silent

PLANET = PlanetSpec(
    width_km=12.8, height_km=9.6, s2_dates=1, s1_dates=1, cloud_share=0.0,
    collections=("sentinel-2-l2a", "sentinel-1-rtc", "coherence", "dem", "landcover"), s2_bands=("B02", "B03", "B04"),
)  # fmt: skip
SPEC = """
name: works
time: {start: 2023-06-01, end: 2023-07-01, step: month}
grid: {chip_px: 32, gsd_m: 10, block_chips: 8}
sensors:
  s2: {kind: s2-l2a, bands: [B02, B03, B04]}
  s1: {kind: s1, orbit: ascending}
  labels: {kind: classes, collections: [landcover], assets: {class: map}}
split: {cell_km: 1.6, test: 0.25, seed: 1}
pretrain: {encoder: {patch_px: 8}}
"""


@dataclass(frozen=True)
class World:
    """Published chips."""

    run: Run

    @property
    def shapes(self) -> list[SensorShape]:
        return [array.shape for array in self._arrays()]

    def samples(self, split: str) -> ArraySamples:
        """Chips of one side of the split, each once."""
        places = tuple(Place(int(slot), 0) for slot in self._chips(split).slot)
        reader = CubeReader(self.run.store, self.run.identity.prefix("chips"))
        return CubeSamples(reader, self._arrays(), places).in_memory()

    def labels(self, split: str) -> NDArray[np.float64]:
        """Share of each texture class in the same chips, (n, class)."""
        return self._chips(split)[[f"share:labels_10m:{code}" for code in TEXTURE_CODES]].to_numpy(np.float64)

    def _chips(self, split: str) -> Any:
        table = read_table(self.run.store, f"{self.run.identity.prefix('publish')}/chips.parquet").to_pandas()
        return table[(table.split == split) & table.owner]

    def _arrays(self) -> tuple[InputArray, ...]:
        stats = json.loads(self.run.store.get(f"{self.run.identity.prefix('publish')}/stats.json"))
        return _input_arrays(learning_arrays(self.run.spec), stats)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("works")
    catalog = simulate(PLANET, parse_store(str(folder / "planet")))
    spec = parse_spec(SPEC, [f"catalog={catalog}", f"area.bbox={list(PLANET.area_bbox)}"], "works")
    run = Run(spec, parse_store(str(folder / "store")), Settings())
    run.submit()
    drive(run, LocalRunner(), Silent(), until="publish")
    return World(run)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with reproducible(threads=1):
        yield


def shuffled(samples: ArraySamples, sensors: Sequence[str], seed: int) -> ArraySamples:
    """The same chips, but of some sensors those of other places."""
    pixels, valid = dict(samples.pixels_nbyx), dict(samples.valid_nbyx)
    for number, name in enumerate(sensors):
        order = np.random.default_rng([seed, number]).permutation(len(samples))
        pixels[name], valid[name] = pixels[name][order], valid[name][order]
    return ArraySamples(pixels, valid)
