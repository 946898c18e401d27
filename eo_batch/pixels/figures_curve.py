"""Charts as SVG: curves over steps, and scores with their spread."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from eo_batch.pixels.figures_svg import figure, label, short, tag, tick, ticks, title

Floats = NDArray[np.float64]

_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 14.0, 12.0, 40.0
"""Margins around the plot, for labels, in pixels."""


@dataclass(frozen=True)
class Curve:
    """One line of a chart."""

    name: str
    x: Floats
    """Places, rising."""
    y: Floats
    """Values of the same length; those that are not finite are left out."""
    colour: str
    """`#rrggbb`."""
    dashed: bool = False
    """Drawn dashed, with a dot at every value."""


def smoothed(x: Floats, y: Floats, most: int) -> tuple[Floats, Floats, int]:
    """Means over runs of neighbouring values so that at most `most` are left, and the length of a run."""
    run = -(-len(x) // most) if len(x) else 1
    starts = np.arange(0, len(x), run)
    if run == 1 or not len(x):
        return x, y, 1
    counts = np.diff(np.append(starts, len(x)))
    return np.add.reduceat(x, starts) / counts, np.add.reduceat(y, starts) / counts, run


def curve_chart(
    curves: Sequence[Curve], x_name: str, y_name: str, about: str, width: float = 560, height: float = 300
) -> str:
    """Curves over a common axis, as SVG. Raises ValueError if no value is finite."""
    kept = [(c, np.isfinite(c.x) & np.isfinite(c.y)) for c in curves]
    xs = np.concatenate([c.x[good] for c, good in kept]) if kept else np.empty(0)
    ys = np.concatenate([c.y[good] for c, good in kept]) if kept else np.empty(0)
    if not xs.size:
        raise ValueError("a chart needs at least one finite value")
    x_low, x_high = float(xs.min()), float(max(xs.max(), xs.min() + 1))
    y_low, y_high, is_cut = _axis(xs, ys, x_low, x_high)
    right, bottom = width - _RIGHT, height - _BOTTOM

    def px(x: float) -> float:
        return _LEFT + (x - x_low) / (x_high - x_low) * (right - _LEFT)

    def py(y: float) -> float:
        return bottom - (y - y_low) / (y_high - y_low) * (bottom - _TOP)

    parts = []
    for value in ticks(y_low, y_high, 5):
        parts.append(tag("line", x1=_LEFT, y1=py(value), x2=right, y2=py(value), class_="grid"))
        parts.append(label(tick(value), _LEFT - 6, py(value) + 4, "end"))
    parts.extend(label(tick(value), px(value), bottom + 16, "middle") for value in ticks(x_low, x_high, 6))
    parts.append(tag("line", x1=_LEFT, y1=bottom, x2=right, y2=bottom, class_="axis"))
    parts.append(label(x_name, right, bottom + 33, "end", "name"))
    parts.append(tag("text", escape(y_name), transform=f"translate(14 {short(_TOP)}) rotate(-90)",
                     text_anchor="end", class_="name"))  # fmt: skip
    drawn = []
    for curve, good in kept:
        points = [(px(float(x)), py(float(y))) for x, y in zip(curve.x[good], curve.y[good], strict=True)]
        line = " ".join(f"{short(x, 1)},{short(y, 1)}" for x, y in points)
        drawn.append(tag("polyline", title(curve.name), points=line, stroke=curve.colour,
                         class_="curve dashed" if curve.dashed else "curve"))  # fmt: skip
        if curve.dashed:
            drawn.extend(tag("circle", cx=x, cy=y, r=2.5, fill=curve.colour) for x, y in points)
    # An inner drawing shows nothing beyond its edges; the axis keeps room for dots that lie on it.
    tall = bottom + 3 - _TOP
    view = " ".join(short(value) for value in (0, _TOP, width, tall))
    parts.append(tag("svg", *drawn, x=0, y=_TOP, width=width, height=tall, viewBox=view))
    if is_cut:
        parts.append(label("the first steps lie above", right, _TOP + 10, "end"))
    return figure(width, height, parts, about)


def _axis(x: Floats, y: Floats, x_low: float, x_high: float) -> tuple[float, float, bool]:
    """Ends of the value axis, and whether first values lie beyond it.

    The first steps of a training tower over all others; where they would squeeze those into less than half of the
    axis, they are cut off.
    """
    later = y[x >= x_low + 0.1 * (x_high - x_low)]
    low, high = float(y.min()), float(y.max())
    if later.size and low < float(later.max()) < low + 0.5 * (high - low):
        return (*_padded(low, float(later.max())), True)
    return (*_padded(low, high), False)


@dataclass(frozen=True)
class Score:
    """A value with its spread."""

    name: str
    mean: float
    """NaN if there is none."""
    std: float
    """Spread to either side; NaN or 0 if there is none."""
    colour: str
    """`#rrggbb`."""


def score_chart(rows: Sequence[tuple[str, Sequence[Score]]], x_name: str, about: str, width: float = 560) -> str:
    """For each named row, its scores as dots with their spread, one below the other, as SVG.

    Raises ValueError if no score is finite.
    """
    flat = [score for _, scores in rows for score in scores if np.isfinite(score.mean)]
    if not flat:
        raise ValueError("a chart needs at least one finite score")
    ends = [score.mean + sign * _spread(score) for score in flat for sign in (-1, 1)]
    low, high = _padded(min(0.0, *ends), max(0.0, *ends))
    left = 24.0 + 6.6 * max(len(name) for name, _ in rows)
    row_px = 14.0 + 11.0 * max(len(scores) for _, scores in rows)
    right, bottom = width - _RIGHT, _TOP + row_px * len(rows)

    def px(x: float) -> float:
        return left + (x - low) / (high - low) * (right - left)

    parts = []
    for value in ticks(low, high, 6):
        kind = "axis" if value == 0 else "grid"
        parts.append(tag("line", x1=px(value), y1=_TOP, x2=px(value), y2=bottom, class_=kind))
        parts.append(label(tick(value), px(value), bottom + 16, "middle"))
    for number, (name, scores) in enumerate(rows):
        top = _TOP + row_px * number
        parts.append(label(name, left - 8, top + row_px / 2 + 4, "end"))
        if number:
            parts.append(tag("line", x1=left, y1=top, x2=right, y2=top, class_="grid"))
        for place, score in enumerate(scores):
            if np.isfinite(score.mean):
                parts.append(_dot(score, px, top + 12.5 + 11.0 * place))
    parts.append(label(x_name, right, bottom + 33, "end", "name"))
    return figure(width, bottom + _BOTTOM, parts, about)


def _dot(score: Score, px: Callable[[float], float], y: float) -> str:
    spread = _spread(score)
    words = f"{score.name}: {score.mean:.3f}" + (f" ± {spread:.3f}" if spread else "")
    x0, x1 = px(score.mean - spread), px(score.mean + spread)
    bar = tag("line", x1=x0, y1=y, x2=x1, y2=y, stroke=score.colour, class_="spread")
    return tag("g", title(words), bar, tag("circle", cx=px(score.mean), cy=y, r=4, fill=score.colour))


def _spread(score: Score) -> float:
    return score.std if np.isfinite(score.std) else 0.0


def _padded(low: float, high: float) -> tuple[float, float]:
    pad = 0.05 * (high - low) or max(abs(low) * 0.05, 0.05)
    return low - pad, high + pad
