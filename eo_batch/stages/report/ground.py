"""The chips on the ground: outlines for maps, one a chip, or one a block where chips would be too many to draw."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import shapely

from eo_batch.core.splits import Split
from eo_batch.pixels.figures_map import Paint, Square, frame_of, map_figure, unwrapped

MOST_SQUARES = 5000
"""Above this many chips a map shows blocks: more squares make a heavy page and are too small to see."""
MOST_WORDY_SQUARES = 700
"""Above this many squares a map says nothing under the mouse, so that the page stays light."""

MOST_SITES = 6
"""Above this many separate sites all lie on one map."""
_JUDGED_PX = 330.0
"""Width of the map on which it is judged whether squares are too small to see."""
_SMALL_PX = 4.0
_VISIBLE_PX = 2.0
_NARROW_PX = 130.0


@dataclass(frozen=True)
class Chip:
    """One chip as maps and the gallery need it."""

    chip_id: str
    lon: float
    """Centre, degrees."""
    lat: float
    owner: bool
    """Whether it counts its ground; its neighbour in the next zone holds the same ground otherwise."""
    split: Split
    block: str
    slot: int
    """Position in the cube."""
    square: Square
    valid: Mapping[tuple[str, str], float]
    """Share of valid pixels, by sensor and time bin."""


@dataclass(frozen=True)
class Ground:
    """All chips of a run."""

    chips: tuple[Chip, ...]
    """Chips across a zone's edge first, so that a map draws owners over them."""

    @cached_property
    def owners(self) -> tuple[Chip, ...]:
        """The chips that count ground, each piece once."""
        return tuple(chip for chip in self.chips if chip.owner)

    @cached_property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The chips (by position) behind each square of a map."""
        if not self.by_block:
            return tuple((i,) for i in range(len(self.chips)))
        members: dict[str, list[int]] = {}
        for i, chip in enumerate(self.chips):
            members.setdefault(chip.block, []).append(i)
        return tuple(tuple(group) for group in members.values())

    @property
    def by_block(self) -> bool:
        """Whether a map's squares are blocks."""
        return len(self.chips) > MOST_SQUARES

    @cached_property
    def squares(self) -> tuple[Square, ...]:
        """The squares of a map."""
        return tuple(self._square(group) for group in self.groups)

    def _square(self, group: Sequence[int]) -> Square:
        if not self.by_block:
            return self.chips[group[0]].square
        lons = [value for i in group for value in self.chips[i].square.lon]
        lats = [value for i in group for value in self.chips[i].square.lat]
        west, east, south, north = min(lons), max(lons), min(lats), max(lats)
        words = f"block {self.chips[group[0]].block}, {len(group)} chips"
        return Square((west, east, east, west), (north, north, south, south), words)

    @cached_property
    def sites(self) -> tuple[tuple[int, ...], ...]:
        """Squares (by position) that share a map: all of them, or each of a few sites that lie far apart."""
        found = sites_of(self.squares) if self._side_px < _SMALL_PX else ()
        return found if 1 < len(found) <= MOST_SITES else (tuple(range(len(self.squares))),)

    @property
    def magnified(self) -> float:
        """How much larger than they are squares of a map are drawn, to be seen at all."""
        return max(_VISIBLE_PX / self._side_px, 1.0) if len(self.sites) == 1 else 1.0

    @cached_property
    def _side_px(self) -> float:
        """Side of a square if all share a map."""
        whole, first = frame_of(self.squares, _JUDGED_PX), self.squares[0]
        return whole.x(max(first.lon)) - whole.x(min(first.lon))

    def map(self, paint: Callable[[Sequence[Chip]], Paint], about: str, width_px: float) -> str:
        """A map whose squares are painted by the chips behind them; one for each site that lies far from others."""
        paints = [paint([self.chips[i] for i in group]) for group in self.groups]
        wordy = len(self.squares) <= MOST_WORDY_SQUARES
        width_px = max(width_px / len(self.sites), _NARROW_PX)
        maps = []
        for number, site in enumerate(self.sites, start=1):
            squares = [_magnified(self.squares[i], self.magnified) for i in site]
            said = f"{about}; site {number} of {len(self.sites)}" if len(self.sites) > 1 else about
            maps.append(map_figure(frame_of(squares, width_px), squares, [paints[i] for i in site], said, wordy))
        return f'<div class="maps">{"".join(maps)}</div>'


def _magnified(square: Square, factor: float) -> Square:
    if factor == 1:
        return square
    lon, lat = (tuple(np.mean(c) + factor * (np.array(c) - np.mean(c))) for c in (square.lon, square.lat))
    return Square(lon, lat, square.words)


def sites_of(squares: Sequence[Square]) -> tuple[tuple[int, ...], ...]:
    """Groups of squares (by position) with gaps of at most three squares inside, in the order of first squares."""
    boxes = [shapely.box(min(s.lon), min(s.lat), max(s.lon), max(s.lat)) for s in squares]
    grown = [box.buffer(1.5 * (box.bounds[2] - box.bounds[0]), join_style="mitre") for box in boxes]
    merged = shapely.get_parts(shapely.union_all(grown))
    tree = shapely.STRtree(merged)
    members: dict[int, list[int]] = {}
    for i, box in enumerate(boxes):
        members.setdefault(int(tree.query(box.centroid, predicate="intersects")[0]), []).append(i)
    return tuple(tuple(group) for group in members.values())


def ground_of(chips: pa.Table) -> Ground:
    """The chips of `chips.parquet`."""
    columns = [name for name in chips.column_names if name.startswith("valid:")]
    keys = {name: tuple(name.removeprefix("valid:").split(":", 1)) for name in columns}
    rows = chips.to_pylist()
    around = rows[0]["lon"] if rows else 0.0
    found = []
    for row in rows:
        corners = shapely.get_coordinates(shapely.from_wkb(row["geometry"]))[:-1]
        lon = unwrapped(corners[:, 0], around)
        valid = {(k[0], k[1]): row[name] for name, k in keys.items() if row[name] is not None}
        square = Square(tuple(map(float, lon)), tuple(map(float, corners[:, 1])), row["chip_id"])
        found.append(
            Chip(
                chip_id=row["chip_id"],
                lon=float(unwrapped(np.array(row["lon"], np.float64), around)),
                lat=row["lat"],
                owner=row["owner"],
                split=row["split"],
                block=row["block"],
                slot=row["slot"],
                square=square,
                valid=valid,
            )
        )
    return Ground(tuple(sorted(found, key=lambda chip: (chip.owner, chip.chip_id))))
