"""A new plan over the same cube: what is reused, what is kept, what is made again."""

import json
from pathlib import Path

import numpy as np
import pytest

import eo_batch
from eo_batch.core.errors import UsageError
from eo_batch.core.planet import PlanetSpec
from eo_batch.core.spec import RunSpec
from eo_batch.core.specfile import parse_spec
from eo_batch.entry.drive import StageState, drive, state_of
from eo_batch.entry.run import Run
from eo_batch.io.store import parse_store
from eo_batch.io.tables import read_table
from eo_batch.runners.base import Event
from eo_batch.runners.local import LocalRunner
from eo_batch.settings import Settings
from eo_batch.stages.simulate import simulate

SPEC = """
name: lineage
time: {start: 2023-06-01, end: 2023-07-01, step: month}
grid: {chip_px: 32, gsd_m: 10, block_chips: 4}
sensors:
  s2: {kind: s2-l2a, bands: [B04]}
  labels: {kind: classes, collections: [landcover], assets: {class: map}}
split: {cell_km: 1, test: 0.3}
"""


class Counting:
    """Counts the shards that a drive ran, by stage."""

    def __init__(self) -> None:
        self.ran: dict[str, int] = {}

    def begin(self, state: StageState) -> None:
        self.ran[state.stage] = len(state.missing)

    def event(self, state: StageState, event: Event) -> None:
        assert event.kind == "done", event.message

    def end(self, state: StageState) -> None: ...


def go(spec: RunSpec, store: Path, refresh: bool = False) -> tuple[Run, dict[str, int]]:
    run, counting = Run(spec, parse_store(str(store)), Settings(), refresh), Counting()
    run.submit()
    drive(run, LocalRunner(0), counting, until="publish")
    return run, counting.ran


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planet")
    simulate(PlanetSpec.tiny(cloud_share=0.1), parse_store(str(folder)))
    return folder


def spec_of(catalog: Path, *overrides: str) -> RunSpec:
    west, south, east, north = PlanetSpec.tiny().area_bbox
    half = [west, south, (west + east) / 2, north]
    return parse_spec(SPEC, [f"catalog={catalog}/items.json", f"area.bbox={half}", *overrides])


def earlier_catalog(catalog: Path, folder: Path) -> Path:
    """The same catalogue before its last Sentinel-2 day was listed."""
    document = json.loads((catalog / "items.json").read_text())
    days = sorted({i["properties"]["datetime"] for i in document["features"] if i["collection"] == "sentinel-2-l2a"})
    kept = [
        i
        for i in document["features"]
        if not (i["collection"] == "sentinel-2-l2a" and i["properties"]["datetime"][:10] == days[-1][:10])
    ]
    for item in kept:
        for asset in item["assets"].values():
            asset["href"] = str((catalog / asset["href"]).resolve())
    folder.mkdir()
    (folder / "items.json").write_text(json.dumps(document | {"features": kept}))
    return folder


def test_a_second_run_does_nothing(catalog: Path, tmp_path: Path) -> None:
    first, ran = go(spec_of(catalog), tmp_path)
    assert ran["chips"] == len(first.plan.shards) > 0
    _, again = go(spec_of(catalog), tmp_path)
    assert again == {"plan": 0, "chips": 0, "publish": 0}


def test_changing_the_split_leaves_the_chips(catalog: Path, tmp_path: Path) -> None:
    go(spec_of(catalog), tmp_path)
    _, ran = go(spec_of(catalog, "split.seed=5"), tmp_path)
    assert ran == {"plan": 0, "chips": 0, "publish": 1}


def test_a_larger_area_reuses_whole_blocks(catalog: Path, tmp_path: Path) -> None:
    small, _ = go(spec_of(catalog), tmp_path)
    before = {key: small.store.get(key) for key in small.store.list() if "/c/" in key}
    large, ran = go(spec_of(catalog, f"area.bbox={list(PlanetSpec.tiny().area_bbox)}"), tmp_path)
    assert large.identity.prefix("chips") == small.identity.prefix("chips")
    unchanged = {s.key for s in small.plan.shards} & {
        s.key for s in large.plan.shards if s.inputs in {o.inputs for o in small.plan.shards}
    }
    assert unchanged
    assert ran["chips"] == len(large.plan.shards) - len(unchanged)
    assert large.axes.blocks[: len(small.axes.blocks)] == small.axes.blocks
    same = [k for k in before if large.store.get(k) == before[k]]
    assert len(same) >= len(unchanged)


def test_new_scenes_leave_old_bins_until_refreshed(catalog: Path, tmp_path: Path) -> None:
    early = earlier_catalog(catalog, tmp_path / "early")
    hrefs = json.loads((early / "items.json").read_text())
    late = tmp_path / "late"
    late.mkdir()
    document = json.loads((catalog / "items.json").read_text())
    for item in document["features"]:
        for asset in item["assets"].values():
            asset["href"] = str((catalog / asset["href"]).resolve())
    (late / "items.json").write_text(json.dumps(document))
    assert len(hrefs["features"]) < len(document["features"])

    old, _ = go(spec_of(early), tmp_path / "runs")
    cube_before = eo_batch.open_cube(str(tmp_path / "runs/lineage")).s2_10m.load()
    kept, ran = go(spec_of(late), tmp_path / "runs")
    assert kept.identity.prefix("chips") == old.identity.prefix("chips")
    assert (ran["plan"], ran["chips"], ran["publish"]) == (1, 0, 1)
    ledger = read_table(kept.store, f"{kept.identity.prefix('publish')}/ledger.parquet").to_pylist()
    assert any("--refresh" in row["cause"] for row in ledger if row["level"] == "note")
    np.testing.assert_array_equal(eo_batch.open_cube(str(tmp_path / "runs/lineage")).s2_10m.values, cube_before.values)

    fresh, ran = go(spec_of(late), tmp_path / "runs", refresh=True)
    changed = [s for s in fresh.plan.shards if s.inputs not in {o.inputs for o in old.plan.shards}]
    assert ran["chips"] == len(changed) > 0
    assert ran["publish"] == 1
    ledger = read_table(fresh.store, f"{fresh.identity.prefix('publish')}/ledger.parquet").to_pylist()
    assert not any("--refresh" in (row["cause"] or "") for row in ledger)
    assert not state_of(fresh, "chips").missing
    whole, _ = go(spec_of(late), tmp_path / "anew")
    np.testing.assert_array_equal(
        eo_batch.open_cube(str(tmp_path / "runs/lineage")).s2_10m.values,
        eo_batch.open_cube(str(tmp_path / "anew/lineage")).s2_10m.values,
    )
    assert whole.plan == fresh.plan


def test_open_cube_gives_the_runs_chips_lazily(catalog: Path, tmp_path: Path) -> None:
    run, _ = go(spec_of(catalog), tmp_path)
    cube = eo_batch.open_cube(str(tmp_path / "lineage"))
    assert cube.sizes["chip"] == len(run.plan.cells)
    assert sorted(cube.chip_id.values) == sorted(p.cell.chip_id for p in run.plan.cells)
    assert set(np.unique(cube.split)) <= {"train", "test", "buffer"}
    assert cube.s2_10m.chunks is not None
    values = cube.s2_10m.values
    assert 0 < np.nanmean(values) < 1
    assert eo_batch.open_cube(f"{tmp_path}/{run.identity.prefix('chips')}/cube.zarr").sizes["chip"] >= len(
        run.plan.cells
    )
    with pytest.raises(UsageError, match="not a run"):
        eo_batch.open_cube(str(tmp_path / "nowhere"))
