"""The run spec: what is refused with which words, and the file formats around it."""

import json
import re
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from eo_batch.core.errors import SpecError
from eo_batch.core.spec import RunSpec
from eo_batch.core.specfile import dump_spec, json_schema, parse_spec
from tests.core.samples import Json, spec, spec_document

RECIPES = sorted((Path(__file__).resolve().parents[2] / "recipes").glob("**/*.yaml"))


def parse(document: Json, *overrides: str) -> RunSpec:
    return parse_spec(yaml.safe_dump(document, sort_keys=False), overrides, "run.yaml")


def refusal(document: Json, *overrides: str) -> str:
    with pytest.raises(SpecError) as caught:
        parse(document, *overrides)
    return str(caught.value)


S2 = {"kind": "s2-l2a"}
LABELS = {"kind": "classes", "assets": {"cover": "map"}, "collections": ["labels"]}


class TestRefusals:
    """Each names the field, the value, and what to do about it."""

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"grid": {"chip_pix": 256}}, ["grid.chip_pix=256 is not a known key", "did you mean chip_px?"]),
            ({"gird": {}}, ["gird={} is not a known key", "did you mean grid?"]),
            ({"grid": {"zzz": 1}}, ["grid.zzz=1 is not a known key", "known keys: block_chips, chip_px, gsd_m"]),
            (
                {"sensors": {"s2": {"kind": "s2-l2a", "band": ["B04"]}}},
                ["sensors.s2.band=", "is not a known key", "did you mean bands?"],
            ),
            (
                {"pretrain": {"encoder": {"patchpx": 8}}},
                ["pretrain.encoder.patchpx=8 is not a known key", "did you mean patch_px?"],
            ),
            ({"probe": {"ridge": [1]}}, ["probe.ridge=[1] is not a known key", "ridge_alphas"]),
            ({"time": {"start": "2023-06-01"}}, ["time.end is missing", "add it"]),
            ({"sensors": {"s2": {}}}, ["sensors.s2.kind is missing", "add it"]),
            ({"sensors": {}}, ["sensors={}", "at least 1 item"]),
            ({"name": "My Run"}, ['name="My Run"', "match pattern"]),
            (
                {"time": {"start": "2023-09-01", "end": "2023-06-01"}},
                ["time.end=2023-06-01 is not after time.start=2023-09-01", "swap them"],
            ),
            (
                {"time": {"start": "2023-06-01", "end": "2023-06-01"}},
                ["time.end=2023-06-01 is not after time.start=2023-06-01", "end is exclusive"],
            ),
            ({"time": {"start": "June", "end": "2023-06-01"}}, ['time.start="June"', "valid date"]),
            (
                {"time": {"start": "2023-06-01", "end": "2023-09-01", "step": "weekly"}},
                ["time.step='weekly' is unknown", "use all, month, season, year or P<days>D"],
            ),
            ({"area": {}}, ["area", "exactly one of area.bbox and area.geojson"]),
            (
                {"area": {"bbox": [1, 2, 3, 4], "geojson": {"type": "Polygon"}}},
                ["exactly one of area.bbox and area.geojson"],
            ),
            ({"area": {"bbox": [1, 2, 3]}}, ["area.bbox.3 is missing"]),
            ({"area": {"bbox": [1, 2, 3, "x"]}}, ['area.bbox.3="x"', "valid number"]),
            ({"grid": {"chip_px": 0}}, ["grid.chip_px=0", "greater than or equal to 4"]),
            (
                {"grid": {"chip_px": 33, "gsd_m": 0.5}},
                ["grid.chip_px=33 times grid.gsd_m=0.5", "whole number of metres"],
            ),
            ({"grid": {"gsd_m": -10}}, ["grid.gsd_m=-10", "greater than 0"]),
            (
                {"sensors": {"s2": {"kind": "s2-l2a", "bands": ["B4"]}}},
                ["sensors.s2", "'B4' is no band of s2-l2a", "known: B01, B02"],
            ),
            (
                {"sensors": {"s2": {"kind": "s2-l2a", "bands": ["B04", "B04"]}}},
                ["sensors.s2", "names a band twice", "name each once"],
            ),
            ({"sensors": {"s2": {"kind": "s3"}}}, ['sensors.s2.kind="s3"', "'s2-l2a'", "'classes'"]),
            ({"sensors": {"labels": {"kind": "classes"}}}, ["sensors.labels", "kind classes needs assets"]),
            ({"sensors": {"S-2": S2}}, ["sensors.S-2 is not a plain lower-case name", "use letters, digits and _"]),
            ({"sensors": {"s2": {**S2, "max_cloud_pct": 120}}}, ["sensors.s2.max_cloud_pct=120", "100"]),
            ({"probe": {"target": "labels"}}, ["probe.target='labels' is not a sensor of kind classes", "add one"]),
            (
                {"probe": {"target": "s2"}, "sensors": {"s2": S2, "cover": LABELS}},
                ["probe.target='s2' is not a sensor of kind classes", "choose one of ['cover']"],
            ),
            (
                {"pretrain": {"encoder": {"dim": 96, "heads": 5}}},
                ["pretrain.encoder", "heads=5 does not divide", "dim=96", "choose a divisor"],
            ),
            ({"pretrain": {"seeds": [1, 1]}}, ["pretrain.seeds=[1, 1] names a seed twice"]),
            ({"split": {"test": 1}}, ["split.test=1", "less than 1"]),
        ],
        ids=lambda value: ",".join(value) if isinstance(value, dict) else None,
    )
    def test_wrong_values(self, change: Json, words: list[str]) -> None:
        message = refusal(spec_document(**change))
        assert message.startswith("run.yaml: ")
        for word in words:
            assert word in message

    def test_all_mistakes_are_named_at_once(self) -> None:
        message = refusal(spec_document(grid={"chip_pix": 1, "gsd_m": 0}, name="A"))
        assert all(word in message for word in ("grid.chip_pix=1", "grid.gsd_m=0", 'name="A"'))

    @pytest.mark.parametrize("required", ["name", "area", "time", "sensors"])
    def test_missing_sections(self, required: str) -> None:
        document = spec_document()
        del document[required]
        assert f"{required} is missing; add it" in refusal(document)

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("name: [", ["run.yaml is not YAML", "line 1"]),
            ("", ["run.yaml holds no spec", "name, area, time and sensors"]),
            ("- 1", ["run.yaml holds no spec"]),
            ("just text", ["run.yaml holds no spec"]),
            ("a: b: c", ["run.yaml is not YAML"]),
            ("1: 2", ["run.yaml"]),
        ],
    )
    def test_text_that_is_no_spec(self, text: str, words: list[str]) -> None:
        with pytest.raises(SpecError) as caught:
            parse_spec(text, (), "run.yaml")
        assert all(word in str(caught.value) for word in words)
        assert "\n" not in str(caught.value)

    def test_specs_are_frozen(self) -> None:
        with pytest.raises(ValidationError, match="frozen"):
            spec().grid.chip_px = 1  # type: ignore[misc]


