"""How pretraining went: loss over steps, for all seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eo_batch.core.learning import MaeSpec
from eo_batch.pixels.figures_colour import class_colour
from eo_batch.pixels.figures_curve import Curve, curve_chart, smoothed
from eo_batch.stages.report import words
from eo_batch.stages.report.results import Results

MOST_POINTS = 200
"""Points of a drawn training curve; longer ones are averaged."""


@dataclass(frozen=True)
class Chart:
    """One chart of losses."""

    title: str
    svg: str


@dataclass(frozen=True)
class Training:
    """Loss curves."""

    charts: tuple[Chart, ...]
    """The whole loss first, then each of its terms."""
    seeds: tuple[tuple[int, str], ...]
    """Seeds and their colours."""
    run_steps: int
    """Steps averaged into one point of a training curve."""
    validated: bool
    """Whether a validation loss was measured."""
    sentence: str
    """First and last losses in words."""
    flat_is_one: bool
    """Whether a loss of 1 is what predicting each patch's own mean gets."""
    missing: tuple[int, ...]
    """Seeds of the spec without a curve."""


def training_of(results: Results) -> Training | None:
    """The loss curves; None if no seed has been trained."""
    losses = results.losses
    if not losses:
        return None
    colours = {seed: class_colour(i) for i, seed in enumerate(losses)}
    names = sorted({name for table in losses.values() for name in table.column_names if name.startswith("train.")})
    charts, runs = [], [1]
    for column in ["train", *(names if len(names) > 1 else [])]:
        curves, run = _curves(losses, column, colours)
        runs.append(run)
        if curves:
            shown = names[0] if len(names) == 1 else column
            title = "all terms" if shown == "train" else shown.removeprefix("train.")
            about = f"Loss over steps, {title}, {words.count(len(losses), 'seed')}"
            charts.append(Chart(title, curve_chart(curves, "step", "loss", about)))
    objective = results.spec.pretrain.objective
    validated = any(np.isfinite(_column(table, "val")).any() for table in losses.values())
    return Training(
        charts=tuple(charts),
        seeds=tuple(colours.items()),
        run_steps=max(runs),
        validated=validated,
        sentence=_sentence(list(losses.values()), validated),
        flat_is_one=isinstance(objective, MaeSpec) and objective.normalise_targets,
        missing=tuple(seed for seed in results.spec.pretrain.seeds if seed not in losses),
    )


def _curves(losses: Mapping[int, pa.Table], column: str, colours: Mapping[int, str]) -> tuple[list[Curve], int]:
    curves, longest = [], 1
    for seed, table in losses.items():
        step, train = _column(table, "step"), _column(table, column)
        good = np.isfinite(train)
        x, y, run = smoothed(step[good], train[good], MOST_POINTS)
        longest = max(longest, run)
        if len(x):
            curves.append(Curve(f"seed {seed}, training", x, y, colours[seed]))
        val = _column(table, column.replace("train", "val", 1))
        measured = np.isfinite(val)
        if measured.any():
            curves.append(Curve(f"seed {seed}, validation", step[measured], val[measured], colours[seed], dashed=True))
    return curves, longest


def _column(table: pa.Table, name: str) -> NDArray[np.float64]:
    if name not in table.column_names:
        return np.full(table.num_rows, np.nan)
    return np.asarray(table[name].to_numpy(zero_copy_only=False), np.float64)


def _sentence(tables: Sequence[pa.Table], validated: bool) -> str:
    """How far the loss fell, as the mean over seeds of the first and last few values."""
    name = "val" if validated else "train"
    ends = []
    for table in tables:
        values = _column(table, name)
        values = values[np.isfinite(values)]
        few = 1 if validated else max(len(values) // 20, 1)
        if len(values):
            ends.append((values[:few].mean(), values[-few:].mean()))
    if not ends:
        return ""
    first, last = np.mean(ends, axis=0)
    kind = "validation" if validated else "training"
    said = f"The {kind} loss went from {words.number(first)} to {words.number(last)}"
    return said + (" (mean over seeds)." if len(ends) > 1 else ".")
