"""Embeddings as a map: like colours where the encoder sees like ground."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eo_batch.core.learning_plan import trained_name, untrained_name
from eo_batch.io.tables import read_table
from eo_batch.pixels.figures_colour import pca_colours, rgb_hex
from eo_batch.pixels.figures_map import Paint
from eo_batch.stages.report import words
from eo_batch.stages.report.ground import Chip, Ground
from eo_batch.stages.report.results import Results


@dataclass(frozen=True)
class EmbeddingMap:
    """One encoder's embeddings."""

    title: str
    caption: str
    svg: str | None
    """None where there is nothing to draw; `caption` says why."""


@dataclass(frozen=True)
class Embeddings:
    """Maps of embeddings."""

    maps: tuple[EmbeddingMap, ...]
    bins: int
    """Time bins whose vectors are averaged."""


def embeddings_of(results: Results, ground: Ground) -> Embeddings | None:
    """Maps of the first seed's encoder and of its untrained twin; None if nothing is embedded."""
    models = results.embedded()
    seed = results.spec.pretrain.seeds[0]
    wanted = {trained_name(seed): f"pretrained, seed {seed}", untrained_name(seed): f"untrained twin, seed {seed}"}
    shown = {model: title for model, title in wanted.items() if model in models}
    if not shown:
        return None
    bins = {key.split("/")[-2] for model in shown for key in models[model]}
    maps = tuple(_map(results, ground, models[model], title) for model, title in shown.items())
    return Embeddings(maps, len(bins))


def _map(results: Results, ground: Ground, keys: Sequence[str], title: str) -> EmbeddingMap:
    vectors = _mean_vectors(results, keys)
    if not vectors:
        return EmbeddingMap(title, "No chip has an embedding: none had a valid pixel in the encoder's sensors.", None)
    ids = sorted(vectors)
    colours = pca_colours(np.stack([vectors[chip_id] for chip_id in ids]))
    by_id = {chip_id: colours.rgb_nc[i] for i, chip_id in enumerate(ids)}

    def paint(chips: Sequence[Chip]) -> Paint:
        known = [by_id[chip.chip_id] for chip in chips if chip.chip_id in by_id]
        if not known:
            return Paint(".state-no_scene", "no embedding")
        return Paint(rgb_hex(np.mean(known, axis=0).round().astype(np.uint8)))

    carried = words.percent(colours.explained)
    caption = f"{words.count(len(ids), 'chip')}; the three colours carry {carried} of the variance"
    return EmbeddingMap(title, caption, ground.map(paint, f"Map of embeddings, {title}: {caption}", 460))


def _mean_vectors(results: Results, keys: Sequence[str]) -> Mapping[str, NDArray[np.float64]]:
    """Mean over time bins of each chip's vectors; vectors with a value that is not finite do not count."""
    sums: dict[str, NDArray[np.float64]] = {}
    counts: dict[str, int] = {}
    for key in keys:
        table = read_table(results.store, key, ["chip_id", "vector"])
        for row in table.to_pylist():
            vector = np.asarray(row["vector"] if row["vector"] is not None else [np.nan], np.float64)
            if np.isfinite(vector).all():
                chip_id = row["chip_id"]
                sums[chip_id] = sums[chip_id] + vector if chip_id in sums else vector
                counts[chip_id] = counts.get(chip_id, 0) + 1
    return {chip_id: total / counts[chip_id] for chip_id, total in sums.items()}
