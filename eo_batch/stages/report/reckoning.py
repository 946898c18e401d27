"""What the run was estimated to take, beside what its receipts say."""

from collections.abc import Callable
from dataclasses import dataclass

from eo_batch.core import layout
from eo_batch.core.calibration import BUILT_IN, Calibration
from eo_batch.core.estimate import estimate, taken, total
from eo_batch.core.prices import Amounts, Prices
from eo_batch.stages.report import words
from eo_batch.stages.report.results import Results


@dataclass(frozen=True)
class Pair:
    """One amount."""

    estimate: str
    receipts: str
    ratio: str
    """Receipts over estimate."""


@dataclass(frozen=True)
class Row:
    """One stage, or one sensor's chips."""

    name: str
    shards: str
    """How many are done, of how many."""
    pairs: tuple[Pair, ...]
    """In the order of `titles`; empty for a stage without a receipt."""


@dataclass(frozen=True)
class Reckoning:
    """Estimate and receipts, stage by stage."""

    titles: tuple[str, ...]
    rows: tuple[Row, ...]
    """The last is of all stages that are complete."""
    sources: tuple[str, ...]
    """Calibrations that the estimate rests on."""
    prices: str
    """Where the prices come from; empty where none were given."""


def reckoning_of(results: Results) -> Reckoning:
    """Estimate and receipts, by the calibration and the prices that the run was given last."""
    kept, prices = _given(results, layout.CALIBRATION), _given(results, layout.PRICES)
    calibration = Calibration.parse(kept, layout.CALIBRATION) if kept else BUILT_IN
    table = Prices.parse(prices, layout.PRICES) if prices else None
    lines = [line for line in estimate(results.spec, results.plan, calibration) if line.work.stage != "report"]
    both = [(line, taken(line.work, results.receipts)) for line in lines]
    rows = [_row(line.work.name, line.amounts, took, table) for line, took in both]
    whole = [(line.amounts, took) for line, took in both if took.shards == line.work.shards]
    sums = total([wanted for wanted, _ in whole]), total([took for _, took in whole])
    rows.append(_row("complete stages", *sums, table))
    return Reckoning(
        ("CPU time", "requests", "fetched", "objects", "stored", *([table.currency] if table else [])),
        tuple(rows),
        tuple(dict.fromkeys(line.source for line in lines)),
        f"Prices of {table.as_of}: {table.source}." if table else "",
    )


def _given(results: Results, name: str) -> str | None:
    key = f"{results.spec.name}/{name}"
    return results.store.get(key).decode() if results.store.exists(key) else None


def _row(name: str, wanted: Amounts, took: Amounts, prices: Prices | None) -> Row:
    shards = f"{words.count(took.shards)} of {words.count(wanted.shards)}"
    if not took.shards:
        return Row(name, shards, ())
    pairs = [
        _pair(wanted.cpu_s, took.cpu_s, words.duration),
        _pair(wanted.requests, took.requests, _whole),
        _pair(wanted.fetched_bytes, took.fetched_bytes, words.size),
        _pair(wanted.writes, took.writes, _whole),
        _pair(wanted.stored_bytes, took.stored_bytes, words.size),
    ]
    if prices:
        pairs.append(_pair(prices.cost(wanted), prices.cost(took), lambda money: f"{money:.4g}"))
    return Row(name, shards, tuple(pairs))


def _pair(wanted: float, took: float, said: Callable[[float], str]) -> Pair:
    return Pair(said(wanted), said(took), f"{took / wanted:.2f}" if wanted else "–")


def _whole(amount: float) -> str:
    return words.count(round(amount))
