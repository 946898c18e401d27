"""What the embeddings are worth: held-out scores of the pretrained encoder beside its baselines."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eo_batch.pixels.figures_colour import CLASS_COLOURS
from eo_batch.pixels.figures_curve import Score, score_chart
from eo_batch.stages.report import words
from eo_batch.stages.report.results import Results, Row

TITLES = {
    "pretrained": ("pretrained", CLASS_COLOURS[0]),
    "random-init": ("untrained twin", CLASS_COLOURS[1]),
    "band-statistics": ("band statistics", CLASS_COLOURS[3]),
}
"""Title and colour of each encoder, in the order of the columns."""


@dataclass(frozen=True)
class ScoreRow:
    """One class, or the mean over classes."""

    name: str
    cells: tuple[str, ...]
    """Mean ± deviation over seeds, by encoder."""
    total: bool


@dataclass(frozen=True)
class MarginRow:
    """The pretrained encoder against one baseline."""

    over: str
    mean: str
    std: str
    interval: str
    words: str
    """What the interval says."""
    tone: str
    """`yes`, `no` or empty."""


@dataclass(frozen=True)
class Scores:
    """The probe."""

    verdict: str
    """One sentence."""
    tone: str
    """`yes`, `no` or empty."""
    encoders: tuple[tuple[str, str], ...] = ()
    """Title and colour."""
    rows: tuple[ScoreRow, ...] = ()
    margins: tuple[MarginRow, ...] = ()
    seeds: int = 0
    svg: str | None = None
    lines: tuple[str, ...] = ()
    """Further facts: chips, penalties."""


def scores_of(results: Results) -> Scores | None:
    """The probe's scores; None if the spec asks for none."""
    if results.spec.probe is None:
        return None
    table, summary = results.table("probe", "probe.parquet"), results.document("probe", "summary.json")
    if table is None or summary is None:
        return Scores("The probe has not been run, so nothing is said about what the embeddings are worth.", "")
    records = table.to_pylist()
    names = [name for name in TITLES if any(row["encoder"] == name for row in records)]
    codes = sorted({row["class"] for row in records})
    target = results.spec.sensors[results.spec.probe.target]
    by_class = [(target.class_name(code), [_over_seeds(records, name, code) for name in names]) for code in codes]
    if not any(math.isfinite(score.mean) for _, scores in by_class for score in scores):
        return Scores("No class varies among the held-out chips, so no score could be measured.", "")
    rows = [ScoreRow(name, tuple(_cell(score) for score in scores), False) for name, scores in by_class]
    means = [_mean_score(summary, name) for name in names]
    rows.append(ScoreRow("mean over classes", tuple(_cell(score) for score in means), True))
    verdict, tone = _verdict(summary)
    chart = [*by_class, ("mean", means)] if len(by_class) > 1 else by_class
    return Scores(
        verdict=verdict,
        tone=tone,
        encoders=tuple(TITLES[name] for name in names),
        rows=tuple(rows),
        margins=tuple(_margin(name, values) for name, values in summary["margins_over"].items()),
        seeds=len(summary["seeds"]),
        svg=score_chart(chart, "R² on held-out chips", "Scores by class and encoder"),
        lines=_lines(summary, records, names),
    )


def _over_seeds(records: Sequence[Row], encoder: str, code: int) -> Score:
    """Mean and deviation of one class over seeds; seeds without a score do not count."""
    title, colour = TITLES[encoder]
    values = [
        row["r2"] for row in records if row["encoder"] == encoder and row["class"] == code and row["r2"] is not None
    ]
    mean = float(np.mean(values)) if values else math.nan
    return Score(title, mean, float(np.std(values, ddof=1)) if len(values) > 1 else math.nan, colour)


def _mean_score(summary: Row, encoder: str) -> Score:
    title, colour = TITLES[encoder]
    found = summary["encoders"][encoder]
    return Score(title, _or_nan(found["r2_mean"]), _or_nan(found["r2_std"]), colour)


def _cell(score: Score) -> str:
    spread = f" ± {words.number(score.std)}" if math.isfinite(score.std) else ""
    return words.number(score.mean) + spread


def _verdict(summary: Row) -> tuple[str, str]:
    margins: Mapping[str, Any] = summary["margins_over"]
    said = [f"{_difference(values)} over {_over(name)}" for name, values in margins.items()]
    lows = [_or_nan(values["low"]) for values in margins.values()]
    highs = [_or_nan(values["high"]) for values in margins.values()]
    means = [values["mean"] for values in margins.values()]
    seeds = len(summary["seeds"])
    if seeds < 2:
        lead, tone = "One seed gives no interval, so whether pretraining helps stays open", ""
    elif min(lows) > 0:
        lead, tone = "Pretraining beats both baselines", "yes"
    elif max(highs) < 0:
        lead, tone = "Pretraining falls behind both baselines", "no"
    else:
        wins = [_over(name) for name, low in zip(margins, lows, strict=True) if low > 0]
        beaten = f"beats {words.listed(wins)} only" if wins else "beats neither baseline beyond doubt"
        lead, tone = f"Pretraining {beaten}", "no"
    assert means  # the probe always compares
    r2 = words.number(_or_nan(summary["encoders"]["pretrained"]["r2_mean"]), 2)
    on = words.count(summary["test_chips"], "held-out chip")
    return f"{lead}: R² {r2} on {on}, a margin of {words.listed(said)} ({words.count(seeds, 'seed')}).", tone


def _difference(values: Row) -> str:
    mean = words.signed(values["mean"], 2)
    if values["std"] is None:
        return mean
    interval = f"{words.signed(values['low'], 2)} to {words.signed(values['high'], 2)}"
    return f"{mean} ± {words.number(values['std'], 2)} (95\u202f% interval {interval})"


def _margin(name: str, values: Row) -> MarginRow:
    low, high = _or_nan(values["low"]), _or_nan(values["high"])
    if not math.isfinite(low):
        said, tone = "one seed", ""
    elif low > 0:
        said, tone = "above 0", "yes"
    else:
        said, tone = ("below 0", "no") if high < 0 else ("includes 0", "no")
    interval = f"{words.signed(low)} to {words.signed(high)}" if math.isfinite(low) else "–"
    return MarginRow(_over(name), words.signed(values["mean"]), words.number(values["std"]), interval, said, tone)


def _over(name: str) -> str:
    return f"the {TITLES[name][0]}" if name == "random-init" else TITLES.get(name, (name, ""))[0]


def _lines(summary: Row, records: Sequence[Row], names: Sequence[str]) -> tuple[str, ...]:
    lines = [
        f"{words.count(summary['train_chips'], 'training chip')} fit and choose the penalty, "
        f"{words.count(summary['test_chips'], 'held-out chip')} score; target: {summary['target']}."
    ]
    still = sorted({row["class"] for row in records} - set(summary["classes"]))
    if still:
        lines.append(
            f"Class {words.listed(map(str, still))} does not vary on both sides of the split and is not in the mean."
        )
    chosen = {name: sorted({row["alpha"] for row in records if row["encoder"] == name}) for name in names}
    said = [f"{TITLES[name][0]} {words.listed(f'{alpha:g}' for alpha in alphas)}" for name, alphas in chosen.items()]
    lines.append(f"Ridge penalties chosen: {'; '.join(said)}.")
    return tuple(lines)


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
