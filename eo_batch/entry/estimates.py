"""Estimates of runs: prices and calibrations from files, and what finished runs teach."""

from dataclasses import dataclass
from pathlib import Path

from eo_batch.core import layout
from eo_batch.core.calibration import BUILT_IN, Calibration
from eo_batch.core.errors import UsageError
from eo_batch.core.estimate import Line, calibrated, check_cost, estimate
from eo_batch.core.plan import Plan
from eo_batch.core.prices import Prices
from eo_batch.core.spec import RunSpec
from eo_batch.entry.account import own_receipts
from eo_batch.entry.run import Run
from eo_batch.entry.stages import stages_of
from eo_batch.io.plans import has_scenes


@dataclass(frozen=True)
class Terms:
    """What a run is estimated by."""

    prices: Prices | None = None
    calibration: Calibration | None = None
    """None is the built-in one."""
    max_cost: float | None = None
    """In the currency of `prices`."""

    def estimate(self, spec: RunSpec, plan: Plan) -> tuple[Line, ...]:
        """The estimate of a run. Raises PlanError if it costs more than `max_cost`."""
        lines = estimate(spec, plan, self.calibration or BUILT_IN)
        if self.max_cost is not None and self.prices is not None:
            check_cost(lines, self.prices, self.max_cost)
        return lines

    def admit(self, run: Run) -> None:
        """Write prices and calibration into the run, for its report. Raises PlanError if it costs more than `max_cost`:
        by its frozen plan, or by one that is not written."""
        if self.max_cost is not None:
            self._check(run)
        for name, given in ((layout.PRICES, self.prices), (layout.CALIBRATION, self.calibration)):
            if given is not None:
                run.store.put(f"{run.spec.name}/{name}", given.model_dump_json(indent=1).encode())  # JSON is YAML

    def _check(self, run: Run) -> None:
        if has_scenes(run.store, run.identity.prefix("plan")):
            self.estimate(run.spec, run.plan)
        else:
            from eo_batch.stages.plan import preview

            self.estimate(run.spec, preview(run.spec, run.settings))


def read_terms(prices: Path | str | None, calibration: Path | str | None, max_cost: float | None) -> Terms:
    """Terms of files. Raises UsageError if one can't be read or prices are missing, SpecError naming wrong fields."""
    if max_cost is not None and prices is None:
        raise UsageError(f"max_cost={max_cost:g} needs a price table: give one as prices (--prices, docs/cost.md)")
    return Terms(
        Prices.parse(_text(prices), str(prices)) if prices else None,
        Calibration.parse(_text(calibration), str(calibration)) if calibration else None,
        max_cost,
    )


def calibrate(run: Run) -> Calibration:
    """The rates of a run's complete stages. Raises UsageError if none is, DataError before the plan is done."""
    receipts = {stage: own_receipts(run, stage) for stage in stages_of(run)}
    every = [receipt for found in receipts.values() for receipt in found]
    days = sorted({receipt.finished[:10] for receipt in every if receipt.finished})
    dates = " to ".join(dict.fromkeys((*days[:1], *days[-1:])))
    hosts = sorted({receipt.host for receipt in every if receipt.host})
    source = f"run {run.spec.name} on {', '.join(hosts) or 'an unknown host'}, {dates}"
    return calibrated(run.spec, run.plan, receipts, source)


def _text(path: Path | str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} can't be read: {error}") from error
