"""One tile in another zone, twelve bands in three pixel sizes."""

import numpy as np
import pytest

from .by_gdal import agreement
from .conftest import Recipe
from .whole_job import WholeJob


@pytest.fixture
def recipe(sahara: Recipe) -> Recipe:
    return sahara


class TestWholeJob(WholeJob):
    told = "s2_200m"


def test_sahara_agrees_with_gdal_in_all_pixel_sizes(sahara: Recipe) -> None:
    for array, band, asset in (("s2_100m", "B02", "blue"), ("s2_200m", "B11", "swir16"), ("s2_200m", "B01", "coastal")):
        share, compared = agreement(sahara, array, band, asset, 12)
        assert compared > 2000
        assert share > 0.97, band


def test_sahara_flag_false_does_not_mean_an_offset_is_left(sahara: Recipe) -> None:
    """Baseline 02.14 and `boa_offset_applied: false`: nothing to subtract. Sand is bright: red near 0.4."""
    red = sahara.physical.s2_100m.sel(band_s2_100m="B04").values
    assert 0.3 < np.nanmedian(red) < 0.5
    receipt = next(iter(sahara.run.receipts("chips").values()))
    assert {s.offset_dn for s in receipt.sources} == {0.0}


def test_resampled_bands_say_so(sahara: Recipe) -> None:
    assert "B01, B09" in sahara.stored.s2_200m.attrs["comment"]
