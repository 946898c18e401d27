"""Parts of the report on their own: words for numbers, squares for chips, and which chips are shown."""

import re

import numpy as np
import pyarrow as pa
import pytest
import shapely

from eo_batch.pixels.figures_map import Paint
from eo_batch.stages.report import words
from eo_batch.stages.report.coverage import bin_words
from eo_batch.stages.report.gallery import CHIPS_SHOWN, CLOUDED_SHOWN, pick_chips, spread
from eo_batch.stages.report.ground import MOST_SITES, MOST_SQUARES, ground_of, sites_of
from eo_batch.stages.report.results import Results
from tests.report.conftest import Made

THIN = "\u202f"


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (words.count(1, "chip"), "1 chip"),
        (words.count(12345, "chip"), "12 345 chips"),
        (words.count(0, "box", "boxes"), "0 boxes"),
        (words.percent(0.988), "98.8 %"),
        (words.percent(1.0), "100 %"),
        (words.percent(0.99999), "> 99.9 %"),
        (words.percent(0.0), "0 %"),
        (words.percent(1e-6), "< 0.1 %"),
        (words.percent(None), "–"),
        (words.size(0), "0 B"),
        (words.size(999), "999 B"),
        (words.size(1234), "1.23 kB"),
        (words.size(999_600), "1 MB"),
        (words.size(2.5e12), "2.5 TB"),
        (words.duration(0.034), "0.034 s"),
        (words.duration(59.6), "60 s"),
        (words.duration(119.7), "2 min 0 s"),
        (words.duration(7325), "2 h 2 min"),
        (words.length(640), "640 m"),
        (words.length(15360), "15.36 km"),
        (words.area(185.4), "185 km²"),
        (words.area(0.4096), "0.41 km²"),
        (words.number(-0.1234), "−0.123"),
        (words.number(float("nan")), "–"),
        (words.signed(0.1), "+0.100"),
        (words.listed([]), "none"),
        (words.listed(["a"]), "a"),
        (words.listed(["a", "b", "c"]), "a, b and c"),
        (bin_words("20230602P10D", "P10D"), "2023-06-02 to 2023-06-11"),
        (bin_words("2023-06", "month"), "2023-06"),
        (bin_words("20230601-20230701", "all"), "2023-06-01 to 2023-06-30"),
        (bin_words("static", "month"), "no time axis"),
    ],
)
def test_numbers_read_well(said: str, meant: str) -> None:
    assert said.replace(THIN, " ") == meant


def _chips(count: int, lon: float = 10.0, blocks: int = 10) -> pa.Table:
    side = int(np.ceil(np.sqrt(count)))
    rows = [
        {
            "chip_id": f"u33n-640m-r{i // side:05}-c{i % side:05}",
            "geometry": shapely.to_wkb(shapely.box(lon + x, y, lon + x + 0.01, y + 0.01)),
            "lon": lon + x,
            "lat": y,
            "owner": i != 3,
            "split": ("train", "test", "buffer")[i % 3],
            "block": f"b{i % blocks}",
            "slot": i,
            "valid:s2:a": (0.5 if i % 7 == 0 else 1.0),
            "valid:s2:b": None,
            "valid:dem:static": 1.0,
        }
        for i in range(count)
        for x, y in [(i % side * 0.01, i // side * 0.01)]
    ]
    return pa.Table.from_pylist(rows)


def test_every_chip_is_a_square_and_owners_lie_on_top() -> None:
    ground = ground_of(_chips(20))
    assert len(ground.squares) == 20
    assert not ground.chips[0].owner
    assert len(ground.owners) == 19
    assert ("s2", "b") not in ground.chips[0].valid
    assert ground.chips[5].valid["s2", "a"] in (0.5, 1.0)


def test_too_many_chips_become_blocks() -> None:
    ground = ground_of(_chips(MOST_SQUARES + 1, blocks=40))
    assert ground.by_block
    assert len(ground.squares) == 40
    seen: list[int] = []

    def paint(chips: object) -> Paint:
        seen.append(len(list(chips)))  # type: ignore[call-overload]
        return Paint("#000000")

    svg = ground.map(paint, "m", 300)
    assert sum(seen) == MOST_SQUARES + 1
    assert len(svg) < 40_000


def test_sites_far_apart_get_maps_of_their_own() -> None:
    near, far = _chips(9, lon=10.0), _chips(9, lon=14.0)
    ground = ground_of(pa.concat_tables([near, far]))
    assert sorted(len(site) for site in ground.sites) == [9, 9]
    svg = ground.map(lambda chips: Paint("#000000"), "about", 330)
    assert svg.count("<svg") == 2
    assert svg.count("<path") == 18
    assert "about; site 2 of 2" in svg


def test_neighbouring_sites_share_a_map() -> None:
    ground = ground_of(pa.concat_tables([_chips(9, lon=10.0), _chips(9, lon=10.08)]))
    assert len(ground.sites) == 1
    assert len(sites_of(ground.squares)) == 2


def test_many_scattered_sites_share_a_map() -> None:
    ground = ground_of(pa.concat_tables([_chips(1, lon=10.0 + 2 * i) for i in range(MOST_SITES + 1)]))
    assert len(ground.sites) == 1
    assert ground.magnified > 1
    svg = ground.map(lambda chips: Paint("#000000"), "about", 330)
    x = [float(number) for number in re.findall(r"[\d.]+", re.findall(r'<path d="(.*?)"', svg)[0])][::2]
    assert max(x) - min(x) == pytest.approx(2, abs=0.3)  # pixels: small, and there


def test_squares_that_can_be_seen_keep_their_size() -> None:
    assert ground_of(_chips(100)).magnified == 1


def test_chips_across_the_antimeridian_stay_together() -> None:
    table = _chips(9, lon=179.985)
    lon = np.array(table["lon"])
    table = table.set_column(table.column_names.index("lon"), "lon", pa.array(np.where(lon > 180, lon - 360, lon)))
    ground = ground_of(table)
    lons = [value for square in ground.squares for value in square.lon]
    assert max(lons) - min(lons) < 0.1


def test_the_gallery_spreads_over_splits_and_shows_clouds(whole: Made) -> None:
    ground = ground_of(Results(whole.spec, whole.store).chips)
    picked = pick_chips(whole.spec, ground)
    assert len(picked) == CHIPS_SHOWN
    assert {pick.chip.split for pick in picked} == {chip.split for chip in ground.owners}
    clouded = [pick for pick in picked if "partly masked" in pick.why]
    assert len(clouded) == CLOUDED_SHOWN
    for pick in clouded:
        assert any(0.1 < pick.chip.valid[name, pick.bin_key] < 0.9 for name in ("s1", "s2"))
    assert len({pick.chip.chip_id for pick in picked}) == CHIPS_SHOWN


def test_spread_chips_are_far_apart() -> None:
    ground = ground_of(_chips(100))
    corners = spread(list(ground.owners), 4)
    assert len({chip.chip_id for chip in corners}) == 4
    assert {(round(c.lon - 10, 2), round(c.lat, 2)) for c in corners} == {(0, 0), (0.09, 0), (0, 0.09), (0.09, 0.09)}
    assert spread([], 3) == []
    assert len(spread(list(ground.owners[:2]), 5)) == 2
