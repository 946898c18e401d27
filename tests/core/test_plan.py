"""Plans: which scenes reach which shards, what is refused, and what stays when a plan grows."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from eo_batch.core.errors import PlanError, RadiometryError
from eo_batch.core.grid import Block
from eo_batch.core.observations import observation_day
from eo_batch.core.plan import Axes, Plan, asset_bounds, make_plan, projected_memory
from eo_batch.core.scenes import Affine6, Scene
from eo_batch.core.spec import RunSpec
from eo_batch.core.stacitems import scene_of_item
from eo_batch.io.scenetable import scene_table, usable
from tests.core.samples import TILE_33TWL, Json, asset, item, scene, sensor, spec, spec_document

EDGE_OF_33 = [11.7, 46.4, 12.3, 46.55]
"""Ground on both sides of the meridian between zones 32 and 33."""
ONE_BLOCK = [15.05, 45.71, 15.08, 45.73]
"""Ground within one block of 4 x 4 chips of 2560 m."""


def plan_of(run: RunSpec, scenes: Sequence[Scene]) -> Plan:
    return make_plan(run, usable(scene_table(scenes), run).columns(), "run/chips-0123456789ab")


def at(bbox: list[float], **changes: object) -> RunSpec:
    return spec(area={"bbox": bbox}, **changes)


ANYWHERE = (-180.0, -90.0, 180.0, 90.0)
"""A box that contradicts no raster's place."""


def tile(scene_id: str, epsg: int | None, transform: Affine6 | None, side: int = 10980, **fields: object) -> Scene:
    shape = None if transform is None else (side, side)
    files = tuple(asset(b, epsg=epsg, transform=transform, shape=shape) for b in ("B04", "B08", "SCL"))
    return scene(scene_id, assets=files, **({"bbox": ANYWHERE} | fields))


def reached(plan: Plan, scene_id: str) -> set[Block]:
    return {shard.block for shard in plan.shards if scene_id in plan.scene_ids(shard)}


def touched(blocks: Sequence[Block], raster: Scene) -> set[Block]:
    """Blocks with a point inside the raster, by projecting a dense lattice of points of each."""
    one = raster.assets[0]
    assert one.epsg is not None
    x0, y0, x1, y1 = asset_bounds(one)
    found = set()
    for block in blocks:
        left, bottom, right, top = block.bounds
        x, y = np.meshgrid(np.linspace(left, right, 40), np.linspace(bottom, top, 40))
        u, v = Transformer.from_crs(block.epsg, one.epsg, always_xy=True).transform(x, y)
        for shift in (-360, 0, 360) if one.epsg == 4326 else (0,):
            if ((u + shift > x0) & (u + shift < x1) & (v > y0) & (v < y1)).any():
                found.add(block)
    return found


