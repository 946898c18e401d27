"""Which scenes are one overpass, and which time bin they are in."""

import random
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eo_batch.core.errors import PlanError, SpecError
from eo_batch.core.observations import known_bins, look_of, observations, overpass_bins
from eo_batch.core.plan import Plan, make_plan
from eo_batch.core.scenes import Scene
from eo_batch.core.spec import RunSpec, SensorSpec
from eo_batch.core.specfile import parse_spec
from eo_batch.core.timebins import event_bins, microseconds
from eo_batch.core.timespec import TimeSpec
from eo_batch.io.scenetable import scene_table, usable
from tests.core.samples import scene, sensor, spec

S1, S2 = sensor("s1", orbit="ascending"), sensor()
LON = 15.0


def when(**fields: Any) -> TimeSpec:
    return TimeSpec.model_validate(fields)


def ids(bins: dict[str, list[Scene]]) -> dict[str, list[str]]:
    return {key: [found.scene_id for found in scenes] for key, scenes in bins.items()}


def scenes_by_bin(scenes: Sequence[Scene], time: TimeSpec, of: SensorSpec, lon: float) -> dict[str, list[Scene]]:
    """The scenes of each bin over one piece of ground, in time's order."""
    moment = np.array([microseconds(one.moment) for one in scenes], np.int64)
    if time.step == "observation":
        looks = np.array([look_of(one) for one in scenes], object)
        rows, ground = np.arange(len(scenes)), np.zeros(len(scenes), np.int64)
        keys, number = overpass_bins(time, of, moment, looks, np.array([lon]), rows, ground)
    else:
        keys, number = known_bins(time, of, moment)
    return {key: [scenes[i] for i in np.flatnonzero(number == at)] for at, key in enumerate(keys)}


def plan_of(run: RunSpec, scenes: Sequence[Scene]) -> Plan:
    return make_plan(run, usable(scene_table(scenes), run).columns(), "x")


def passes(*moments: str, **fields: Any) -> list[Scene]:
    return [scene(moment, moment, **fields) for moment in moments]


class TestOverpasses:
    def test_tiles_of_one_pass_are_one_and_platforms_do_not_matter(self) -> None:
        seen = [*passes("2018-11-17T10:56:53"), *passes("2018-11-17T10:56:49", platform="sentinel-2b")]
        assert list(observations(seen, S2, LON)) == ["2018-11-17"]

    def test_two_tracks_of_a_day_are_two_for_sentinel_1_where_the_catalogue_tells(self) -> None:
        first, second = "2018-09-05T05:10:00", "2018-09-05T06:48:00"
        seen = [*passes(first, relative_orbit=44), *passes(second, relative_orbit=146)]
        assert ids(observations(seen, S1, LON)) == {"2018-09-05-r044": [first], "2018-09-05-r146": [second]}
        assert list(observations(seen, S2, LON)) == ["2018-09-05"]
        assert list(observations(passes(first, second), S1, LON)) == ["2018-09-05"]

    @given(st.lists(st.datetimes(datetime(2018, 1, 1), datetime(2018, 12, 31)), min_size=1, max_size=20), st.randoms())
    def test_a_key_depends_on_its_scene_alone(self, moments: list[datetime], order: random.Random) -> None:
        seen = [scene(str(n), str(moment)) for n, moment in enumerate(moments)]
        whole = observations(seen, S2, LON)
        order.shuffle(seen)
        assert observations(seen, S2, LON) == whole
        for key, group in whole.items():
            for one in group:
                assert list(observations([one], S2, LON)) == [key]


