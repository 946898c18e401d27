"""What the first seed's autoencoder made of chips that it was not trained on, with most of each hidden.

Legend: n samples, b bands, y rows, x columns.
"""

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eo_batch.core import layout
from eo_batch.core.errors import DataError
from eo_batch.core.learning_plan import learning_arrays
from eo_batch.core.spec import CubeArray, RunSpec
from eo_batch.pixels.figures_colour import Mask, Range, Rgba, grey_picture, range_of, rgb_picture, shrink
from eo_batch.pixels.figures_png import png_uri
from eo_batch.stages.report import words
from eo_batch.stages.report.coverage import bin_words
from eo_batch.stages.report.gallery import PICTURE_PX, colour_bands, unit_of
from eo_batch.stages.report.results import Results

MOST_SAMPLES = 6
TITLES = ("as it is", "what the encoder saw", "filled in")
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Triptych:
    """One sample in one array."""

    chip_id: str
    when: str
    """Time bin."""
    array: str
    what: str
    """Bands and unit."""
    uris: tuple[str, ...]
    """Pictures, in the order of `Reconstruction.titles`."""


@dataclass(frozen=True)
class Reconstruction:
    """Pictures, or the reason why there are none."""

    sentence: str
    panels: tuple[Triptych, ...] = ()
    titles: tuple[str, ...] = TITLES


def reconstruction_of(results: Results) -> Reconstruction:
    """The samples that the first seed's training left for people to look at."""
    seed = results.spec.pretrain.seeds[0]
    key = layout.metrics(results.identity.prefix("pretrain"), f"reconstructions-seed-{seed}.npz")
    if not results.store.exists(key):
        return Reconstruction("No encoder has been trained in this run, so nothing was reconstructed.")
    saved = _load(results.store.get(key), results.store.href(key))
    ids, bins = saved["chip_id"].tolist(), saved["bin"].tolist()
    panels: dict[tuple[int, int], Triptych] = {}
    for place, learning in enumerate(learning_arrays(results.spec)):
        if f"{learning.array.name}.given" in saved:
            for n, uris, what in _array_panels(saved, learning.array):
                panels[n, place] = Triptych(ids[n], bin_words(bins[n]), learning.array.name, what, uris)
    if not panels:
        return Reconstruction("No chip was kept aside for validation, so there is no reconstruction to show.")
    return Reconstruction(_sentence(results.spec, seed), tuple(panels[key] for key in sorted(panels)))


def _array_panels(saved: Mapping[str, NDArray[Any]], array: CubeArray) -> list[tuple[int, tuple[str, ...], str]]:
    names = colour_bands(array.band_names) or array.band_names[:1]
    bands = [array.band_names.index(name) for name in names]
    given_nbyx = saved[f"{array.name}.given"][:MOST_SAMPLES, bands].astype(np.float64)
    filled_nbyx = saved[f"{array.name}.filled"][:MOST_SAMPLES, bands].astype(np.float64)
    hidden_nbyx = np.broadcast_to(saved[f"{array.name}.masked"][:MOST_SAMPLES, None], given_nbyx.shape)
    span = range_of(given_nbyx, np.isfinite(given_nbyx), 2.0)
    if span is None:
        return []
    what = f"{', '.join(names)}, {unit_of(array)}"
    found = []
    for n in range(len(given_nbyx)):
        # A sample that was never observed there has nothing to hide.
        if np.isfinite(given_nbyx[n]).any():
            seen_byx = np.where(hidden_nbyx[n], np.nan, given_nbyx[n])
            views = (given_nbyx[n], seen_byx, filled_nbyx[n])
            found.append((n, tuple(png_uri(_picture(values, span)) for values in views), what))
    return found


def _picture(values_byx: Floats, span: Range) -> Rgba:
    valid: Mask = np.isfinite(values_byx)
    values_byx, valid = shrink(values_byx, valid, PICTURE_PX)
    if len(values_byx) == 3:
        return rgb_picture(values_byx, valid, span)
    return grey_picture(values_byx[0], valid[0], span)


def _sentence(spec: RunSpec, seed: int) -> str:
    hidden = words.percent(spec.pretrain.mask_ratio)
    said = f"Validation chips, {hidden} of their patches hidden, model of seed {seed}. Checks: hidden or invalid."
    if spec.pretrain.normalise_targets:
        said += " The model predicts detail within a patch; each patch gets its own true mean and contrast back."
    return said


def _load(data: bytes, where: str) -> dict[str, NDArray[Any]]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as saved:
            return dict(saved)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{where} is not a whole npz file ({error}); delete its receipt to train again") from error