class TestReach:
    @settings(max_examples=40, deadline=None)
    @given(st.integers(-6000, 6000), st.integers(-6000, 6000), st.sampled_from([32633, 32632]), st.integers(50, 3000))
    def test_no_block_that_a_raster_touches_is_left_out(self, east: int, north: int, epsg: int, side: int) -> None:
        """Rasters of either zone, over blocks of both."""
        run = at(EDGE_OF_33)
        corner = {32633: 269_980.0, 32632: 730_000.0}[epsg] + 10 * east
        raster = tile("a", epsg, (10.0, 0.0, corner, 0.0, -10.0, 5_148_000.0 + 10 * north), side)
        everywhere = tile("b", 32633, (1000.0, 0.0, 0.0, 0.0, -1000.0, 6_000_000.0))
        plan = plan_of(run, [raster, everywhere])
        assert {b.epsg for b in plan.blocks} == {32632, 32633}
        assert reached(plan, "b") == set(plan.blocks)
        assert reached(plan, "a") >= touched(plan.blocks, raster)

    @pytest.mark.parametrize(("epsg", "west"), [(32633, 199_980.0), (32632, 699_960.0)])
    def test_a_tile_reaches_into_the_neighbouring_zone(self, epsg: int, west: float) -> None:
        raster = tile("a", epsg, (10.0, 0.0, west, 0.0, -10.0, 5_200_020.0))
        plan = plan_of(at(EDGE_OF_33), [raster])
        blocks = reached(plan, "a")
        assert {b.epsg for b in blocks} == {32632, 32633}
        assert blocks == touched(plan.blocks, raster)

    def test_the_bbox_of_an_item_does_not_count_where_its_raster_is_known(self) -> None:
        """WorldCover's item boxes are smaller than their rasters, antimeridian boxes span the globe."""
        run = at(ONE_BLOCK)
        small = plan_of(run, [scene("a", bbox=(16.0, 45.0, 16.1, 45.1))])
        assert reached(small, "a") == set(small.blocks)
        far = tile("far", 32633, (10.0, 0.0, 609_780.0, 0.0, -10.0, 5_100_000.0), bbox=(-180.0, -80.0, 180.0, 84.0))
        plan = plan_of(run, [scene("a"), far])
        assert reached(plan, "far") == set()

    def test_touching_with_a_kernel_counts(self) -> None:
        """A raster that ends where a block begins still feeds the kernel of its first pixels."""
        run = at(ONE_BLOCK)
        (block,) = plan_of(run, [scene()]).blocks
        left, _, _, top = block.bounds
        for gap, near in ((0.0, True), (15.0, True), (25.0, False)):
            raster = tile("a", 32633, (10.0, 0.0, left - gap - 1000, 0.0, -10.0, float(top)), 100)
            plan = plan_of(run, [raster, scene("b")])
            assert (reached(plan, "a") == {block}) == near, gap

    @pytest.mark.parametrize(
        ("epsg", "transform"),
        [
            (32601, (10.0, 0.0, 300_000.0, 0.0, -10.0, 7_400_040.0)),
            (32660, (10.0, 0.0, 600_000.0, 0.0, -10.0, 7_400_040.0)),
            (4326, (1 / 3600, 0.0, 179.0, 0.0, -1 / 3600, 67.0)),
            (4326, (1 / 3600, 0.0, -180.0, 0.0, -1 / 3600, 67.0)),
            (4326, (1 / 3600, 0.0, 178.8, 0.0, -1 / 3600, 67.0)),
            (4326, (1 / 3600, 0.0, -180.2, 0.0, -1 / 3600, 67.0)),
        ],
    )
    def test_across_the_antimeridian(self, epsg: int, transform: Affine6) -> None:
        run = at([179.7, 66.3, -179.7, 66.5])
        side = 3600 if epsg == 4326 else 10980
        raster = tile("a", epsg, transform, side, bbox=(-180.0, 65.0, 180.0, 67.0))
        plan = plan_of(run, [raster])
        expected = touched(plan.blocks, raster)
        assert {b.epsg for b in plan.blocks} == {32601, 32660}
        assert expected <= reached(plan, "a")
        slack = reached(plan, "a") - expected  # a box around a turned square holds a little more than the square
        assert len(slack) <= len(plan.blocks) // 3

    def test_what_crosses_the_antimeridian_does_not_span_the_globe(self) -> None:
        here = tile("a", 4326, (1 / 3600, 0.0, 179.5, 0.0, -1 / 3600, 67.0), 3600)
        europe = tile("b", 4326, (1 / 3600, 0.0, 10.0, 0.0, -1 / 3600, 67.0), 3600)
        plan = plan_of(at([179.7, 66.3, -179.7, 66.5]), [here, europe])
        assert reached(plan, "a") == set(plan.blocks)
        assert reached(plan, "b") == set()

    def test_a_global_raster_reaches_everything(self) -> None:
        world = tile("a", 4326, (1 / 20, 0.0, -180.0, 0.0, -1 / 20, 90.0), bbox=(-180.0, -90.0, 180.0, 90.0))
        world = replace(world, assets=tuple(replace(a, shape=(3600, 7200)) for a in world.assets))
        for bbox in ([179.9, -16.5, -179.9, -16.4], EDGE_OF_33, [8.0, -0.1, 8.1, 0.1]):
            plan = plan_of(at(bbox), [world])
            assert reached(plan, "a") == set(plan.blocks)

    @pytest.mark.parametrize(
        ("bbox", "near"),
        [
            ((11.0, 46.0, 13.0, 47.0), True),
            ((12.5, 46.0, 13.0, 47.0), False),
            ((11.0, 47.0, 13.0, 48.0), False),
            ((170.0, 46.0, -170.0, 47.0), False),
            ((10.0, 46.0, 9.0, 47.0), True),  # nearly around the globe
        ],
    )
    def test_without_a_georeference_the_bbox_counts(self, bbox: tuple[float, float, float, float], near: bool) -> None:
        plan = plan_of(at(EDGE_OF_33), [tile("a", None, None, bbox=bbox), tile("b", None, None, bbox=(11, 46, 13, 47))])
        assert reached(plan, "a") == (set(plan.blocks) if near else set())

    def test_without_a_georeference_across_the_antimeridian(self) -> None:
        plan = plan_of(at([179.8, 66.4, -179.8, 66.6]), [tile("a", None, None, bbox=(179.0, 66.0, -179.0, 67.0))])
        assert reached(plan, "a") == set(plan.blocks)