class TestSingleObservations:
    time = when(start="2018-09-01", end="2018-09-10", step="observation")

    def test_each_overpass_in_the_range_is_a_bin(self) -> None:
        seen = passes(
            "2018-08-31T10:00", "2018-09-01T10:00", "2018-09-01T10:01", "2018-09-04T10:00", "2018-09-10T00:00"
        )
        found = ids(scenes_by_bin(seen, self.time, S2, LON))
        assert found == {"2018-09-01": ["2018-09-01T10:00", "2018-09-01T10:01"], "2018-09-04": ["2018-09-04T10:00"]}

    def test_its_bin_is_the_day(self) -> None:
        found = self.time.bin_of("2018-09-05-r044")
        assert (found.start, found.end) == (datetime(2018, 9, 5, tzinfo=UTC), datetime(2018, 9, 6, tzinfo=UTC))

    def test_bins_are_in_the_order_of_time(self) -> None:
        seen = passes("2018-09-04T10:00", "2018-09-01T10:00", "2018-09-04T10:01")
        assert list(scenes_by_bin(seen, self.time, S2, LON)) == ["2018-09-01", "2018-09-04"]

    def test_pairs_of_interferograms_are_told_apart_by_both_days(self) -> None:
        pairs = ("2018-09-01/2018-09-07", "2018-08-29/2018-09-10")
        seen = [scene(pair, "2018-09-04T05:00", pair=pair) for pair in pairs]
        found = scenes_by_bin(seen, self.time, sensor("interferogram"), LON)
        assert ids(found) == {pair.replace("/", "-"): [pair] for pair in sorted(pairs)}
        bounds = self.time.bin_of("2018-08-29-2018-09-10")
        assert (bounds.start, bounds.end) == (datetime(2018, 8, 29, tzinfo=UTC), datetime(2018, 9, 11, tzinfo=UTC))

    @given(
        st.lists(
            st.tuples(st.datetimes(datetime(2018, 8, 30), datetime(2018, 9, 12)), st.sampled_from([None, 44, 146])),
            max_size=20,
        ),
        st.floats(-180, 180),
    )
    @settings(deadline=None)
    def test_pairs_of_scenes_and_ground_are_binned_as_scenes_are(
        self, looks: list[tuple[datetime, int | None]], lon: float
    ) -> None:
        seen = [scene(str(n), str(moment), relative_orbit=orbit) for n, (moment, orbit) in enumerate(looks)]
        inside = [one for one in seen if self.time.start <= one.moment.date() < self.time.end]
        for kind in (S1, S2):
            expected = {key: {s.scene_id for s in group} for key, group in observations(inside, kind, lon).items()}
            found = scenes_by_bin(seen, self.time, kind, lon)
            assert {key: {s.scene_id for s in group} for key, group in found.items()} == expected
            assert list(found) == sorted(found)

    def test_a_plan_has_shards_where_there_are_scenes(self) -> None:
        run = spec(time={"start": "2023-06-01", "end": "2023-09-01", "step": "observation"})
        plan = plan_of(run, [scene("b", "2023-07-05T10:00:00"), scene("a", "2023-07-01T10:00:00")])
        assert list(dict.fromkeys(s.bin_key for s in plan.shards)) == ["2023-07-01", "2023-07-05"]
        assert [plan.scene_ids(shard) for shard in plan.shards[:1]] == [("a",)]
        assert all(shard.scenes for shard in plan.shards)
        with pytest.raises(PlanError, match="no usable scene covers"):
            plan_of(run, [])


class TestEvents:
    @given(st.dates(date(1990, 1, 1), date(2060, 1, 1)), st.integers(0, 9), st.integers(0, 9), st.integers(1, 60))
    def test_windows_touch_on_each_side_and_leave_the_day_out(
        self, event: date, before: int, after: int, n: int
    ) -> None:
        bins = event_bins(event, before, after, f"P{n}D")
        days = [b.start.date() + timedelta(days=d) for b in bins for d in range((b.end - b.start).days)]
        assert len(days) == len(set(days)) == (before + after) * n
        around = [event + timedelta(days=d) for d in range(-before * n, after * n + 1) if d]
        assert sorted(days) == around == days
        assert len({b.key for b in bins}) == before + after

    def test_the_range_follows_from_the_windows(self) -> None:
        time = when(event={"date": "2017-09-20", "before": 3, "after": 2}, step="P12D")
        assert (time.start, time.end) == (date(2017, 8, 15), date(2017, 10, 15))
        assert when(**time.model_dump()) == time
        keys = ["20170920-before3", "20170920-before2", "20170920-before1", "20170920-after1", "20170920-after2"]
        assert [b.key for b in time.bins()] == keys
        assert [time.bin_of(key) for key in keys] == time.bins()

    def test_scenes_of_the_day_are_in_no_window(self) -> None:
        time = when(event={"date": "2017-09-20"}, step="P12D")
        seen = passes(
            "2017-09-08T00:00", "2017-09-19T23:59", "2017-09-20T00:00", "2017-09-20T23:59", "2017-09-21T00:00"
        )
        assert ids(scenes_by_bin(seen, time, S2, LON)) == {
            "20170920-before1": ["2017-09-08T00:00", "2017-09-19T23:59"],
            "20170920-after1": ["2017-09-21T00:00"],
        }

    def test_overpasses_are_counted_from_the_event(self) -> None:
        time = when(
            start="2018-07-01",
            end="2018-10-01",
            event={"date": "2018-09-05", "before": 2, "after": 2},
            step="observation",
        )
        seen = passes(
            "2018-08-01T09:00", "2018-08-13T09:00", "2018-08-25T09:00", "2018-09-05T20:00", "2018-09-18T09:00"
        )
        assert ids(scenes_by_bin(seen, time, S1, LON)) == {
            "20180905-before2": ["2018-08-13T09:00"],
            "20180905-before1": ["2018-08-25T09:00"],
            "20180905-after1": ["2018-09-18T09:00"],
            "20180905-after2": [],
        }
        assert time.bin_of("20180905-before2").end == datetime(2018, 9, 5, tzinfo=UTC)
        assert time.bin_of("20180905-after1").start == datetime(2018, 9, 6, tzinfo=UTC)

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            (["time.event.before=0", "time.event.after=0"], "both 0"),
            (["time.step=month"], "does not go with time.event"),
            (["time.start=2018-07-01", "time.end=2018-10-01"], "leave start and end out"),
            (["time.step=observation"], "time.start is missing"),
            (["time.event.before=-1"], "time.event.before"),
            (["time.event.date=Maria"], "time.event.date"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, changes: Sequence[str], told: str) -> None:
        text = "{name: e, area: {bbox: [1, 1, 2, 2]}, sensors: {s1: {kind: s1}}, "
        text += "time: {event: {date: 2018-09-05}, step: P12D}}"
        assert parse_spec(text, []).time.end == date(2018, 9, 18)
        with pytest.raises(SpecError, match=told):
            parse_spec(text, list(changes))
