"""Two tiles, two dates, clouds: grids that do not nest, the mosaic across the tiles, the offset trap."""

import numpy as np
import pytest

from eo_batch.io.tables import read_table

from .by_gdal import agreement
from .conftest import Recipe
from .whole_job import WholeJob


@pytest.fixture
def recipe(croatia: Recipe) -> Recipe:
    return croatia


class TestWholeJob(WholeJob):
    told = "code 12"


def test_croatia_agrees_with_gdal(croatia: Recipe) -> None:
    """The two tiles are shifted by half a pixel to each other and by half a pixel to the lattice."""
    share, compared = agreement(croatia, "s2_120m", "B04", "red", 40)
    assert compared > 20_000
    assert share > 0.99


def test_croatia_offset_is_already_applied(croatia: Recipe) -> None:
    """Items state offset -0.1 though it is gone: vegetation in red must stay positive, near 0.02 to 0.03."""
    red = croatia.physical.s2_120m.sel(band_s2_120m="B04").values
    assert 0.01 < np.nanmedian(red) < 0.05
    nir = croatia.physical.s2_120m.sel(band_s2_120m="B08").values
    assert 0.2 < np.nanmedian(nir) < 0.5


def test_croatia_mosaic_has_no_seam(croatia: Recipe) -> None:
    """Chips on the overlap of the tiles are whole: the swath edge of one is filled by the other."""
    data = croatia.stored
    seam = (data.y0.values > 5_090_220) & (data.y0.values - 3840 < 5_100_000)
    inside = (data.x0.values > 520_000) & (data.x0.values < 590_000)
    chips = read_table(croatia.run.store, f"{croatia.run.identity.prefix('publish')}/chips.parquet")
    planned = np.isin(np.arange(data.sizes["chip"]), chips["slot"].to_numpy())
    valid = data.s2_120m_valid.isel(time=0).values[seam & inside & planned]
    assert len(valid) >= 40
    assert (valid > 0).mean() > 0.99


def test_croatia_undefined_class_is_told(croatia: Recipe) -> None:
    ledger = read_table(croatia.run.store, f"{croatia.run.identity.prefix('publish')}/ledger.parquet").to_pylist()
    assert any("code 12" in (row["cause"] or "") for row in ledger if row["level"] == "note")