class TestRefusals:
    def test_no_scenes(self) -> None:
        with pytest.raises(
            PlanError, match="no usable scene covers the area in 2023-06-01 to 2023-09-01: the catalogue"
        ):
            plan_of(spec(), [])

    def test_all_refused_says_why(self) -> None:
        run = spec(sensors={"s2": {"kind": "s2-l2a", "bands": ["B04"], "max_cloud_pct": 20}})
        scenes = [scene("a", cloud_pct=80.04), scene("b", refusal="no asset for B04")]
        with pytest.raises(PlanError, match=r"no asset for B04; .*|cloud cover") as caught:
            plan_of(run, scenes)
        assert "cloud cover 80.0 % is over max_cloud_pct=20" in str(caught.value)
        assert "no asset for B04" in str(caught.value)

    def test_scenes_elsewhere_or_at_other_times_are_none(self) -> None:
        far = tile("a", 32633, (10.0, 0.0, 800_000.0, 0.0, -10.0, 5_100_000.0))
        for useless in (far, scene(moment="2023-05-31T23:59:59"), scene(moment="2023-09-01T00:00:00")):
            with pytest.raises(PlanError, match="no usable scene"):
                plan_of(spec(), [useless])

    def test_unclassified_files_stop_the_plan(self) -> None:
        doubtful = scene("b", refusal="B04: whether …; declare sensors.*.offset_dn", ambiguous=True)
        with pytest.raises(RadiometryError, match=r"1 of 2 scenes can't be used: s2 b: B04: .*declare sensors"):
            plan_of(spec(), [scene("a"), doubtful])

    def test_refused_scenes_stay_in_the_plan_with_their_reason(self) -> None:
        run = spec(sensors={"s2": {"kind": "s2-l2a", "bands": ["B04"], "max_cloud_pct": 20}})
        plan = plan_of(
            run, [scene("a"), scene("b", cloud_pct=20.1), scene("c", cloud_pct=20.0), scene("d", cloud_pct=None)]
        )
        assert dict(zip(plan.scenes.scene_id, plan.scenes.refusal, strict=True)) == {
            "a": None,
            "b": "cloud cover 20.1 % is over max_cloud_pct=20",
            "c": None,
            "d": None,
        }
        assert reached(plan, "b") == set()
        assert reached(plan, "c") == set(plan.blocks)

    def orbits(self, orbit: str | None, *states: str | None) -> tuple[RunSpec, list[Scene]]:
        run = spec(sensors={"s1": {"kind": "s1", "orbit": orbit}})
        return run, [
            scene(f"s{i}", sensor="s1", orbit_state=state, baseline=None, assets=(asset("VV"), asset("VH")))
            for i, state in enumerate(states)
        ]

    def test_mixed_orbits_are_refused_and_the_remedy_works(self) -> None:
        with pytest.raises(PlanError, match=r"s1 has scenes of orbits ascending \(.+\), descending \(") as caught:
            plan_of(*self.orbits(None, "ascending", "descending"))
        assert "set sensors.s1.orbit=ascending or descending (or add a sensor for each)" in str(caught.value)
        plan = plan_of(*self.orbits("ascending", "ascending", "descending", None))
        assert plan.scenes.refusal.tolist() == [
            None,
            "orbit is descending, not ascending",
            "orbit is unknown, not ascending",
        ]

    @pytest.mark.parametrize("states", [("descending",), ("ascending", "ascending"), (None, None)])
    def test_one_orbit_needs_no_word(self, states: tuple[str | None, ...]) -> None:
        assert usable(scene_table(self.orbits(None, *states)[1]), self.orbits(None)[0]).refusal.tolist() == [
            None
        ] * len(states)

    def test_unknown_orbits_do_not_mix_with_known_ones(self) -> None:
        with pytest.raises(PlanError, match=r"orbits ascending \(.+\), unknown \("):
            plan_of(*self.orbits(None, "ascending", None))


