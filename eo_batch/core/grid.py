"""The chip lattice: squares of `chip_m` metres per UTM zone, anchored at the zone's origin.

Cell (row, col) covers x in [col, col+1) * chip_m and y in [row, row+1) * chip_m of its zone; rows
count northwards. Cells that touch both the area and the zone's strip are kept. The zone of a point
is that of its longitude, so every point of the area lies in exactly one kept cell of its own zone;
a cell whose centre lies in its strip is the owner of its ground, and statistics use owners only.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import overload

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon

from eo_batch.core.columns import Columns
from eo_batch.core.errors import UsageError
from eo_batch.core.utm import WGS84, Floats, Zone, project, zone_of_epsg

_SEGMENT_DEG = 0.02
"""Longest piece of an edge projected as a straight line; its sagitta stays below a metre (see _SLACK_M)."""
_SLACK_M = 1.0
_ZONE = r"u(0[1-9]|[1-5]\d|60)([ns])"
_ID = re.compile(_ZONE + r"-([1-9]\d*)m-r(-?\d+)-c(-?\d+)")
_BLOCK_KEY = re.compile(_ZONE + r"-([1-9]\d*)m-([1-9]\d*)x\4-r(-?\d+)-c(-?\d+)")


@dataclass(frozen=True, order=True)
class Cell:
    """One square of the lattice: the ground of one chip."""

    epsg: int
    row: int
    """Counts northwards from the zone's y = 0."""
    col: int
    """Counts eastwards from the zone's x = 0."""
    chip_m: int
    """Side, metres."""

    @property
    def chip_id(self) -> str:
        """The same ground has the same id in every run."""
        return _chip_id_of_zone(self.epsg, self.chip_m).format(self.row, self.col)

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """(x_min, y_min, x_max, y_max), metres in `epsg`."""
        x0, y0 = self.col * self.chip_m, self.row * self.chip_m
        return x0, y0, x0 + self.chip_m, y0 + self.chip_m


def _chip_id_of_zone(epsg: int, chip_m: int) -> str:
    return f"u{zone_of_epsg(epsg).name}-{chip_m}m-r{{:05d}}-c{{:05d}}"


def chip_ids(epsg: NDArray[np.int32], row: NDArray[np.int32], col: NDArray[np.int32], chip_m: int) -> list[str]:
    """Ids of many cells, as `Cell.chip_id`."""
    zones = {zone: _chip_id_of_zone(zone, chip_m) for zone in np.unique(epsg).tolist()}
    numbers = zip(epsg.tolist(), row.tolist(), col.tolist(), strict=True)
    return [zones[zone].format(r, c) for zone, r, c in numbers]


def parse_chip_id(chip_id: str) -> Cell:
    """The cell of a chip id. Raises UsageError if it is none."""
    match = _ID.fullmatch(chip_id)
    if not match:
        raise UsageError(f"{chip_id!r} is not a chip id; one looks like u33n-2560m-r01992-c00195")
    number, hemisphere, chip_m, row, col = match.groups()
    return Cell(Zone(int(number), hemisphere == "n").epsg, int(row), int(col), int(chip_m))


def outline(cell: Cell) -> shapely.Polygon:
    """The cell in longitude and latitude, its corners counter-clockwise; longitudes do not wrap within it."""
    x_min, y_min, x_max, y_max = cell.bounds
    x, y = np.array([x_min, x_max, x_max, x_min], float), np.array([y_min, y_min, y_max, y_max], float)
    lon, lat = project(cell.epsg, WGS84, x, y)
    return shapely.Polygon(np.column_stack([lon[0] + (lon - lon[0] + 180) % 360 - 180, lat]))


@dataclass(frozen=True)
class PlannedCell:
    """A cell that the area touches."""

    cell: Cell
    owner: bool
    """Whether the cell's centre lies in its own zone's strip."""
    lon: float
    """Centre, degrees."""
    lat: float


