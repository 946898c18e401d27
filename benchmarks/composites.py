"""CPU seconds of each composite for a million pixels and one observation: `python -m benchmarks.composites`.

Random reflectance of which 70 % is valid, in one process; each figure is the best of three. Legend: t, b, y, x.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from eo_batch.pixels.composite import mean, median
from eo_batch.pixels.geomedian import geomedian
from eo_batch.pixels.observations import Observation, latest_valid, least_cloudy, medoid

ROWS, COLS, CHIP_PX = 128, 1024, 128


def ways(pixels_tbyx: Any, valid_tyx: Any) -> dict[str, Callable[[], object]]:
    """Each composite of a stack, to be called."""
    bands = range(pixels_tbyx.shape[1])
    seen = [Observation(list(p), v) for p, v in zip(pixels_tbyx, valid_tyx, strict=True)]
    planes = [[p[b] for p in pixels_tbyx] for b in bands]
    return {
        "median": lambda: [median(planes[b], list(valid_tyx), 0) for b in bands],
        "mean": lambda: [mean(planes[b], list(valid_tyx), 0) for b in bands],
        "latest-valid": lambda: latest_valid(seen, 0),
        "least-cloudy": lambda: least_cloudy(seen, CHIP_PX, 0),
        "medoid": lambda: medoid(seen, 0),
        "geomedian": lambda: geomedian(seen, 0),
    }


def main() -> None:
    """Print a table."""
    rng = np.random.default_rng(0)
    stacks = ((3, 4), (12, 4), (12, 10), (40, 4))
    figures: dict[str, list[float]] = {}
    for count, bands in stacks:
        level = rng.integers(500, 4000, (bands, 1, 1)) + rng.normal(0, 200, (count, 1, ROWS, COLS))
        pixels = (level + rng.normal(0, 80, (count, bands, ROWS, COLS))).clip(1, 65535).astype(np.uint16)
        for name, way in ways(pixels, rng.random((count, ROWS, COLS)) < 0.7).items():
            best = min(_seconds(way) for _ in range(3))
            figures.setdefault(name, []).append(best / (ROWS * COLS * count) * 1e6)
    print("| composite | " + " | ".join(f"{t} observations, {b} bands" for t, b in stacks) + " |")
    print("|---|" + "---|" * len(stacks))
    for name, row in figures.items():
        print(f"| {name} | " + " | ".join(f"{figure:.3f}" for figure in row) + " |")


def _seconds(way: Callable[[], object]) -> float:
    start = time.process_time()
    way()
    return time.process_time() - start


if __name__ == "__main__":
    main()