_MAP = {"collections": ["c"], "assets": {"v": "v"}}
_BANDS = ["B02", "B03", "B04", "B08"]
MEASURED = [
    ({"kind": "s2-l2a", "bands": _BANDS}, 6, 852),
    ({"kind": "s2-l2a", "bands": _BANDS, "pixel_m": 20}, 6, 773),
    ({"kind": "s2-l2a", "bands": _BANDS, "pixel_m": 40}, 6, 712),
    ({"kind": "s2-l2a", "bands": _BANDS, "pixel_m": 40, "composite": "medoid"}, 6, 954),
    ({"kind": "s1", "orbit": "ascending", "bands": ["VV", "VH"]}, 3, 1283),
    ({"kind": "classes", **_MAP}, 1, 674),
    ({"kind": "continuous", **_MAP}, 1, 804),
    ({"kind": "continuous", "resampling": "sum", **_MAP}, 1, 1216),
]
"""Peak of a shard of 4096 x 4096 pixels, MB: a sensor, scenes, and what `benchmarks/README.md` says."""


class TestMemory:
    def many(self, count: int) -> list[Scene]:
        return [scene(f"s{i:03d}", f"2023-07-{1 + i // 24:02d}T{i % 24:02d}:00:00") for i in range(count)]

    @pytest.mark.parametrize("limit_gb", [0.26, 0.3, 0.5, 1.0])
    @pytest.mark.parametrize("block_chips", [6, 8, 16])
    def test_the_remedies_are_accepted(self, limit_gb: float, block_chips: int) -> None:
        document = spec_document(area={"bbox": ONE_BLOCK})
        document["grid"]["block_chips"] = block_chips
        document["limits"] = {"shard_memory_gb": limit_gb}
        scenes = self.many(60)
        with pytest.raises(PlanError, match=f"over limits.shard_memory_gb={limit_gb:g}") as caught:
            plan_of(RunSpec.model_validate(document), scenes)
        raised = re.search(r"raise the limit to limits.shard_memory_gb=(\S+)", str(caught.value))
        assert raised
        plan_of(RunSpec.model_validate(document | {"limits": {"shard_memory_gb": float(raised[1])}}), scenes)
        smaller = re.search(r"use grid.block_chips=(\d+)", str(caught.value))
        if smaller is None:
            assert "use smaller chips" in str(caught.value)
            assert limit_gb < 0.3
            return
        assert int(smaller[1]) < block_chips
        document["grid"]["block_chips"] = int(smaller[1])
        plan_of(RunSpec.model_validate(document), scenes)

    def test_more_scenes_and_larger_blocks_need_more(self) -> None:
        def peak(count: int, block_chips: int) -> int:
            grid = {"chip_px": 256, "block_chips": block_chips}
            return max(s.memory_bytes for s in plan_of(spec(grid=grid), self.many(count)).shards)

        assert peak(2, 2) < peak(4, 2) < peak(4, 4)

    @pytest.mark.parametrize(("sensor", "scenes", "measured_mb"), MEASURED)
    def test_peaks_are_projected(self, sensor: dict[str, object], scenes: int, measured_mb: int) -> None:
        document = spec_document()
        document["grid"] = {"chip_px": 256, "block_chips": 16}
        document["sensors"] = {"measured": sensor}
        (array,) = RunSpec.model_validate(document).arrays()
        projected_mb = projected_memory(array, 16, scenes) / 1e6
        assert measured_mb <= 1.02 * projected_mb, "a pod that asks for too little is killed"
        assert projected_mb <= 2 * measured_mb, "one that asks for too much waits for room"

    def test_bytes_to_write_are_those_of_the_cells(self) -> None:
        plan = plan_of(spec(), self.many(2))
        for shard in plan.shards:
            assert shard.write_bytes == len(shard.chip_ids) * 256 * 256 * 2 * 2  # px, px, bands, uint16


