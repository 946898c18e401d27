"""Time bins: no gap, no overlap, the same keys in every run."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eo_batch.core.errors import SpecError
from eo_batch.core.timebins import STATIC_KEY, bin_of_key, check_step, midnight, time_bins

days = st.dates(date(1985, 1, 1), date(2079, 12, 31))
steps = st.one_of(st.sampled_from(["all", "month", "season", "year"]), st.integers(1, 400).map(lambda n: f"P{n}D"))
lengths = st.integers(1, 1500)


@settings(deadline=None)
@given(days, lengths, steps)
def test_bins_cover_the_range_without_gap_or_overlap(start: date, length: int, step: str) -> None:
    end = start + timedelta(days=length)
    bins = time_bins(start, end, step)
    assert bins[0].start <= midnight(start) < bins[0].end
    assert bins[-1].start < midnight(end) <= bins[-1].end
    for before, after in pairwise(bins):
        assert before.end == after.start
    assert all(b.start < b.end for b in bins)


@settings(deadline=None)
@given(days, lengths, steps)
def test_keys_are_unique_sorted_and_lead_back_to_their_bin(start: date, length: int, step: str) -> None:
    bins = time_bins(start, start + timedelta(days=length), step)
    keys = [b.key for b in bins]
    assert len(set(keys)) == len(keys)
    assert STATIC_KEY not in keys
    assert [bin_of_key(key, step) for key in keys] == bins


@settings(deadline=None)
@given(days, lengths, days, lengths, steps.filter(lambda s: s != "all"))
def test_another_range_gives_the_same_bins(start: date, length: int, other: date, other_length: int, step: str) -> None:
    """Bins are anchored to the calendar: what two ranges share, they cut alike."""
    ours = time_bins(start, start + timedelta(days=length), step)
    theirs = {b.key: b for b in time_bins(other, other + timedelta(days=other_length), step)}
    assert all(theirs.get(b.key, b) == b for b in ours)
    wider = time_bins(start - timedelta(days=500), start + timedelta(days=length + 500), step)
    assert set(ours) <= set(wider)


@settings(deadline=None)
@given(days, lengths, steps, st.integers(0, 86_400_000_000 - 1))
def test_every_moment_of_the_range_is_in_exactly_one_bin(start: date, length: int, step: str, since: int) -> None:
    bins = time_bins(start, start + timedelta(days=length), step)
    for day in {0, length // 2, length - 1}:
        moment = midnight(start) + timedelta(days=day, microseconds=since)
        assert sum(b.holds(moment) for b in bins) == 1


@pytest.mark.parametrize(
    ("start", "end", "step", "keys"),
    [
        ("2023-06-15", "2023-08-02", "month", ["2023-06", "2023-07", "2023-08"]),
        ("2023-06-15", "2023-08-01", "month", ["2023-06", "2023-07"]),
        ("2022-12-31", "2023-03-02", "season", ["2023-DJF", "2023-MAM"]),
        ("2023-02-28", "2023-03-01", "season", ["2023-DJF"]),
        ("2023-11-30", "2023-12-02", "season", ["2023-SON", "2024-DJF"]),
        ("2022-12-31", "2023-01-02", "year", ["2022", "2023"]),
        ("2023-06-01", "2023-09-01", "all", ["20230601-20230901"]),
        ("1970-01-01", "1970-01-21", "P10D", ["19700101P10D", "19700111P10D"]),
        ("1969-12-31", "1970-01-02", "P10D", ["19691222P10D", "19700101P10D"]),
    ],
)
def test_keys(start: str, end: str, step: str, keys: list[str]) -> None:
    assert [b.key for b in time_bins(date.fromisoformat(start), date.fromisoformat(end), step)] == keys


def test_winter_carries_the_year_of_its_january() -> None:
    winter = bin_of_key("2024-DJF", "season")
    assert (winter.start, winter.end) == (datetime(2023, 12, 1, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC))
    assert winter.holds(datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC))
    assert not winter.holds(datetime(2024, 3, 1, tzinfo=UTC))


@pytest.mark.parametrize("step", ["", "weekly", "P0D", "P10", "10D", "P1M", "p10d", "P-3D", "P10D ", "P99999D"])
def test_unknown_steps_are_refused(step: str) -> None:
    with pytest.raises(SpecError, match=r"time.step=.* is unknown; use all, month, season, year or P<days>D"):
        check_step(step)


@pytest.mark.parametrize("end", [date(2023, 1, 1), date(2022, 12, 31)])
def test_reversed_and_empty_ranges_are_refused(end: date) -> None:
    with pytest.raises(SpecError, match=f"time.end={end} is not after time.start=2023-01-01; swap them"):
        time_bins(date(2023, 1, 1), end, "month")
