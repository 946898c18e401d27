"""A whole run over a tiny simulated planet, made once by the real stages."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from eo_batch.core.planet import PlanetSpec
from eo_batch.core.spec import RunSpec
from eo_batch.core.specfile import parse_spec
from eo_batch.io.store import Store, parse_store
from tests.report.pages import do, page_of

SPEC = """
name: tiny
time: {start: 2023-06-01, end: 2023-07-01, step: P10D}
grid: {chip_px: 32, gsd_m: 10, block_chips: 8}
sensors:
  s2: {kind: s2-l2a, bands: [B02, B03, B04, B08]}
  s1: {kind: s1, orbit: ascending}
  dem: {kind: dem, collections: [dem]}
  labels: {kind: classes, collections: [landcover], assets: {class: map}}
split: {cell_km: 0.8, test: 0.35}
pretrain:
  seeds: [0, 1]
  steps: 6
  warmup_steps: 2
  batch: 8
  validate_every_steps: 3
  checkpoint_every_steps: 6
  val_fraction: 0.3
  encoder: {dim: 16, depth: 1, heads: 2}
  objective: {kind: mae, decoder: {dim: 8, heads: 2}}
probe: {folds: 2}
"""


@pytest.fixture(scope="session")
def planet(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[float]]:
    """Address of the planet's items, and its area."""
    from eo_batch.stages.simulate import simulate

    spec = PlanetSpec.tiny(cloud_share=0.4)
    folder = tmp_path_factory.mktemp("report-planet")
    return simulate(spec, parse_store(str(folder))), list(spec.area_bbox)


@pytest.fixture(scope="session")
def make_spec(planet: tuple[str, list[float]]) -> Callable[..., RunSpec]:
    """Run specs over the planet, with overrides."""

    def make(*overrides: str) -> RunSpec:
        catalog, bbox = planet
        return parse_spec(SPEC, [f"catalog={catalog}", f"area.bbox={bbox}", *overrides])

    return make


@dataclass(frozen=True)
class Made:
    """A run and its page."""

    spec: RunSpec
    store: Store
    page: str


@pytest.fixture(scope="session")
def published(make_spec: Callable[..., RunSpec], tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A run that went as far as `publish`, and its page by then."""
    spec, store = make_spec(), parse_store(str(tmp_path_factory.mktemp("report-run")))
    do(spec, store, "publish")
    return Made(spec, store, page_of(spec, store))


@pytest.fixture(scope="session")
def whole(published: Made) -> Made:
    """The same run, complete. Tests that change its store work on a copy."""
    pytest.importorskip("torch", reason="needs the extra `train`: pip install eo-batch[train]")
    do(published.spec, published.store)
    return Made(published.spec, published.store, page_of(published.spec, published.store))


@pytest.fixture
def copied(whole: Made, tmp_path: Path) -> Made:
    """A copy of the complete run that a test may break."""
    source = Path(unquote(urlsplit(whole.store.url).path))
    shutil.copytree(source, tmp_path / "copy")
    return Made(whole.spec, parse_store(str(tmp_path / "copy")), whole.page)
