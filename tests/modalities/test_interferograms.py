"""Real pairs over Mexico City: 30 interferograms, many of which end on one day."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.warp import Resampling, reproject

from eo_batch.io.plans import load_all_scenes

from .making import Made

SPEC = """
name: mexico
area: {bbox: [-99.17, 19.385, -99.08, 19.435]}
time: {start: 2018-02-01, end: 2018-06-01, step: month}
grid: {chip_px: 32, gsd_m: 100, block_chips: 4}
pretrain: {encoder: {patch_px: 8}}
sensors:
  ifg: {kind: interferogram, collections: [sentinel-1-ifg], composite: mean}
"""


def pairs(folder: Path, month: int, longest: float = 366) -> list[dict[str, Any]]:
    """Items whose middle lies in a month."""
    found = []
    for item in json.loads((folder / "items.json").read_text())["features"]:
        if item["collection"] == "sentinel-1-ifg":
            first, second = (datetime.fromisoformat(item["properties"][f"{n}_datetime"]) for n in ("start", "end"))
            item["days"] = (second.date() - first.date()).days
            if (first + (second - first) / 2).month == month and item["days"] <= longest:
                found.append(item)
    return found


def warped(folder: Path, item: dict[str, Any], asset: str, like: tuple[Any, float, float]) -> NDArray[Any]:
    image, left, top = like
    out = np.full(image.shape, np.nan, np.float32)
    with rasterio.open(folder / item["assets"][asset]["href"]) as source:
        reproject(
            rasterio.band(source, 1), out, src_nodata=0, dst_nodata=np.nan, resampling=Resampling.bilinear,
            dst_crs="EPSG:32614", dst_transform=rasterio.Affine(100, 0, left, 0, -100, top), tolerance=0,
        )  # fmt: skip
    return out


@pytest.fixture(scope="module")
def folder(shared_data: Path) -> Path:
    return shared_data / "data/pyrate-mexico"


@pytest.fixture(scope="module")
def mexico(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(SPEC, tmp_path_factory.mktemp("mexico"), f"catalog={folder}/items.json")


@pytest.mark.parametrize("month", [3, 4, 5])
def test_a_bin_is_the_mean_of_its_pairs(mexico: Made, folder: Path, month: int) -> None:
    """Computed anew with GDAL: each pair once, its phase divided by its days, though pairs share dates."""
    t = [str(key) for key in mexico.cube.time_bin.values].index(f"2018-{month:02d}")
    chosen = pairs(folder, month)
    ends = [item["properties"]["datetime"] for item in chosen]
    assert len(chosen) >= 3
    assert month != 4 or len(set(ends)) < len(ends), "pairs that end on one day must not become one"
    at = mexico.cube.isel(time=t)
    made = Made.__new__(Made)
    made.cube = at
    for band, asset in (("coherence", "coherence"), ("phase_rate", "unwrapped_phase")):
        ours = made.mosaic("ifg_100m", 32614, band_ifg_100m=band)
        layers = [warped(folder, i, asset, ours) / (i["days"] if band == "phase_rate" else 1) for i in chosen]
        truth = np.mean(layers, axis=0)
        everywhere = np.isfinite(truth) & np.isfinite(ours[0])
        assert everywhere.sum() > 1500
        off = np.abs(ours[0] - truth)[everywhere]
        assert np.quantile(off, 0.98) < 2e-3 * np.nanmax(np.abs(truth))


def test_the_masks_of_phase_and_coherence_differ(mexico: Made) -> None:
    """The zeros of both assets differ by some pixels: each band keeps its own, and what counts as valid has both."""
    cube = mexico.cube
    coherence = np.isfinite(cube.ifg_100m.sel(band_ifg_100m="coherence").values)
    phase = np.isfinite(cube.ifg_100m.sel(band_ifg_100m="phase_rate").values)
    assert (cube.ifg_100m_valid.values > 0)[~(coherence & phase)].sum() == 0
    assert float(cube.ifg_100m.sel(band_ifg_100m="coherence").max()) <= 1
    units = dict(zip(cube.band_ifg_100m.values, cube.units_ifg_100m.values, strict=True))
    assert units == {"coherence": "1", "phase_rate": "radian day-1"}


def test_the_window_of_baselines_chooses_pairs(folder: Path, tmp_path: Path) -> None:
    made = Made(SPEC, tmp_path, f"catalog={folder}/items.json", "sensors.ifg.max_baseline_days=24")
    found = load_all_scenes(made.run.store, made.run.identity.prefix("plan"))
    used = [s for s in found if s.refusal is None]
    left = [s for s in found if s.refusal is not None]
    assert {(s.moment.month, s.scene_id) for s in used} >= {(i_month, i["id"]) for i_month in (3, 4, 5) for i in
                                                           pairs(folder, i_month, 24)}  # fmt: skip
    assert any("temporal baseline of 72 days is outside 0 to 24" in str(s.refusal) for s in left)


def test_phases_of_different_lengths_are_not_averaged(folder: Path, tmp_path: Path) -> None:
    catalog = f"catalog={folder}/items.json"
    with pytest.raises(
        AssertionError, match=r"bin 2018-\d\d holds pairs of .* days, whose phases must not be averaged"
    ):
        Made(SPEC, tmp_path, catalog, "sensors.ifg.bands=[coherence, unwrapped_phase]")
    one = ("sensors.ifg.min_baseline_days=12", "sensors.ifg.max_baseline_days=12")
    made = Made(SPEC, tmp_path, catalog, "sensors.ifg.bands=[coherence, unwrapped_phase]", *one)
    assert np.isfinite(made.cube.ifg_100m.sel(band_ifg_100m="unwrapped_phase").values).any()