class TestShards:
    def test_every_cell_is_in_exactly_one_shard_of_each_sensor_and_bin(self) -> None:
        run = at(EDGE_OF_33, sensors={"s2": {"kind": "s2-l2a", "bands": ["B04"]}, "dem": {"kind": "dem"}})
        plan = plan_of(run, [tile("a", 32633, (10.0, 0.0, 199_980.0, 0.0, -10.0, 5_200_020.0))])
        assert [shard.index for shard in plan.shards] == list(range(len(plan.shards)))
        assert len({shard.key for shard in plan.shards}) == len(plan.shards)
        for sensor_name, bins in (("s2", ["2023-06", "2023-07", "2023-08"]), ("dem", ["static"])):
            for key in bins:
                ids = [i for s in plan.shards if (s.sensor, s.bin_key) == (sensor_name, key) for i in s.chip_ids]
                assert sorted(ids) == sorted(p.cell.chip_id for p in plan.cells)

    def test_scenes_go_to_the_bin_that_holds_them(self) -> None:
        days = ["2023-06-01T00:00:00", "2023-06-30T23:59:59", "2023-07-01T00:00:00", "2023-08-31T23:59:59"]
        plan = plan_of(spec(), [scene(day, day) for day in days])
        found = {shard.bin_key: plan.scene_ids(shard) for shard in plan.shards}
        assert found == {"2023-06": tuple(days[:2]), "2023-07": (days[2],), "2023-08": (days[3],)}

    def test_bins_are_whole_but_scenes_keep_to_the_dates(self) -> None:
        run = spec(time={"start": "2023-06-15", "end": "2023-07-15", "step": "month"})
        scenes = [scene(day, f"2023-{day}T10:00:00") for day in ("06-14", "06-15", "07-14", "07-15")]
        plan = plan_of(run, scenes)
        assert {s.bin_key: plan.scene_ids(s) for s in plan.shards} == {"2023-06": ("06-15",), "2023-07": ("07-14",)}

    def test_products_without_a_time_axis_take_scenes_of_any_date(self) -> None:
        run = spec(sensors={"dem": {"kind": "dem"}})
        old = scene("d", "2011-01-01T00:00:00", sensor="dem", assets=(asset("elevation"),), baseline=None)
        plan = plan_of(run, [old])
        assert (plan.shards[0].bin_key, plan.scene_ids(plan.shards[0])) == ("static", ("d",))

    def test_the_order_of_equal_plans_is_equal(self) -> None:
        run = at(EDGE_OF_33)
        scenes = [tile(f"s{i}", 32633, (10.0, 0.0, 199_980.0, 0.0, -10.0, 5_200_020.0)) for i in range(3)]
        assert plan_of(run, scenes) == plan_of(run, scenes)