@dataclass(frozen=True, eq=False)
class Cells(Columns, Sequence[PlannedCell]):
    """The cells that an area touches, ordered by (epsg, row, col), as columns of equal length."""

    chip_m: int
    """Side of every cell, metres."""
    epsg: NDArray[np.int32]
    row: NDArray[np.int32]
    col: NDArray[np.int32]
    owner: NDArray[np.bool_]
    """Whether a cell's centre lies in its own zone's strip."""
    lon: Floats
    """Centres, degrees."""
    lat: Floats

    def __len__(self) -> int:
        return len(self.epsg)

    @overload
    def __getitem__(self, at: int) -> PlannedCell: ...
    @overload
    def __getitem__(self, at: slice) -> list[PlannedCell]: ...
    def __getitem__(self, at: int | slice) -> PlannedCell | list[PlannedCell]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        cell = Cell(int(self.epsg[at]), int(self.row[at]), int(self.col[at]), self.chip_m)
        return PlannedCell(cell, bool(self.owner[at]), float(self.lon[at]), float(self.lat[at]))

    def chip_ids(self) -> list[str]:
        """Ids of all cells, in order."""
        return chip_ids(self.epsg, self.row, self.col, self.chip_m)

    def blocks(self, side: int) -> "tuple[Block, ...]":
        """Blocks of `side` x `side` cells with at least one of these, ordered by (epsg, row, col)."""
        return self.blocks_and_places(side)[0]

    def blocks_and_places(self, side: int) -> "tuple[tuple[Block, ...], NDArray[np.bool_]]":
        """The same, and which places of each block have one of these cells: (block, place)."""
        keys = np.column_stack([self.epsg, self.row // side, self.col // side])
        found, block_n = np.unique(keys, axis=0, return_inverse=True)
        places = np.zeros((len(found), side * side), bool)
        places[block_n.ravel(), self.row % side * side + self.col % side] = True
        return tuple(Block(epsg, row, col, self.chip_m, side) for epsg, row, col in found.tolist()), places

    def of_block(self, block: "Block") -> list[Cell]:
        """Those of these cells that lie in a block, in block order."""
        inside = (
            (self.epsg == block.epsg) & (self.row // block.side == block.row) & (self.col // block.side == block.col)
        )
        return [self[int(i)].cell for i in np.flatnonzero(inside)]  # rows of the lattice first: that is block order


_CELL_COLUMNS = ("epsg", "row", "col", "owner", "lon", "lat")


def cells_of_area(area: MultiPolygon, chip_m: int) -> Cells:
    """All kept cells of an area given in longitude and latitude."""
    found = [_cells_of_zone(area, zone, chip_m) for zone in zones_of_area(area)]
    columns = {name: np.concatenate([getattr(cells, name) for cells in found]) for name in _CELL_COLUMNS}
    order = np.lexsort((columns["col"], columns["row"], columns["epsg"]))
    return Cells(chip_m, **{name: column[order] for name, column in columns.items()})


def zones_of_area(area: MultiPolygon) -> Iterator[Zone]:
    """Zones whose strip shares ground with the area."""
    for number in range(1, 61):
        for north in (True, False):
            zone = Zone(number, north)
            if area.intersects(zone.strip) and area.intersection(zone.strip).area > 0:
                yield zone


def _cells_of_zone(area: MultiPolygon, zone: Zone, chip_m: int) -> Cells:
    clipped = shapely.segmentize(area.intersection(zone.strip), _SEGMENT_DEG)
    projected = shapely.transform(clipped, partial(_lonlat_to, zone.epsg))
    ground = projected.buffer(_SLACK_M)
    shapely.prepare(ground)
    x_min, y_min, x_max, y_max = ground.bounds
    cols = np.arange(math.floor(x_min / chip_m), math.floor(x_max / chip_m) + 1)
    rows = np.arange(math.floor(y_min / chip_m), math.floor(y_max / chip_m) + 1)
    row_rc, col_rc = (part.ravel() for part in np.meshgrid(rows, cols, indexing="ij"))
    squares = shapely.box(col_rc * chip_m, row_rc * chip_m, (col_rc + 1) * chip_m, (row_rc + 1) * chip_m)
    kept = shapely.intersects(ground, squares)
    row_k, col_k = row_rc[kept].astype(np.int32), col_rc[kept].astype(np.int32)
    middle_x, middle_y = ((index + 0.5).astype(np.float64) * chip_m for index in (col_k, row_k))
    lon, lat = project(zone.epsg, WGS84, middle_x, middle_y)
    # Longitudes wrap at the antimeridian: compare as a distance from the zone's western edge.
    owner = ((lon - zone.west) % 360.0 < 6.0) & ((lat >= 0.0) == zone.north)
    return Cells(chip_m, np.full(len(row_k), zone.epsg, np.int32), row_k, col_k, owner, lon, lat)


def _lonlat_to(epsg: int, lonlat_n2: Floats) -> Floats:
    return np.column_stack(project(WGS84, epsg, lonlat_n2[:, 0], lonlat_n2[:, 1]))


@dataclass(frozen=True, order=True)
class Block:
    """A square of `side` x `side` cells: the chips that share one Zarr shard."""

    epsg: int
    row: int
    """Row of cells divided by `side`, rounded down."""
    col: int
    chip_m: int
    side: int

    @property
    def key(self) -> str:
        """Stable name, part of shard keys."""
        return f"u{zone_of_epsg(self.epsg).name}-{self.chip_m}m-{self.side}x{self.side}-r{self.row:05d}-c{self.col:05d}"

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """(x_min, y_min, x_max, y_max), metres in `epsg`."""
        size = self.chip_m * self.side
        x0, y0 = self.col * size, self.row * size
        return x0, y0, x0 + size, y0 + size

    def place(self, cell: Cell) -> int:
        """Position of a cell inside the block, row-major with rows counting northwards."""
        return (cell.row - self.row * self.side) * self.side + cell.col - self.col * self.side

    def cell(self, place: int) -> Cell:
        """The cell at a place, as `place` counts."""
        row, col = divmod(place, self.side)
        return Cell(self.epsg, self.row * self.side + row, self.col * self.side + col, self.chip_m)

    def cells(self) -> list[Cell]:
        """All cells in `place` order."""
        return [self.cell(place) for place in range(self.side**2)]


def block_longitude(block: Block) -> float:
    """Longitude of a block's centre, degrees."""
    x_min, y_min, x_max, y_max = block.bounds
    lon, _ = project(block.epsg, WGS84, np.array([(x_min + x_max) / 2]), np.array([(y_min + y_max) / 2]))
    return float(lon[0])


def parse_block_key(key: str) -> Block:
    """The block of a key as `Block.key` writes it. Raises UsageError if it is none."""
    match = _BLOCK_KEY.fullmatch(key)
    if not match:
        raise UsageError(f"{key!r} is not a block; one looks like u33n-2560m-8x8-r00249-c00024")
    number, hemisphere, chip_m, side, row, col = match.groups()
    return Block(Zone(int(number), hemisphere == "n").epsg, int(row), int(col), int(chip_m), int(side))


def block_of(cell: Cell, side: int) -> Block:
    """The block that holds a cell."""
    return Block(cell.epsg, cell.row // side, cell.col // side, cell.chip_m, side)
