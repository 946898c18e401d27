"""What the simulated planet is: a small, seeded world whose truth is known at every point.

The planet exists so that alignment, radiometry, cloud masks and learning can be tested against exact
values without a network. `eo_batch.pixels.planet` turns a spec into functions of longitude and latitude.
"""

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Collection = Literal["sentinel-2-l2a", "sentinel-1-rtc", "coherence", "dem", "landcover"]
S2Band = Literal["B02", "B03", "B04", "B08", "B11"]
COLLECTIONS: tuple[Collection, ...] = ("sentinel-2-l2a", "sentinel-1-rtc", "coherence", "dem", "landcover")

EARTH_RADIUS_M = 6_371_008.8
"""Mean radius (IUGG), metres: the planet's plane is equirectangular with this radius."""


@dataclass(frozen=True)
class LandClass:
    """One class of the land-cover raster."""

    code: int
    """Value in the raster; 0 means no data."""
    name: str
    """As in `classification:classes`."""
    colour: str
    """Hexadecimal RGB, without #."""
    grain_deg: float | None
    """Direction in which the texture varies fastest, degrees counter-clockwise from east; None: none."""


LAND_CLASSES = (
    LandClass(10, "grain-000", "006400", 0.0),
    LandClass(20, "grain-045", "ffbb22", 45.0),
    LandClass(30, "grain-090", "ffff4c", 90.0),
    LandClass(40, "grain-135", "f096ff", 135.0),
    LandClass(50, "built-up", "fa0000", None),
    LandClass(80, "water", "0064c8", None),
)
"""Texture classes share mean and distribution in every sensor; only the direction of their grain differs."""
BUILT_UP, WATER = 50, 80
TEXTURE_CODES = tuple(c.code for c in LAND_CLASSES if c.grain_deg is not None)

S2_BANDS: tuple[S2Band, ...] = ("B02", "B03", "B04", "B08", "B11")
COHERENCE_DAYS = (6, 24)
"""Temporal baselines of the coherence rasters, days."""


@dataclass(frozen=True)
class S2Convention:
    """How one publisher writes reflectance into digital numbers."""

    baseline: str
    """`s2:processing_baseline`."""
    offset_applied: bool
    """`earthsearch:boa_offset_applied`: whether the publisher removed the offset."""
    dn_offset: int
    """DN = 10000 * reflectance + dn_offset."""
    stated_offset: float
    """`raster:bands.offset` as the item states it, right or wrong."""


S2_CONVENTIONS = (
    S2Convention("05.09", True, 0, -0.1),
    S2Convention("04.00", False, 1000, -0.1),
    S2Convention("02.14", False, 0, 0.0),
)
"""Harmonised (which states an offset that is already gone), not harmonised, old; rotated by tile and date."""


