"""Folders of chips as M3LEO lays them out become a catalogue that runs read; bands of one file are told by number."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from typer.testing import CliRunner

from eo_batch.cli.app import app

from .making import Made

SPEC = """
name: m3
area: {bbox: [11.955, 47.99, 11.98, 48.005]}
time: {start: 2020-01-01, end: 2021-01-01}
grid: {chip_px: 32, gsd_m: 20, block_chips: 4}
pretrain: {encoder: {patch_px: 8}}
sensors:
  cover: {kind: classes, collections: [esawc], assets: {class: data}}
  s1: {kind: continuous, collections: [s1grd], assets: {vv: data#1, vh: data#2}}
"""
PX, LEFT, TOP = 20.0, 720_640.0, 5_320_960.0


def chip(path: Path, number: int, bands: int, kind: str) -> None:
    values = np.random.default_rng(number).integers(1, 90, (bands, 64, 64)).astype(kind)
    path.parent.mkdir(exist_ok=True)
    transform = rasterio.Affine(PX, 0, LEFT + number * 64 * PX, 0, -PX, TOP)
    about = {"height": 64, "width": 64, "count": bands, "dtype": kind, "crs": "EPSG:32632", "nodata": 0}
    tiles = {"tiled": True, "blockxsize": 64, "blockysize": 64}
    with rasterio.open(path, "w", driver="GTiff", transform=transform, **about, **tiles) as target:
        target.write(values)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    area = tmp_path / "miniville"
    area.mkdir()
    for number in range(2):
        chip(area / f"esawc/chip{number}.tif", number, 1, "uint8")
    chip(area / "s1grd/chip0.tif", 0, 2, "float32")  # of the other chip there is none, as is common
    (area / "miniville_splits_60bands.csv").write_text("identifier,split\nchip0,train\nchip1,test\n")
    return area


def test_chips_become_a_catalogue_and_a_cube(folder: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["import", "m3leo", str(folder)])
    assert done.exit_code == 0, done.output
    assert "esawc: 2 chips" in done.output
    items = json.loads((folder / "items.json").read_text())["features"]
    assert {(i["id"], i["properties"]["m3leo:split"]) for i in items} == {("chip0", "train"), ("chip1", "test")}
    made = Made(SPEC, tmp_path, f"catalog={folder}/items.json")
    with rasterio.open(folder / "s1grd/chip0.tif") as source:
        truth = source.read()
        left, top = source.transform.c, source.transform.f
    for b, name in enumerate(("vv", "vh")):
        image, x0, y0 = made.mosaic("s1_20m", 32632, band_s1_20m=name)
        row, col = round((y0 - top) / PX), round((left - x0) / PX)
        ours = image[max(row, 0) : row + 64, max(col, 0) : col + 64]
        part = truth[b, max(-row, 0) :, max(-col, 0) :][: ours.shape[0], : ours.shape[1]]
        known = np.isfinite(ours)
        assert known.sum() > 1000
        np.testing.assert_array_equal(ours[known], part[known])
    cover = np.isfinite(made.cube.cover_20m.values).sum()
    assert cover > np.isfinite(made.cube.s1_20m.values[:, 0]).sum(), "a chip without one data set keeps the others"


def test_a_folder_without_chips_is_told(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["import", "m3leo", str(tmp_path)])
    assert done.exit_code != 0
