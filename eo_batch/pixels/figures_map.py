"""Maps as SVG: chips as squares at their place, with a graticule and a scale bar.

The projection is equirectangular around the middle latitude: at the size of a run's area its shapes are
those that a person knows from web maps, and north is up.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eo_batch.pixels.figures_svg import figure, label, nice_step, short, tag, ticks, title

KM_PER_DEG = 111.195
"""Kilometres per degree of latitude on a sphere of the Earth's mean radius."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 62.0, 10.0, 8.0, 40.0
"""Margins around the map, for labels, in pixels."""
_MIN_SIDE_PX, _MAX_SIDE_PX = 90.0, 560.0


@dataclass(frozen=True)
class Square:
    """The outline of one chip, or of one block of chips."""

    lon: tuple[float, ...]
    """Longitudes of the corners, degrees, unwrapped: neighbours differ by less than 180."""
    lat: tuple[float, ...]
    """Latitudes of the corners, degrees."""
    words: str
    """What a person reads when the mouse rests on it."""


@dataclass(frozen=True)
class Paint:
    """How a square is drawn."""

    fill: str
    """A colour, or a CSS class with a leading dot."""
    words: str = ""
    """What the colour means here, added to the square's own words."""


@dataclass(frozen=True)
class Frame:
    """From longitude and latitude to pixels of a drawing."""

    west: float
    """Degrees."""
    south: float
    east: float
    north: float
    width_px: float
    """Of the map without margins."""

    @property
    def _px_per_deg(self) -> float:
        return self.width_px / (self.east - self.west)

    @property
    def squeeze(self) -> float:
        """Length of a degree of longitude relative to one of latitude."""
        return max(math.cos(math.radians((self.south + self.north) / 2)), 0.02)

    @property
    def height_px(self) -> float:
        """Of the map without margins."""
        return (self.north - self.south) * self._px_per_deg / self.squeeze

    @property
    def km_per_px(self) -> float:
        """Ground length of a pixel at the middle latitude."""
        return KM_PER_DEG * self.squeeze / self._px_per_deg

    def x(self, lon: float) -> float:
        """Pixels from the drawing's left edge."""
        return _LEFT + (lon - self.west) * self._px_per_deg

    def y(self, lat: float) -> float:
        """Pixels from the drawing's top edge."""
        return _TOP + (self.north - lat) * self._px_per_deg / self.squeeze


def unwrapped(lon: NDArray[np.float64], around: float) -> NDArray[np.float64]:
    """Longitudes shifted by whole turns to lie within 180 degrees of `around`."""
    return np.asarray(around + (lon - around + 180.0) % 360.0 - 180.0, np.float64)


def frame_of(squares: Sequence[Square], width_px: float) -> Frame:
    """The frame that holds all squares, no wider than `width_px` and no higher than a screen.

    Raises ValueError if there is none.
    """
    if not squares:
        raise ValueError("a map needs at least one square")
    lons = [value for square in squares for value in square.lon]
    lats = [value for square in squares for value in square.lat]
    west, east, south, north = min(lons), max(lons), min(lats), max(lats)
    pad = 0.02 * max(east - west, north - south)
    west, east, south, north = west - pad, east + pad, max(south - pad, -90.0), min(north + pad, 90.0)
    frame = Frame(west, south, east, north, width_px)
    if frame.height_px > _MAX_SIDE_PX:
        frame = Frame(west, south, east, north, max(width_px * _MAX_SIDE_PX / frame.height_px, _MIN_SIDE_PX))
    return frame


def map_figure(
    frame: Frame, squares: Sequence[Square], paints: Sequence[Paint], about: str, one_by_one: bool = True
) -> str:
    """A map as SVG; later squares lie on earlier ones.

    one_by_one: every square is an element with its words; otherwise squares of one colour share a path, which
    is far shorter and says nothing under the mouse.
    """
    width, height = _LEFT + frame.width_px + _RIGHT, _TOP + frame.height_px + _BOTTOM
    drawn = _each(frame, squares, paints) if one_by_one else _joined(frame, squares, paints)
    border = tag("rect", x=_LEFT, y=_TOP, width=frame.width_px, height=frame.height_px, class_="frame")
    return figure(width, height, [*_graticule(frame), *drawn, border, *_scale_bar(frame)], about)


def _each(frame: Frame, squares: Sequence[Square], paints: Sequence[Paint]) -> list[str]:
    return [
        tag(
            "path",
            title("\n".join(part for part in (square.words, paint.words) if part)),
            d=_outline(frame, square),
            **_style(paint.fill),
        )
        for square, paint in zip(squares, paints, strict=True)
    ]


def _joined(frame: Frame, squares: Sequence[Square], paints: Sequence[Paint]) -> list[str]:
    groups: dict[str, list[str]] = {}
    for square, paint in zip(squares, paints, strict=True):
        groups.setdefault(paint.fill, []).append(_outline(frame, square))
    return [tag("path", d="".join(outlines), **_style(fill)) for fill, outlines in groups.items()]


def _style(fill: str) -> Mapping[str, str]:
    return {"class_": f"chip {fill[1:]}"} if fill.startswith(".") else {"class_": "chip", "fill": fill}


def _outline(frame: Frame, square: Square) -> str:
    places = zip(square.lon, square.lat, strict=True)
    corners = [f"{short(frame.x(lon), 1)} {short(frame.y(lat), 1)}" for lon, lat in places]
    return "M" + "L".join(corners) + "Z"


def _graticule(frame: Frame) -> list[str]:
    """Lines of whole steps with their labels left of and below the map."""
    right, bottom = _LEFT + frame.width_px, _TOP + frame.height_px
    parts = []
    # A label of longitude is some 60 pixels wide, one of latitude some 30 high with its surroundings.
    for lon in ticks(frame.west, frame.east, max(int(frame.width_px // 90), 1)):
        x = frame.x(lon)
        parts.append(tag("line", x1=x, y1=_TOP, x2=x, y2=bottom, class_="grid"))
        parts.append(label(_degrees((lon + 180.0) % 360.0 - 180.0, "E", "W"), x, bottom + 15, "middle"))
    for lat in ticks(frame.south, frame.north, max(int(frame.height_px // 60), 1)):
        y = frame.y(lat)
        parts.append(tag("line", x1=_LEFT, y1=y, x2=right, y2=y, class_="grid"))
        parts.append(label(_degrees(lat, "N", "S"), _LEFT - 5, y + 4, "end"))
    return parts


def _scale_bar(frame: Frame) -> list[str]:
    length_km = nice_step(frame.width_px * frame.km_per_px, 5)
    x1, y = _LEFT + frame.width_px, _TOP + frame.height_px + 30
    x0 = x1 - length_km / frame.km_per_px
    words = f"{length_km:g} km" if length_km >= 1 else f"{length_km * 1000:g} m"
    ends = [tag("line", x1=x, y1=y - 3, x2=x, y2=y + 3, class_="bar") for x in (x0, x1)]
    return [tag("line", x1=x0, y1=y, x2=x1, y2=y, class_="bar"), *ends, label(words, x0 - 6, y + 4, "end")]


def _degrees(value: float, positive: str, negative: str) -> str:
    side = "" if value == 0 else positive if value > 0 else negative
    return f"{short(abs(value), 4)}° {side}".rstrip()