def on_globe(bbox: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """A box whose longitudes go on beyond ±180 as RFC 7946 writes it: west > east crosses the antimeridian."""
    west, south, east, north = bbox
    west += 360 * (west < -180) - 360 * (west >= 180)
    east += 360 * (east <= -180) - 360 * (east > 180)
    return west, south, east, north


class PlanetSpec(BaseModel):
    """A simulated planet. The same spec gives the same bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    seed: Annotated[int, Field(ge=0)] = 7
    """Seed of everything that is drawn; another seed is another planet with the same statistics."""

    centre_lon: Annotated[float, Field(ge=-180, le=180)] = 12.0
    """Longitude of the centre, degrees; a multiple of 6 lies on the edge of two UTM zones."""

    centre_lat: Annotated[float, Field(ge=-79, le=79)] = 48.0
    """Latitude of the centre, degrees."""

    width_km: Annotated[float, Field(gt=0, le=100)] = 16.0
    """West-east size of the area, kilometres."""

    height_km: Annotated[float, Field(gt=0, le=100)] = 12.0
    """South-north size of the area, kilometres."""

    margin_km: Annotated[float, Field(ge=0, le=20)] = 0.65
    """How far the rasters reach beyond the area on every side, so that chips across its edge are whole."""

    tile_km: Annotated[float, Field(gt=0)] = 7.4
    """Side of a Sentinel-2 tile, kilometres; a whole number of 2 * gsd_m."""

    overlap_km: Annotated[float, Field(ge=0)] = 1.0
    """How far neighbouring tiles overlap, and how far tiles and frames reach into the next UTM zone."""

    gsd_m: Annotated[int, Field(ge=1)] = 10
    """Pixel size of the fine Sentinel-2 bands and of Sentinel-1, metres; coarse bands have twice that."""

    start: date = date(2023, 6, 3)
    """Day of the first acquisition (UTC)."""

    s2_dates: Annotated[int, Field(ge=1, le=100)] = 4
    """Number of Sentinel-2 acquisitions."""

    s2_spacing_days: Annotated[int, Field(ge=1)] = 5
    """Days between Sentinel-2 acquisitions."""

    s1_dates: Annotated[int, Field(ge=1, le=100)] = 4
    """Number of Sentinel-1 acquisitions; the even ones are ascending, the odd ones descending."""

    s1_spacing_days: Annotated[int, Field(ge=1)] = 6
    """Days between Sentinel-1 acquisitions."""

    collections: tuple[Collection, ...] = COLLECTIONS
    """Which collections are written."""

    s2_bands: Annotated[tuple[S2Band, ...], Field(min_length=1)] = S2_BANDS
    """Which Sentinel-2 bands are written, beside the scene classification."""

    cloud_share: Annotated[float, Field(ge=0, le=0.9)] = 0.2
    """Expected share of ground under cloud (classes 8 and 9) at each Sentinel-2 acquisition."""

    haze: Annotated[float, Field(ge=0, le=0.2)] = 0.03
    """Typical reflectance that haze adds to the blue band; smooth and independent of class."""

    s2_noise: Annotated[float, Field(ge=0, le=0.5)] = 0.08
    """Standard deviation of the noise of one Sentinel-2 pixel, as a share of its reflectance."""

    s1_looks: Annotated[float, Field(ge=1, le=100)] = 4.4
    """Equivalent number of looks of the speckle."""

    patch_m: Annotated[float, Field(gt=0)] = 500.0
    """Typical size of a patch of one class, metres."""

    rare_share: Annotated[float, Field(gt=0, le=0.2)] = 0.04
    """Share of water, and likewise of built-up."""

    grain_m: Annotated[float, Field(gt=0)] = 70.0
    """Centre wavelength of the texture, metres; the band is ±20 % around it."""

    grain_spread_deg: Annotated[float, Field(ge=0, lt=90)] = 15.0
    """Largest deviation of a texture wave from its class's direction, degrees."""

    s1_contrast: Annotated[float, Field(ge=0, le=1)] = 0.4
    """Standard deviation of the texture in ln(gamma0)."""

    s2_contrast: Annotated[float, Field(ge=0, le=1)] = 0.12
    """Standard deviation of the texture in ln(reflectance)."""

    nuisance: Annotated[float, Field(ge=0, le=1)] = 0.15
    """Standard deviation, in ln(gamma0) and ln(reflectance), of smooth variation independent of class."""

    relief_m: Annotated[float, Field(ge=0)] = 120.0
    """Standard deviation of the elevation, metres."""

    dem_class_correlation: Annotated[float, Field(ge=-1, le=1)] = 0.0
    """Correlation of the elevation with what decides between the texture classes (10, 20 against 30, 40)."""

    shift_db: float = 0.0
    """Added to every gamma0, dB: makes a second area that a model has not seen."""

    shift_reflectance: Annotated[float, Field(ge=0, le=0.3)] = 0.0
    """Added to every reflectance."""

    dem_arcsec: Annotated[float, Field(gt=0)] = 1.0
    """Pixel size of the elevation in EPSG:4326, seconds of arc; a whole number of them makes a degree."""

    coherence_arcsec: Annotated[float, Field(gt=0)] = 3.0
    """Pixel size of the coherence in EPSG:4326, seconds of arc; a whole number of them makes a degree."""

    label_arcsec: Annotated[float, Field(gt=0)] = 0.3
    """Pixel size of the land cover in EPSG:4326, seconds of arc; a whole number of them makes a degree."""

    labels_in_utm: bool = False
    """Write the land cover in the UTM zone of the centre, with pixels of gsd_m, instead of EPSG:4326."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        coarse_m = 2 * self.gsd_m
        for name in ("tile_km", "overlap_km"):
            size_m = getattr(self, name) * 1000
            if abs(size_m / coarse_m - round(size_m / coarse_m)) > 1e-9:
                msg = f"{name}={size_m / 1000:g} is not a multiple of 2 * gsd_m = {coarse_m} m; round it"
                raise ValueError(msg)
        if self.overlap_km >= self.tile_km:
            msg = f"overlap_km={self.overlap_km:g} is not below tile_km={self.tile_km:g}; make tiles larger"
            raise ValueError(msg)
        for name in ("dem_arcsec", "coherence_arcsec", "label_arcsec"):
            pixels = 3600 / getattr(self, name)
            if abs(pixels - round(pixels)) > 1e-6:
                msg = f"{name}={getattr(self, name):g} does not divide a degree (3600); use 0.3, 1 or 3"
                raise ValueError(msg)
        return self

    @classmethod
    def tiny(cls, **changes: object) -> "PlanetSpec":
        """A planet of 3 x 3 km with two dates per sensor, for tests; `changes` override its fields."""
        small: dict[str, object] = {
            "width_km": 3.0, "height_km": 3.0, "margin_km": 0.32, "tile_km": 2.4, "overlap_km": 0.4,
            "s2_dates": 2, "s1_dates": 2, "patch_m": 400.0,
        }  # fmt: skip
        return cls.model_validate(small | changes)

    def plane_bbox_m(self, margin_km: float = 0.0) -> tuple[float, float, float, float]:
        """(x_min, y_min, x_max, y_max) of the area grown by `margin_km`, metres in the planet's plane."""
        half_x, half_y = (500 * size + 1000 * margin_km for size in (self.width_km, self.height_km))
        return -half_x, -half_y, half_x, half_y

    def lonlat_bbox(self, margin_km: float = 0.0) -> tuple[float, float, float, float]:
        """(west, south, east, north) of the area grown by `margin_km`, degrees; longitudes go on beyond ±180."""
        _, _, half_x, half_y = self.plane_bbox_m(margin_km)
        d_lat = math.degrees(half_y / EARTH_RADIUS_M)
        d_lon = math.degrees(half_x / (EARTH_RADIUS_M * math.cos(math.radians(self.centre_lat))))
        lon, lat = self.centre_lon, self.centre_lat
        return lon - d_lon, lat - d_lat, lon + d_lon, lat + d_lat

    @property
    def area_bbox(self) -> tuple[float, float, float, float]:
        """(west, south, east, north) of the area, degrees: what a run asks for. All rasters cover it.

        West > east crosses the antimeridian.
        """
        return on_globe(self.lonlat_bbox())

    def s2_time(self, day: int) -> datetime:
        """Sensing time of Sentinel-2 acquisition `day` (0-based), UTC."""
        first = datetime.combine(self.start, time(10, 10, 31), UTC)
        return first + timedelta(days=day * self.s2_spacing_days)

    def s1_time(self, day: int) -> datetime:
        """Time of Sentinel-1 acquisition `day` (0-based), UTC: evenings ascend, mornings descend."""
        clock = time(16, 58, 12) if day % 2 == 0 else time(5, 17, 40)
        return datetime.combine(self.start, clock, UTC) + timedelta(days=day * self.s1_spacing_days)
