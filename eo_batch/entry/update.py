"""What a scheduled update runs: the same spec with its dates moved on, so that new time bins join the same cube.

Area, sensors and step stay, and so does the chips prefix: shards of the bins that were there keep their receipts. Only
whole bins are taken. One that was made from half of its days would count as done for ever (`entry/stages.py`).
"""

from datetime import date, timedelta

from eo_batch.core import layout
from eo_batch.core.errors import SpecError
from eo_batch.core.spec import RunSpec
from eo_batch.core.timebins import OBSERVATION, TimeBin, time_bins
from eo_batch.entry.run import open_run
from eo_batch.io.store import Store
from eo_batch.settings import Settings


def last_submitted(store: Store, name: str, settings: Settings) -> RunSpec | None:
    """The spec that was last submitted under a name; None before the first run."""
    return open_run(store, name, settings).spec if store.exists(f"{name}/{layout.RUN_SPEC}") else None


def updated(spec: RunSpec, last: RunSpec | None, day: date, settle_days: int, look_again: bool = False) -> RunSpec:
    """The spec with `time.end` after the last whole time bin that ended at least `settle_days` before `day`.

    The end is never before that of the spec or of `last`, the spec that was submitted last under this name: an update
    that comes late takes nothing back. Where no bin is new, the plan stays, and with it every receipt.

    look_again: search the catalogues again though no bin may be new, for scenes of the old bins that were listed late
    or processed anew. It puts the day into `as_of`, since the same label is the same plan; later updates keep it.

    Raises SpecError where dates can't move on.
    """
    start, end, step = spec.time.start, spec.time.end, spec.time.step
    if step == "all":
        raise SpecError(
            "time.step=all is one bin over all dates, so later dates would make every chip again; use month, season, "
            "year or P<days>D for a run that is to be updated"
        )
    if spec.time.event is not None:
        raise SpecError("time.event holds the same bins for ever; a run about an event is not updated, but run again")
    if step == OBSERVATION:
        step = "P1D"  # overpasses do not span days, so that any day ends whole bins
    last_bin = time_bins(start, end, step)[-1]
    if not _ends_with(last_bin, end):
        whole = [edge for edge in (last_bin.start.date(), last_bin.end.date()) if edge > start]
        raise SpecError(
            f"time.end={end} cuts the bin {last_bin.key} short, and an update would leave it so; use "
            + " or ".join(f"time.end={edge}" for edge in whole)
        )
    settled = day - timedelta(days=settle_days)
    if settled > start:
        end = max(end, _edge(start, settled, step))
    as_of = spec.as_of
    if last is not None and last.time.step == spec.time.step:
        if _ends_with(time_bins(last.time.start, last.time.end, step)[-1], last.time.end):
            end = max(end, last.time.end)
        if last.as_of.startswith(f"{spec.as_of}@"):
            as_of = last.as_of
    if look_again:
        as_of = f"{spec.as_of}@{day}"
    return spec.model_copy(update={"as_of": as_of, "time": spec.time.model_copy(update={"end": end})})


def _edge(start: date, day: date, step: str) -> date:
    """The last edge between bins that is not after `day`."""
    return time_bins(start, day + timedelta(days=1), step)[-1].start.date()


def _ends_with(time_bin: TimeBin, end: date) -> bool:
    return time_bin.end.date() == end
