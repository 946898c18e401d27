"""Layers of many scenes to one array of a block. Legend: t observations, b bands, y rows, x columns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eo_batch.pixels import composite
from eo_batch.pixels.geomedian import geomedian
from eo_batch.pixels.layers import Layer, Strip
from eo_batch.pixels.observations import Observation, first_valid, latest_valid, least_cloudy, medoid
from eo_batch.pixels.spread import Spread

Mask = NDArray[np.bool_]
_STRIP_PX = 2**17
"""Pixels of a strip that is composited at once."""


@dataclass(frozen=True)
class Joined:
    """One array in the making."""

    pixels_byx: NDArray[np.generic]
    every_tyx: Mask
    """Whether all bands so far are valid, for each observation."""
    seen_yx: Mask
    """Whether any scene holds data there, clouds included."""
    fill: float

    def join(self, b: int, groups_t: Sequence[Sequence[tuple[Layer, Layer | None]]], how: str, spread: Spread) -> None:
        """Composite one band: of each observation its layers, the first of which counts, each with the clear sky."""
        combine = composite.mean if how == "mean" else composite.median

        def strip_joined(strip: slice) -> None:
            shape = (strip.stop - strip.start, self.seen_yx.shape[1])
            planes, valid = [], []
            for t, group in enumerate(groups_t):
                pixels, holds = np.zeros(shape, self.pixels_byx.dtype), np.zeros(shape, bool)
                for layer, clear in group:
                    part = layer.rows(strip.start, strip.stop)
                    self.seen_yx[strip][part.at] |= part.valid_yx
                    counts = part.valid_yx
                    if clear is not None:
                        counts = counts & _everywhere(clear.rows(strip.start, strip.stop), shape)[part.at]
                    composite.fill_in(pixels[part.at], holds[part.at], part.pixels_yx, counts)
                self.every_tyx[t, strip] &= holds
                planes.append(pixels)
                valid.append(holds)
            self.pixels_byx[b, strip] = combine(planes, valid, self.fill) if planes else self.fill

        self._each_strip(strip_joined, 1, spread)

    def join_whole(
        self,
        groups_t: Sequence[Sequence[tuple[Sequence[Layer], Layer | None]]],
        how: str,
        chip_px: int,
        spread: Spread,
    ) -> None:
        """Composite all bands at once: of each observation its scenes, each with a layer a band and the clear sky.

        chip_px: side of a chip, pixels; the array is made of whole chips.
        """

        def strip_joined(strip: slice) -> None:
            observations = []
            for t, group in enumerate(groups_t):
                tiles = [self._tile(layers_b, clear, strip) for layers_b, clear in group]
                if not tiles:
                    self.every_tyx[t, strip] = False
                    continue
                observations.append(first_valid(tiles))
                self.every_tyx[t, strip] &= observations[-1].valid_yx
            self.pixels_byx[:, strip] = _whole(observations, how, chip_px, self.fill) if observations else self.fill

        # Where observations are ranked chip by chip, strips are rows of chips.
        self._each_strip(strip_joined, chip_px if how == "least-cloudy" else 1, spread)

    def _each_strip(self, join: Callable[[slice], None], together: int, spread: Spread) -> None:
        """Join strip by strip, each of a multiple of `together` rows."""
        rows, cols = self.seen_yx.shape
        step = max(_STRIP_PX // (cols * together), 1) * together
        for _ in spread(join, (slice(first, min(first + step, rows)) for first in range(0, rows, step))):
            pass  # each has its rows to itself

    def _tile(self, layers_b: Sequence[Layer], clear: Layer | None, strip: slice) -> Observation:
        shape = (strip.stop - strip.start, self.seen_yx.shape[1])
        valid = np.ones(shape, bool) if clear is None else _everywhere(clear.rows(strip.start, strip.stop), shape)
        pixels_b = []
        for layer in layers_b:
            part = layer.rows(strip.start, strip.stop)
            pixels = np.zeros(shape, self.pixels_byx.dtype)
            pixels[part.at] = part.pixels_yx
            data = _everywhere(part, shape)
            self.seen_yx[strip] |= data
            valid &= data
            pixels_b.append(pixels)
        return Observation(pixels_b, valid)

    def valid_yx(self) -> NDArray[np.uint8]:
        """Observations in which every band is valid."""
        if not len(self.every_tyx):
            return np.zeros(self.seen_yx.shape, np.uint8)
        return composite.valid_count(self.every_tyx)


def _everywhere(part: Strip, shape: tuple[int, int]) -> Mask:
    """Where a strip is valid, over all its rows and columns."""
    valid = np.zeros(shape, bool)
    valid[part.at] = part.valid_yx
    return valid


def _whole(observations_t: Sequence[Observation], how: str, chip_px: int, fill: float) -> NDArray[np.generic]:
    match how:
        case "medoid":
            return medoid(observations_t, fill)
        case "geomedian":
            return geomedian(observations_t, fill)
        case "least-cloudy":
            return least_cloudy(observations_t, chip_px, fill)
        case "latest-valid":
            return latest_valid(observations_t, fill)
    raise AssertionError(how)