class TestSizes:
    @pytest.mark.parametrize("chip_px", [255, 129, 5])
    @pytest.mark.parametrize("gsd_m", [10, 20, 30])
    def test_the_remedy_for_odd_chip_sizes_is_accepted(self, chip_px: int, gsd_m: float) -> None:
        """What a message tells a person to do must work."""
        sensors = {"s2": {"kind": "s2-l2a", "bands": ["B04", "B05"]}}
        document = spec_document(sensors=sensors, grid={"chip_px": chip_px, "gsd_m": gsd_m})
        document["pretrain"] = {"encoder": {"patch_px": 1}}
        try:
            parse(document)
        except SpecError as error:
            match = re.search(
                r"is not a whole number of (\S+) m pixels of sensors.s2; use a multiple of (\d+)", str(error)
            )
            assert match
            step = int(match[2])
            document["grid"]["chip_px"] = -(-chip_px // step) * step
        arrays = parse(document).arrays()
        assert {a.name for a in arrays} == {"s2_10m", "s2_20m"}
        assert all(a.chip_px * a.pixel_m == parse(document).grid.chip_m for a in arrays)

    @given(st.integers(4, 600), st.integers(1, 40))
    def test_both_remedies_for_patches_are_accepted(self, chip_px: int, patch_px: int) -> None:
        document = spec_document(
            grid={"chip_px": chip_px}, pretrain={"encoder": {"patch_px": patch_px}}, sensors={"s1": {"kind": "s1"}}
        )
        try:
            parse(document)
        except SpecError as error:
            match = re.search(
                r"grid.chip_px=(\d+) is not a multiple of pretrain.encoder.patch_px=(\d+); "
                r"use grid.chip_px=(\d+) or patch_px=(\d+)",
                str(error),
            )
            assert match
            assert (int(match[1]), int(match[2])) == (chip_px, patch_px)
            assert parse(document, f"grid.chip_px={match[3]}").grid.chip_px - chip_px < patch_px
            assert parse(document, f"pretrain.encoder.patch_px={match[4]}").grid.chip_px == chip_px
        else:
            assert chip_px % patch_px == 0

    def test_the_issue_example(self) -> None:
        message = refusal(spec_document(grid={"chip_px": 250}), "pretrain.encoder.patch_px=16")
        assert "grid.chip_px=250 is not a multiple of pretrain.encoder.patch_px=16; use grid.chip_px=256" in message

    def test_arrays_follow_pixel_sizes(self) -> None:
        document = spec_document(
            sensors={
                "s2": {"kind": "s2-l2a", "bands": ["B01", "B04", "B05"]},
                "s1": {"kind": "s1", "pixel_m": 20},
                "dem": {"kind": "dem"},
                "cover": LABELS,
            }
        )
        arrays = parse(document).arrays()
        assert [(a.name, a.chip_px, a.band_names) for a in arrays] == [
            ("s2_10m", 256, ("B04",)),
            ("s2_20m", 128, ("B01", "B05")),  # 60 m bands share the 20 m array
            ("s1_20m", 128, ("VV", "VH")),
            ("dem_10m", 256, ("elevation",)),
            ("cover_10m", 256, ("cover",)),
        ]

    def test_decimated_copies(self) -> None:
        sensors = {"s2": {"kind": "s2-l2a", "bands": ["B04", "B05"], "pixel_scale": 12}}
        arrays = parse(spec_document(sensors=sensors, grid={"chip_px": 64, "gsd_m": 120})).arrays()
        assert [(a.name, a.chip_px) for a in arrays] == [("s2_120m", 64), ("s2_240m", 32)]

    def test_asset_keys_come_before_the_usual_ones(self) -> None:
        sensors = {"s2": {"kind": "s2-l2a", "bands": ["B04"], "assets": {"B04": "red-jp2"}}}
        (band,) = parse(spec_document(sensors=sensors)).sensors["s2"].band_rows()
        assert band.assets == ("red-jp2", "B04", "red")
        assert (band.native_m, band.wavelength_um) == (10, 0.665)


class TestOverrides:
    @pytest.mark.parametrize(
        ("override", "path", "value"),
        [
            ("grid.chip_px=224", ("grid", "chip_px"), 224),
            ("pretrain.encoder.dim=32", ("pretrain", "encoder", "dim"), 32),
            ("limits.shard_memory_gb=0.5", ("limits", "shard_memory_gb"), 0.5),
            ("time.end=2023-08-01", ("time", "end"), date(2023, 8, 1)),
            ("area.bbox=[1, 2, 3, 4]", ("area", "bbox"), (1, 2, 3, 4)),
            ("catalog=s3://bucket/items.json?a=b", ("catalog",), "s3://bucket/items.json?a=b"),
            ("catalog=null", ("catalog",), None),
            ("as_of=", ("as_of",), None),
        ],
    )
    def test_values_are_yaml(self, override: str, path: tuple[str, ...], value: Any) -> None:
        if override == "as_of=":
            assert "as_of=null" in refusal(spec_document(), override)
            return
        here: Any = parse(spec_document(), override)
        for name in path:
            here = getattr(here, name)
        assert here == value

    def test_later_ones_win_and_sensors_are_reached_by_name(self) -> None:
        done = parse(spec_document(), "sensors.s2.max_cloud_pct=10", "sensors.s2.max_cloud_pct=20")
        assert done.sensors["s2"].max_cloud_pct == 20
        assert done.sensors["s2"].bands == ("B04", "B08")

    def test_a_whole_section_can_be_added(self) -> None:
        done = parse(spec_document(), "sensors.dem.kind=dem", "split={test: 0.5, seed: 3}")
        assert list(done.sensors) == ["s2", "dem"]
        assert (done.split.test, done.split.seed) == (0.5, 3)

    @pytest.mark.parametrize(
        ("override", "words"),
        [
            ("grid.chip_px", ["'grid.chip_px' is not of the form section.field=value", "grid.chip_px=224"]),
            ("=3", ["is not of the form"]),
            ("grid..chip_px=3", ["is not of the form"]),
            ("grid chip_px=3", ["is not of the form"]),
            ("grid.chip_px=[", ["'['", "is not YAML", "quote it"]),
            ("name.x=1", ["name is a value, not a section"]),
            ("sensors.s2.bands.0=B02", ["bands is a value, not a section"]),
            ("grid.chip_pix=224", ["grid.chip_pix=224 is not a known key", "did you mean chip_px?"]),
            ("grid.chip_px=big", ['grid.chip_px="big"', "valid integer"]),
            ("grid.chip_px=256.5", ["grid.chip_px=256.5", "valid integer"]),
        ],
    )
    def test_bad_ones_are_refused(self, override: str, words: list[str]) -> None:
        message = refusal(spec_document(), override)
        for word in words:
            assert word in message


@st.composite
def documents(draw: st.DrawFn) -> Json:
    """Valid specs in every section."""
    start = draw(st.dates(date(2015, 1, 1), date(2030, 1, 1)))
    number = st.floats(0.001, 1e6)
    sensors: Json = {
        "s2": {
            "kind": "s2-l2a",
            "bands": draw(st.lists(st.sampled_from(["B02", "B04", "B05", "B11"]), min_size=1, unique=True)),
            "max_cloud_pct": draw(st.floats(0, 100)),
            "offset_dn": draw(st.sampled_from([None, 0, -1000])),
        },
        "s1": {"kind": "s1", "orbit": draw(st.sampled_from([None, "ascending"])), "values": "db"},
        "cover": LABELS,
    }
    return spec_document(
        name=draw(st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)),
        catalog=draw(st.none() | st.text(max_size=30).filter(lambda t: t.isprintable())),
        area={"bbox": draw(st.tuples(*[st.floats(-180, 180)] * 4))},
        time={
            "start": start,
            "end": start + timedelta(days=draw(st.integers(1, 900))),
            "step": draw(st.sampled_from(["all", "month", "P7D"])),
        },
        grid={"chip_px": draw(st.integers(1, 20)) * 16, "block_chips": draw(st.integers(1, 64))},
        sensors=sensors,
        split={"cell_km": draw(number), "seed": draw(st.integers(-5, 5))},
        limits={"shard_memory_gb": draw(number)},
        probe=draw(st.sampled_from([None, {"target": "cover"}])),
        pretrain={"lr": draw(number), "seeds": draw(st.lists(st.integers(0, 99), min_size=1, unique=True))},
    )


