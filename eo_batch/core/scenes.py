"""One satellite scene as every later step sees it, whatever catalogue it came from."""

from dataclasses import dataclass
from datetime import date, datetime

Affine6 = tuple[float, float, float, float, float, float]
"""(a, b, c, d, e, f): x = a*col + b*row + c, y = d*col + e*row + f, of pixel corners."""
SceneKey = tuple[str, str, datetime]
"""Collection, id and time."""


def pair_days(pair: str) -> int:
    """Days between the two dates of a pair such as `2018-01-06/2018-01-30`."""
    first, second = (date.fromisoformat(day) for day in pair.split("/"))
    return (second - first).days


@dataclass(frozen=True)
class Asset:
    """One file of a scene."""

    band: str
    """Canonical band name, or `SCL`."""
    href: str
    """Absolute address, without query or token."""
    epsg: int | None
    """CRS of the file if the catalogue tells."""
    transform: Affine6 | None
    """Georeference if the catalogue tells; the file's own header has the last word."""
    shape: tuple[int, int] | None
    """(rows, columns) if the catalogue tells."""
    nodata: float | None
    """Value of pixels without data if the catalogue tells."""
    scale: float
    """value = (stored + offset_dn) * scale, in the unit `db` or the kind's own."""
    offset_dn: float
    """Added to every valid stored value. For Sentinel-2 what is left to correct: 0 or -1000."""
    offset_reason: str
    """How `offset_dn` was decided, for the receipt."""
    db: bool
    """Whether the values are decibels."""


@dataclass(frozen=True)
class Scene:
    """One acquisition over one tile."""

    scene_id: str
    collection: str
    sensor: str
    """Name of the sensor in the run spec."""
    moment: datetime
    """Acquisition time, UTC; the middle of an interval."""
    bbox: tuple[float, float, float, float]
    """(west, south, east, north), degrees; west > east crosses the antimeridian."""
    tile: str
    """Tile name, or the scene's id where there is none."""
    platform: str
    baseline: str | None
    """Processing baseline as `NN.NN`, Sentinel-2 only."""
    orbit_state: str | None
    """`ascending` or `descending`, Sentinel-1 only."""
    relative_orbit: int | None
    cloud_pct: float | None
    """Cloud cover of the whole scene, percent (0 to 100)."""
    assets: tuple[Asset, ...]
    spare: tuple[Asset, ...] = ()
    """Files of an older processing of the same sensing; read where a chosen file is broken."""
    spare_id: str | None = None
    """Id of the scene that `spare` belongs to."""
    refusal: str | None = None
    """Why the scene can't be used; kept so that the ledger can tell."""
    pair: str | None = None
    """Interferograms: the two days, `2018-01-06/2018-01-30`; several pairs can share a date."""
    ambiguous: bool = False
    """Whether the refusal is about the meaning of the numbers, which only a person can settle."""

    @property
    def key(self) -> SceneKey:
        """What tells scenes of one sensor apart: an id is unique within its collection only."""
        return self.collection, self.scene_id, self.moment

    def asset(self, band: str) -> Asset | None:
        """The scene's file of a band."""
        return next((asset for asset in self.assets if asset.band == band), None)

    def spare_asset(self, band: str) -> Asset | None:
        """The spare file of a band."""
        return next((asset for asset in self.spare if asset.band == band), None)
