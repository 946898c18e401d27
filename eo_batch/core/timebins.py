"""Time bins: half-open UTC intervals whose keys stay the same in every run."""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from eo_batch.core.errors import SpecError

STATIC_KEY = "static"
"""Bin key of products without a time axis."""

OBSERVATION = "observation"
"""Step by which each overpass is a bin of its own; which there are is known after the search."""

_PAIR_LENGTH = len("2018-01-06-2018-01-30")
_DAYS = r"P[1-9]\d{0,3}D"
_EPOCH = date(1970, 1, 1)
_EPOCH_UTC = datetime(1970, 1, 1, tzinfo=UTC)
_SEASONS = {12: "DJF", 3: "MAM", 6: "JJA", 9: "SON"}


@dataclass(frozen=True, order=True)
class TimeBin:
    """One half-open interval [start, end) in UTC."""

    start: datetime
    end: datetime
    key: str
    """Stable name, part of shard keys: `2023-08`, `2023-JJA`, `2023`, `20230805P10D`, `20230601-20230901`; of single
    observations `2023-08-05`, `2023-08-05-r044` and, of an interferogram, `2018-01-06-2018-01-30`; about an event
    `20180905-before2` and `20180905-after1`."""

    def holds(self, moment: datetime) -> bool:
        """Whether `moment` (aware) lies in the interval."""
        return self.start <= moment < self.end


def midnight(day: date) -> datetime:
    """00:00 UTC of `day`."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def microseconds(moment: datetime) -> int:
    """Microseconds since 1970 of an aware time."""
    return (moment - _EPOCH_UTC) // timedelta(microseconds=1)


def moment_of(microseconds: int) -> datetime:
    """The time, UTC, of microseconds since 1970."""
    return _EPOCH_UTC + timedelta(microseconds=microseconds)


def check_step(step: str) -> None:
    """Raise SpecError unless `step` names a way to cut time."""
    if step not in ("all", "month", "season", "year", OBSERVATION) and not re.fullmatch(_DAYS, step):
        raise SpecError(
            f"time.step={step!r} is unknown; use all, month, season, year or P<days>D like P10D, or observation"
        )


def time_bins(start: date, end: date, step: str) -> list[TimeBin]:
    """All bins that overlap [start, end), in order.

    Calendar bins and windows are whole and anchored to the calendar (windows to 1970-01-01), so that
    another date range gives the same bins; `all` is the range itself. Winter (DJF) carries the year
    of its January.
    """
    check_step(step)
    if end <= start:
        raise SpecError(f"time.end={end} is not after time.start={start}; swap them (end is exclusive)")
    if step == "all":
        return [TimeBin(midnight(start), midnight(end), f"{start:%Y%m%d}-{end:%Y%m%d}")]
    bins = []
    edge = _floor(start, step)
    while edge < end:
        after = _next(edge, step)
        bins.append(TimeBin(midnight(edge), midnight(after), _key(edge, step)))
        edge = after
    return bins


def event_bins(event: date, before: int, after: int, step: str) -> list[TimeBin]:
    """Windows of P<days>D that end where the event's day begins and that begin where it ends, in order.

    The day itself is in none: what was seen on it can be from before or after. Raises SpecError for another step.
    """
    if not re.fullmatch(_DAYS, step):
        raise SpecError(f"time.step={step!r} does not go with time.event; use P<days>D like P12D, or observation")
    length = timedelta(days=int(step[1:-1]))
    edges = [event - k * length for k in range(before, 0, -1)]
    edges += [event + timedelta(days=1) + k * length for k in range(after)]
    keys = event_keys(event, before, after)
    return [TimeBin(midnight(e), midnight(e + length), key) for e, key in zip(edges, keys, strict=True)]


def event_keys(event: date, before: int, after: int) -> list[str]:
    """Keys of bins about an event, in order; 1 is the one nearest to it."""
    return [f"{event:%Y%m%d}-before{k}" for k in range(before, 0, -1)] + [
        f"{event:%Y%m%d}-after{k}" for k in range(1, after + 1)
    ]


def bin_of_key(key: str, step: str) -> TimeBin:
    """The bin that carries `key`, given the step that made it. Not for bins about an event."""
    match step:
        case "observation":
            first = last = date.fromisoformat(key[:10])
            if len(key) == _PAIR_LENGTH:
                last = date.fromisoformat(key[11:])
            return TimeBin(midnight(first), midnight(last + timedelta(days=1)), key)
        case "year":
            edge = date(int(key), 1, 1)
        case "month":
            edge = date.fromisoformat(f"{key}-01")
        case "season":
            month = next(m for m, name in _SEASONS.items() if name == key[5:])
            edge = date(int(key[:4]) - (month == 12), month, 1)
        case "all":
            start, end = (date.fromisoformat(part) for part in key.split("-"))
            return TimeBin(midnight(start), midnight(end), key)
        case _:
            edge = date.fromisoformat(key[:8])
    return TimeBin(midnight(edge), midnight(_next(edge, step)), key)


def _floor(day: date, step: str) -> date:
    match step:
        case "year":
            return date(day.year, 1, 1)
        case "month":
            return day.replace(day=1)
        case "season":
            month = day.month // 3 * 3
            return date(day.year, month, 1) if month else date(day.year - 1, 12, 1)
        case _:
            days = int(step[1:-1])
            return _EPOCH + timedelta(days=(day - _EPOCH).days // days * days)


def _next(edge: date, step: str) -> date:
    match step:
        case "year":
            return date(edge.year + 1, 1, 1)
        case "month" | "season":
            months = edge.year * 12 + edge.month - 1 + (1 if step == "month" else 3)
            return date(months // 12, months % 12 + 1, 1)
        case _:
            return edge + timedelta(days=int(step[1:-1]))


def _key(edge: date, step: str) -> str:
    match step:
        case "year":
            return f"{edge:%Y}"
        case "month":
            return f"{edge:%Y-%m}"
        case "season":
            return f"{_next(edge, 'season').year if edge.month == 12 else edge.year}-{_SEASONS[edge.month]}"
        case _:
            return f"{edge:%Y%m%d}{step}"