class TestInputs:
    """A shard's digest changes with its content, and with nothing else."""

    def inputs(self, scenes: Sequence[Scene], run: RunSpec | None = None) -> dict[str, str]:
        return {s.key: s.inputs for s in plan_of(run or spec(), scenes).shards}

    @pytest.mark.parametrize(
        "change",
        [
            lambda a: replace(a, offset_dn=-1000.0),
            lambda a: replace(a, href="s3://bucket/other.tif"),
            lambda a: replace(a, scale=0.0002),
            lambda a: replace(a, db=True),
            lambda a: replace(a, nodata=None),
            lambda a: replace(a, nodata=float("nan")),
            lambda a: replace(a, epsg=None),
        ],
    )
    def test_a_changed_file_changes_its_shards_only(self, change: Callable[..., object]) -> None:
        june, july = scene("a", "2023-06-10T10:00:00"), scene("b", "2023-07-10T10:00:00")
        before = self.inputs([june, july])
        for changed in (
            replace(july, assets=(change(july.assets[0]), *july.assets[1:])),
            replace(july, spare=(change(july.assets[0]),)),
        ):
            after = self.inputs([june, changed])
            assert before.keys() == after.keys()
            assert {key for key in before if before[key] != after[key]} == {k for k in before if "/2023-07/" in k}

    def test_words_change_nothing(self) -> None:
        one = scene("a", "2023-06-10T10:00:00")
        told = replace(one, assets=tuple(replace(a, offset_reason="in other words") for a in one.assets), cloud_pct=2.0)
        assert self.inputs([one]) == self.inputs([told])

    def test_scenes_come_and_go(self) -> None:
        june, july = scene("a", "2023-06-10T10:00:00"), scene("b", "2023-07-10T10:00:00")
        assert self.inputs([june]) != self.inputs([june, july])
        assert self.inputs([june, july]) == self.inputs([june, july, scene("c", refusal="too cloudy")])

    def test_a_scene_elsewhere_changes_nothing(self) -> None:
        far = tile("far", 32633, (10.0, 0.0, 800_000.0, 0.0, -10.0, 5_100_000.0))
        assert self.inputs([scene()]) == self.inputs([scene(), far])

    def test_a_larger_area_keeps_the_shards_that_it_does_not_touch(self) -> None:
        small, large = at([15.0, 45.6, 15.3, 45.8]), at([15.0, 45.6, 15.6, 45.8])
        before, after = self.inputs([scene()], small), self.inputs([scene()], large)
        assert before.keys() < after.keys()
        grown = plan_of(large, [scene()])
        chips = {s.key: s.chip_ids for s in plan_of(small, [scene()]).shards}
        same = {s.key for s in grown.shards if chips.get(s.key) == s.chip_ids}
        assert len(same) >= len(before) // 2
        assert {key for key in before if before[key] == after[key]} == same

    def test_later_dates_keep_earlier_bins(self) -> None:
        scenes = [scene("a", "2023-06-10T10:00:00"), scene("b", "2023-09-10T10:00:00")]
        later = spec(time={"start": "2023-06-01", "end": "2023-10-01", "step": "month"})
        before, after = self.inputs(scenes), self.inputs(scenes, later)
        assert before.items() < after.items()

    def test_the_chips_stage_is_part_of_it(self) -> None:
        scenes = scene_table([scene()]).columns()
        first, second = (make_plan(spec(), scenes, name).shards for name in ("chips-a", "chips-b"))
        assert {s.inputs for s in first}.isdisjoint(s.inputs for s in second)