@settings(max_examples=60, deadline=None)
@given(documents())
def test_dumped_specs_parse_to_equal_ones(document: Json) -> None:
    made = RunSpec.model_validate(document)
    assert parse_spec(dump_spec(made)) == made
    assert list(parse_spec(dump_spec(made)).sensors) == list(made.sensors)


class TestSchema:
    schema: Json = json.loads(json_schema())

    def properties(self) -> Iterator[tuple[str, Json]]:
        """Every property of every section, by name."""
        for section, node in [("RunSpec", self.schema), *self.schema["$defs"].items()]:
            for name, below in node["properties"].items():
                # A description that repeats its section's stands there only.
                target = self.schema["$defs"].get(below.get("$ref", "").rpartition("/")[2], {})
                yield f"{section}.{name}", {"description": target.get("description", "")} | below

    def test_every_field_is_documented(self) -> None:
        fields = dict(self.properties())
        assert [name for name, node in fields.items() if not node.get("description", "").strip()] == []
        assert {"RunSpec.grid", "GridSpec.chip_px", "SensorSpec.offset_dn", "EncoderSpec.dim"} <= fields.keys()

    def test_every_section_is_documented_and_closed(self) -> None:
        for section, node in [("RunSpec", self.schema), *self.schema["$defs"].items()]:
            assert node.get("description"), section
            assert node["additionalProperties"] is False, section

    def test_lengths_and_shares_name_their_unit(self) -> None:
        units = {"_m": "metre", "_km": "kilometre", "_px": "pixel", "_pct": "percent", "_gb": "GB"}
        for name, node in self.properties():
            for suffix, unit in units.items():
                if name.endswith(suffix):
                    assert unit in node["description"], name

    def test_it_is_a_json_schema(self) -> None:
        jsonschema.Draft202012Validator.check_schema(self.schema)

    @settings(max_examples=30, deadline=None)
    @given(documents())
    def test_it_takes_what_the_parser_takes(self, document: Json) -> None:
        jsonschema.validate(_as_json(document), self.schema)

    @pytest.mark.parametrize(
        "change", [{"gird": {}}, {"grid": {"chip_px": "x"}}, {"sensors": {"s2": {"kind": "s3"}}}, {"time": {}}]
    )
    def test_it_refuses_what_the_parser_refuses(self, change: Json) -> None:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(_as_json(spec_document(**change)), self.schema)

    @pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
    def test_it_takes_the_recipes(self, recipe: Path) -> None:
        jsonschema.validate(_as_json(yaml.safe_load(recipe.read_text())), self.schema)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_parse(recipe: Path) -> None:
    made = parse_spec(recipe.read_text(), (), recipe.name)
    assert made.area.polygon().area > 0
    assert parse_spec(dump_spec(made)) == made


def _as_json(document: Any) -> Any:
    """The document as an editor sees it: dates are text."""
    return json.loads(json.dumps(document, default=str))
