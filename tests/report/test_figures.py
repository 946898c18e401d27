"""Figures against truths: pictures decode to what went in, places and values land where they belong."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.io import MemoryFile

from eo_batch.pixels import figures_colour as colour
from eo_batch.pixels.figures_curve import Curve, Score, curve_chart, score_chart, smoothed
from eo_batch.pixels.figures_map import KM_PER_DEG, Paint, Square, frame_of, map_figure, unwrapped
from eo_batch.pixels.figures_png import png_bytes, png_uri
from eo_batch.pixels.figures_svg import figure, label, nice_step, short, tag, ticks, title


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9).map(lambda s: (*s, 4))))
def test_a_picture_decodes_to_what_went_in(rgba_yxc):
    with MemoryFile(png_bytes(rgba_yxc)) as memory, memory.open() as png:
        assert (np.moveaxis(png.read(), 0, -1) == rgba_yxc).all()


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2, 4), np.float32), np.zeros((0, 2, 4), np.uint8)]
)
def test_what_is_no_picture_is_refused(wrong):
    with pytest.raises(ValueError, match="uint8 of shape"):
        png_uri(wrong)


def test_a_range_leaves_the_same_share_out_on_either_side():
    values = np.arange(101.0)
    span = colour.range_of(values, np.ones(101, bool), percent=10)
    assert (span.low, span.high) == (10, 90)
    assert span.scaled(np.array([0.0, 10, 50, 90, 200])).tolist() == [0, 0, 0.5, 1, 1]


def test_a_range_ignores_invalid_values_and_knows_when_there_is_nothing():
    values, valid = np.array([1.0, 2.0, np.nan, 1e9]), np.array([True, True, False, False])
    assert colour.range_of(values, valid, 0) == colour.Range(1.0, 2.0)
    assert colour.range_of(values, np.zeros(4, bool)) is None
    assert colour.range_of(np.full(3, 7.0), np.ones(3, bool)).scaled(np.array(7.0)) == pytest.approx(0.5)


def test_shrinking_averages_valid_pixels_only():
    pixels = np.array([[[1.0, 3.0, 9.0, 9.0], [5.0, 100.0, 9.0, 9.0]]])
    valid = np.array([[[True, True, False, False], [True, False, False, False]]])
    small, small_valid = colour.shrink(pixels, valid, 2)
    assert small_valid.tolist() == [[[True, False]]]
    assert small[0, 0, 0] == 3.0


def test_shrinking_keeps_what_is_small_enough():
    pixels, valid = np.random.default_rng(0).random((2, 5, 5)), np.ones((2, 5, 5), bool)
    small, small_valid = colour.shrink(pixels, valid, 5)
    assert (small == pixels).all()
    assert small_valid.all()


@given(st.integers(1, 40), st.integers(1, 12))
def test_class_codes_are_picked_never_averaged(side, most):
    codes = np.random.default_rng(side).choice([10, 20, 80], (side, side))
    small = colour.shrink_classes(codes, most)
    assert max(small.shape) <= most
    assert set(np.unique(small)) <= {10, 20, 80}


def test_class_pictures_are_transparent_where_there_is_no_class():
    picture = colour.class_picture(np.array([[0, 10]]), {10: "#ff8000"})
    assert picture.tolist() == [[[0, 0, 0, 0], [255, 128, 0, 255]]]


def test_pictures_are_transparent_where_invalid():
    valid = np.array([[True, False]])
    for picture in (
        colour.grey_picture(np.ones((1, 2)), valid, colour.Range(0, 1)),
        colour.ramp_picture(np.ones((1, 2)), valid, colour.Range(0, 1)),
        colour.rgb_picture(np.ones((3, 1, 2)), np.stack([valid, valid, ~valid | valid]), [colour.Range(0, 1)] * 3),
    ):
        assert picture[0, 0, 3] == 255
        assert picture[0, 1].tolist() == [0, 0, 0, 0]


def test_power_becomes_decibels_where_it_is_positive():
    db, valid = colour.decibels(np.array([1.0, 0.1, 0.0, 5.0]), np.array([True, True, True, False]))
    assert db[:2] == pytest.approx([0, -10])
    assert valid.tolist() == [True, True, False, False]


def test_the_ramp_gets_lighter_throughout():
    light = colour.ramp(np.linspace(0, 1, 50)).astype(float) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(light) > 0).all()


def test_class_colours_do_not_repeat():
    colours = [colour.class_colour(n) for n in range(60)]
    assert len(set(colours)) == 60
    assert all(re.fullmatch(r"#[0-9a-f]{6}", c) for c in colours)


def test_principal_colours_put_the_largest_spread_into_red():
    rng = np.random.default_rng(3)
    strong, weak = rng.normal(size=200), rng.normal(size=200)
    vectors = np.outer(strong, [0, 10, 0, 0]) + np.outer(weak, [0, 0, 1, 0]) + 5
    found = colour.pca_colours(vectors)
    assert found.explained == pytest.approx(1)
    red = found.rgb_nc[:, 0].astype(float)
    assert np.corrcoef(red, strong)[0, 1] > 0.98
    assert (found.rgb_nc[:, 2] == 128).all()  # there is no third component


def test_principal_colours_ignore_where_the_origin_is():
    vectors = np.random.default_rng(1).normal(size=(40, 6))
    assert (colour.pca_colours(vectors).rgb_nc == colour.pca_colours(vectors + 3).rgb_nc).all()


@pytest.mark.parametrize("vectors", [np.ones((1, 4)), np.zeros((5, 4)), np.full((3, 1), 2.0)])
def test_vectors_without_spread_are_all_grey(vectors):
    found = colour.pca_colours(vectors)
    assert (found.rgb_nc == 128).all()
    assert found.explained == 0


def test_text_in_drawings_is_escaped():
    svg = figure(10, 10, [label("<b>&", 1, 2), tag("g", title('"><script>'), fill='"x')], 'a "b" <c>')
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == 'a "b" <c>'
    assert [element.text for element in root.iter() if element.text] == ["<b>&", '"><script>']


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 8))
def test_ticks_are_round_and_inside(low, span, about):
    found = ticks(low, low + span, about)
    step = nice_step(span, about)
    assert all(low - 1e-6 * step <= value <= low + span + 1e-6 * step for value in found)
    assert len(found) <= about + 1
    mantissa = step / 10 ** np.floor(np.log10(step) + 1e-9)
    assert min(abs(mantissa - m) for m in (1, 2, 5)) < 1e-6


@pytest.mark.parametrize(
    ("value", "text"), [(1.0, "1"), (-0.001, "0"), (2.5, "2.5"), (100.0, "100"), (0.125, "0.12"), (-3.10, "-3.1")]
)
def test_numbers_are_short(value, text):
    assert short(value) == text


def _square(lon: float, lat: float, side: float = 1.0, words: str = "chip") -> Square:
    return Square((lon, lon + side, lon + side, lon), (lat + side, lat + side, lat, lat), words)


def test_maps_keep_the_shape_of_the_ground():
    frame = frame_of([_square(10, 59.5, 1)], 400)
    wide, high = frame.x(11) - frame.x(10), frame.y(59.5) - frame.y(60.5)
    assert high / wide == pytest.approx(1 / np.cos(np.radians(60)), rel=0.01)
    assert frame.y(60.5) < frame.y(59.5)  # north is up
    assert (frame.x(11) - frame.x(10)) * frame.km_per_px == pytest.approx(KM_PER_DEG * np.cos(np.radians(60)), rel=0.01)


def test_squares_land_at_their_place_with_their_words():
    squares = [_square(0, 0, 1, "one"), _square(3, 2, 1, "<two>")]
    frame = frame_of(squares, 300)
    svg = map_figure(frame, squares, [Paint("#112233"), Paint(".state-ok", "fine")], "map")
    root = ElementTree.fromstring(svg)
    first, second = list(root.iter("path"))
    numbers = [float(n) for n in re.findall(r"[\d.]+", second.get("d"))]
    assert numbers[:2] == pytest.approx([frame.x(3), frame.y(3)], abs=0.06)
    assert (first.get("fill"), second.get("class")) == ("#112233", "chip state-ok")
    assert second.find("title").text == "<two>\nfine"


def test_squares_of_one_colour_share_a_path_when_there_are_many():
    squares = [_square(i, 0) for i in range(50)]
    paints = [Paint("#111111" if i % 2 else "#222222") for i in range(50)]
    root = ElementTree.fromstring(map_figure(frame_of(squares, 300), squares, paints, "m", one_by_one=False))
    paths = list(root.iter("path"))
    assert [path.get("d").count("M") for path in paths] == [25, 25]


def test_high_areas_stay_on_a_screen():
    frame = frame_of([_square(0, 0, 0.01), _square(0, 5, 0.01)], 400)
    assert frame.height_px < 4000
    assert frame.width_px < 400


def test_longitudes_across_the_antimeridian_stay_together():
    assert unwrapped(np.array([179.9, -179.9, 0.0]), 179.0).tolist() == pytest.approx([179.9, 180.1, 0.0])


def test_the_graticule_counts_on_past_the_antimeridian():
    squares = [_square(179, 0), _square(181, 0)]
    svg = map_figure(frame_of(squares, 400), squares, [Paint("#000000")] * 2, "m")
    assert "179.5° W" in svg or "179° W" in svg or "178.5° W" in svg
    assert "181" not in "".join(re.findall(r">([^<]*° [EW])<", svg))


def test_smoothing_averages_runs_and_keeps_short_curves():
    x, y = np.arange(10.0), np.arange(10.0) ** 2
    sx, sy, run = smoothed(x, y, 4)
    assert run == 3
    assert sx.tolist() == [1, 4, 7, 9]
    assert sy[0] == pytest.approx((0 + 1 + 4) / 3)
    assert smoothed(x, y, 10)[2] == 1


def test_curves_leave_out_what_is_not_finite():
    x = np.arange(4.0)
    svg = curve_chart([Curve("a <b>", x, np.array([1, np.nan, 3, np.inf]), "#123456")], "step", "loss", "about")
    line = next(iter(ElementTree.fromstring(svg).iter("polyline")))
    assert len(line.get("points").split()) == 2
    with pytest.raises(ValueError, match="finite"):
        curve_chart([Curve("a", x, np.full(4, np.nan), "#123456")], "step", "loss", "about")


def test_higher_values_are_drawn_higher():
    svg = curve_chart([Curve("a", np.array([0.0, 1.0]), np.array([1.0, 2.0]), "#123456")], "x", "y", "about")
    (x0, y0), (x1, y1) = (
        map(float, p.split(",")) for p in next(iter(ElementTree.fromstring(svg).iter("polyline"))).get("points").split()
    )
    assert x0 < x1
    assert y0 > y1


def test_first_values_that_tower_over_the_rest_are_cut_off() -> None:
    x = np.arange(100.0)
    steep, level = np.where(x < 3, 50.0, 1 + 0.1 * np.cos(x)), 1 + 0.1 * np.cos(x)
    for y, is_cut in ((steep, True), (level, False)):
        svg = curve_chart([Curve("a", x, y, "#123456")], "step", "loss", "about")
        assert ("the first steps lie above" in svg) == is_cut
        points = next(iter(ElementTree.fromstring(svg).iter("polyline"))).get("points").split()
        heights = np.array([float(point.split(",")[1]) for point in points])
        assert len(heights) == 100
        assert np.ptp(heights[10:]) > 150  # what counts fills the chart


def test_scores_are_drawn_with_their_spread_and_absent_ones_left_out():
    rows = [("class 1", [Score("a", 0.5, 0.1, "#111111"), Score("b", float("nan"), 0.1, "#222222")])]
    root = ElementTree.fromstring(score_chart(rows, "R²", "about"))
    assert len(list(root.iter("circle"))) == 1
    assert [t.text for t in root.iter("title")] == ["a: 0.500 ± 0.100"]
    with pytest.raises(ValueError, match="finite"):
        score_chart([("x", [Score("b", float("nan"), 0, "#222222")])], "R²", "about")