class TestAxes:
    @given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=6), max_size=5))
    def test_they_only_ever_grow_at_the_end(self, arrivals: list[list[str]]) -> None:
        axes = [Axes()]
        for blocks in arrivals:
            axes.append(axes[-1].extended(blocks, [*blocks, "static"]))
        for before, after in pairwise(axes):
            assert after.blocks[: len(before.blocks)] == before.blocks
            assert after.bins[: len(before.bins)] == before.bins
        seen = dict.fromkeys(name for blocks in arrivals for name in blocks)
        assert axes[-1].blocks == tuple(seen)
        for name in seen:
            found = [a.time_index(name) for a in axes if name in a.bins]
            assert len(set(found)) == 1  # a bin never moves

    def test_slots_and_places(self) -> None:
        blocks = [Block(32633, 5, 6, 2560, 4), Block(32632, 1, 2, 2560, 4)]
        axes = Axes().extended([b.key for b in blocks], ["2023-06", "static", "2023-07"])
        assert [axes.first_slot(b) for b in blocks] == [0, 16]
        assert [axes.time_index(key) for key in ("2023-06", "2023-07", "static")] == [0, 1, None]


class TestObservationDays:
    def test_seconds_apart_is_one_overpass(self) -> None:
        """Flanders, 2018-11-17: neighbouring chips of one pass, seconds apart."""
        flanders = (3.0, 50.8, 4.0, 51.1)
        days = {observation_day(scene(moment=f"2018-11-17T10:56:{s}", bbox=flanders)) for s in ("53", "49")}
        assert days == {"2018-11-17"}

    def test_two_tracks_of_one_week_stay_apart(self) -> None:
        box = (3.0, 50.8, 3.1, 50.9)
        first, second = scene(moment="2018-08-06T17:40:43", bbox=box), scene(moment="2018-08-07T17:32:30", bbox=box)
        assert observation_day(first) != observation_day(second)

    def test_the_utc_midnight_within_a_pass_does_not_divide_it(self) -> None:
        """New Zealand's east is passed near UTC midnight."""
        tiles = [
            scene(moment=moment, bbox=(177.0 + i, -39.0, 178.0 + i, -38.0))
            for i, moment in enumerate(("2023-07-01T23:59:50", "2023-07-02T00:00:05"))
        ]
        assert [observation_day(t) for t in tiles] == ["2023-07-02", "2023-07-02"]

    @pytest.mark.parametrize("near_lon", [179.9, -179.9])
    def test_one_pass_over_the_antimeridian_is_one_observation(self, near_lon: float) -> None:
        boxes = [
            (178.0, 66.0, 179.9, 67.0),
            (-179.9, 66.0, -178.0, 67.0),
            (179.0, 66.0, -179.0, 67.0),
            (-180, 66, 180, 67),
        ]
        one_pass = [scene(moment=f"2023-06-02T23:37:4{i}", bbox=box) for i, box in enumerate(boxes)]
        next_pass = [replace(s, moment=s.moment.replace(day=3)) for s in one_pass]
        assert len({observation_day(s, near_lon) for s in one_pass}) == 1
        assert len({observation_day(s, near_lon) for s in one_pass + next_pass}) == 2

    def test_a_box_around_the_globe_lies_at_the_antimeridian(self) -> None:
        crossing = scene(moment="2023-06-02T23:37:44", bbox=(-180.0, 66.6, 180.0, 67.6))
        assert observation_day(crossing) == observation_day(replace(crossing, bbox=(179.5, 66.6, -179.5, 67.6)))


def test_the_sample_item_goes_through_to_a_plan() -> None:
    """From a publisher's item to a shard, without hand-made scenes."""
    document: Json = item()
    run = at(ONE_BLOCK, sensors={"s2": {"kind": "s2-l2a", "bands": ["B04"]}})
    found = scene_of_item(document, "s2", sensor(), "https://host/items.json")
    plan = plan_of(run, [found])
    assert [plan.scene_ids(s) for s in plan.shards] == [(), (), (document["id"],)]
    assert found.assets[0].transform == TILE_33TWL
