"""When: the section of the run spec about dates, events and time bins."""

from datetime import date as date_
from datetime import timedelta
from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, ValidationError, model_validator

from eo_batch.core.errors import SpecError
from eo_batch.core.section import Section
from eo_batch.core.timebins import OBSERVATION, TimeBin, bin_of_key, check_step, event_bins, midnight, time_bins


class EventSpec(Section):
    """Time bins before and after something that happened."""

    date: date_
    """Day of the event, UTC. It is in no bin, since what was seen on it can be from before or after: where you know,
    give the day before or after it as the event."""
    before: Annotated[int, Field(ge=0)] = 1
    """Bins before the day."""
    after: Annotated[int, Field(ge=0)] = 1
    """Bins after the day."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.before + self.after:
            raise ValueError("time.event.before and time.event.after are both 0; ask for a bin on one side at least")
        return self


def _either_range_or_event(schema: dict[str, Any]) -> None:
    schema["anyOf"] = [{"required": schema.pop("required")}, {"required": ["event"]}]


class TimeSpec(Section):
    """When."""

    model_config = ConfigDict(json_schema_extra=_either_range_or_event)

    start: date_
    """First day, UTC. Follows from `event` where that has windows."""
    end: date_
    """Day after the last day, UTC. Follows from `event` where that has windows."""
    step: str = "all"
    """How the range is cut into time bins: all, month, season, year or P<days>D; or observation, by which each overpass
    is a bin of its own (a day by the sun, and for Sentinel-1 a track)."""
    event: EventSpec | None = None
    """Bins about an event instead: windows of P<days>D that end and begin at its day, or with step observation the
    last overpasses of each block before it, from `start`, and the first after it, until `end`."""

    @model_validator(mode="before")
    @classmethod
    def _range_of_event(cls, data: Any) -> Any:
        """Fill in the range that windows about an event span; what does not fit is told by the other checks."""
        if not isinstance(data, dict) or data.get("event") is None or data.get("step") == OBSERVATION:
            return data
        try:
            event = EventSpec.model_validate(data["event"])
        except ValidationError:
            return data
        try:
            bins = event_bins(event.date, event.before, event.after, str(data.get("step", "all")))
        except (SpecError, OverflowError) as error:
            raise ValueError(str(error)) from error
        return {"start": bins[0].start.date(), "end": bins[-1].end.date()} | data

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        try:
            check_step(self.step)
            bins = self.bins()
        except SpecError as error:
            raise ValueError(str(error)) from error  # so that it is reported beside the spec's other mistakes
        if self.end <= self.start:
            raise ValueError(f"time.end={self.end} is not after time.start={self.start}; swap them (end is exclusive)")
        if self.event is not None and bins and (self.start, self.end) != (bins[0].start.date(), bins[-1].end.date()):
            raise ValueError(
                f"time.start={self.start} and time.end={self.end} do not span the windows about time.event, which go "
                f"from {bins[0].start.date()} to {bins[-1].end.date()}; leave start and end out"
            )
        return self

    @property
    def found(self) -> bool:
        """Whether bins are known after the search only, and differ between blocks."""
        return self.step == OBSERVATION and self.event is None

    def bins(self) -> list[TimeBin]:
        """The time bins, in order; none with step observation, whose bins are known after the search."""
        if self.step == OBSERVATION:
            return []
        if self.event is not None:
            return event_bins(self.event.date, self.event.before, self.event.after, self.step)
        return time_bins(self.start, self.end, self.step)

    def bin_of(self, key: str) -> TimeBin:
        """The time bin of a key. That of an observation is its day by the sun; about an event it is the whole range on
        its side of it, since the day differs from block to block."""
        if self.event is None:
            return bin_of_key(key, self.step)
        if self.step != OBSERVATION:
            return next(time_bin for time_bin in self.bins() if time_bin.key == key)
        if "before" in key:
            return TimeBin(midnight(self.start), midnight(self.event.date), key)
        return TimeBin(midnight(self.event.date + timedelta(days=1)), midnight(self.end), key)
