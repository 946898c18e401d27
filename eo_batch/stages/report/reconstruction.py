"""What the first seed's autoencoder made of chips that it was not trained on, with most of each hidden.

Legend: n samples, b bands, y rows, x columns.
"""

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eo_batch.core import layout
from eo_batch.core.errors import DataError
from eo_batch.core.learning import MaeSpec
from eo_batch.core.learning_plan import learning_arrays
from eo_batch.core.spec import CubeArray, RunSpec
from eo_batch.pixels.figures_colour import Mask, Range, Rgba, shrink
from eo_batch.pixels.figures_png import png_uri
from eo_batch.stages.report import words
from eo_batch.stages.report.gallery import PICTURE_PX, band_ranges, colour_bands, picture, shown_as
from eo_batch.stages.report.results import Results

MOST_SAMPLES = 4
TITLES = ("as it is", "what the encoder saw", "filled in")
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Triptych:
    """One sample in one array."""

    array: str
    what: str
    """Bands and unit."""
    uris: tuple[str, ...]
    """Pictures, in the order of `Reconstruction.titles`."""


@dataclass(frozen=True)
class Sample:
    """One chip in one time bin."""

    chip_id: str
    bin_key: str
    rows: tuple[Triptych, ...]
    """One for each array in which it was observed."""


@dataclass(frozen=True)
class Reconstruction:
    """Pictures, or the reason why there are none."""

    sentence: str
    samples: tuple[Sample, ...] = ()
    titles: tuple[str, ...] = TITLES


def reconstruction_of(results: Results) -> Reconstruction:
    """The samples that the first seed's training left for people to look at."""
    seed = results.spec.pretrain.seeds[0]
    key = layout.metrics(results.identity.prefix("pretrain"), f"reconstructions-seed-{seed}.npz")
    if not results.store.exists(key):
        why = "was trained to fill in" if results.losses else "has been trained"
        return Reconstruction(f"No encoder {why} in this run, so nothing was reconstructed.")
    saved = _load(results.store.get(key), results.store.href(key))
    ids, bins = saved["chip_id"].tolist(), saved["bin"].tolist()
    arrays = [found.array for found in learning_arrays(results.spec) if f"{found.array.name}.given" in saved]
    rows = [tuple(row for array in arrays if (row := _row(saved, array, n))) for n in range(len(ids))]
    # Samples that most sensors observed tell most.
    most = max(map(len, rows), default=0)
    best = [n for n in range(len(ids)) if rows[n] and len(rows[n]) == most][:MOST_SAMPLES]
    samples = tuple(Sample(ids[n], bins[n], rows[n]) for n in best)
    if not samples:
        return Reconstruction("No chip was kept aside for validation, so there is no reconstruction to show.")
    return Reconstruction(_sentence(results.spec, seed), samples)


def _row(saved: Mapping[str, NDArray[Any]], array: CubeArray, n: int) -> Triptych | None:
    """None where the sample was never observed in the array: nothing could be hidden."""
    names = colour_bands(array.band_names) or array.band_names[:1]
    bands = [array.band_names.index(name) for name in names]
    given_byx = saved[f"{array.name}.given"][n, bands].astype(np.float64)
    filled_byx = saved[f"{array.name}.filled"][n, bands].astype(np.float64)
    spans = band_ranges(names, [given_byx], [np.isfinite(given_byx)])
    if not spans:
        return None
    seen_byx = np.where(saved[f"{array.name}.masked"][n], np.nan, given_byx)
    uris = tuple(png_uri(_picture(array, values, spans)) for values in (given_byx, seen_byx, filled_byx))
    return Triptych(array.name, shown_as(array, names), uris)


def _picture(array: CubeArray, values_byx: Floats, spans: Sequence[Range]) -> Rgba:
    valid: Mask = np.isfinite(values_byx)
    return picture(array, *shrink(values_byx, valid, PICTURE_PX), spans)


def _sentence(spec: RunSpec, seed: int) -> str:
    objective = spec.pretrain.objective
    assert isinstance(objective, MaeSpec)  # others leave nothing to show
    hidden = words.percent(objective.mask_ratio)
    said = f"Validation chips, {hidden} of their patches hidden, model of seed {seed}. Checks: hidden or invalid."
    if objective.normalise_targets:
        said += " The model predicts detail within a patch; each patch gets its own true mean and contrast back."
    return said


def _load(data: bytes, where: str) -> dict[str, NDArray[Any]]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as saved:
            return dict(saved)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{where} is not a whole npz file ({error}); delete its receipt to train again") from error
