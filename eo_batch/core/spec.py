"""The run spec: what to make, never where to run it.

Frozen, unknown keys refused, every field documented with its unit. Sections map to stages, so that
a stage's prefix depends only on the sections it reads (see `core/identity.py`).
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator
from shapely.geometry import MultiPolygon

from eo_batch.core.area import area_from_bbox, area_from_geojson
from eo_batch.core.learning import EmbedSpec, PretrainSpec, ProbeSpec
from eo_batch.core.section import Section
from eo_batch.core.sensors import SCL_INVALID, SENSOR_KINDS, VECTORS, Band, Kind, SensorKind
from eo_batch.core.timespec import TimeSpec


class AreaSpec(Section):
    """Where. Give exactly one of the two."""

    bbox: tuple[float, float, float, float] | None = None
    """[west, south, east, north], degrees; west > east crosses the antimeridian."""
    geojson: dict[str, Any] | None = None
    """GeoJSON Polygon, MultiPolygon, Feature or FeatureCollection in longitude and latitude, degrees."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.bbox is None) == (self.geojson is None):
            raise ValueError("give exactly one of area.bbox and area.geojson")
        return self

    def polygon(self) -> MultiPolygon:
        """The area. Raises AreaError if it is empty or out of bounds."""
        if self.bbox is not None:
            return area_from_bbox(self.bbox)
        assert self.geojson is not None  # the validator let exactly one through
        return area_from_geojson(self.geojson)


class GridSpec(Section):
    """The chip lattice."""

    chip_px: Annotated[int, Field(ge=4, le=4096)] = 256
    """Side of a chip, pixels of `gsd_m`."""
    gsd_m: Annotated[float, Field(gt=0)] = 10.0
    """Finest pixel size, metres."""
    block_chips: Annotated[int, Field(ge=1, le=64)] = 8
    """Side of a block, chips; the chips of a block share one Zarr shard and are made together."""

    @property
    def chip_m(self) -> int:
        """Side of a chip, metres."""
        return round(self.chip_px * self.gsd_m)

    @model_validator(mode="after")
    def _whole_metres(self) -> Self:
        if abs(self.chip_px * self.gsd_m - self.chip_m) > 1e-9:
            raise ValueError(
                f"grid.chip_px={self.chip_px} times grid.gsd_m={self.gsd_m:g} is not a whole number of metres; "
                "choose a chip_px that makes it one"
            )
        return self


_FIELDS_OF_KIND = {
    "continuous": ("resampling", "units", "dated"),
    "vectors": ("where",),
    "interferogram": ("min_baseline_days", "max_baseline_days"),
}
"""Fields of a sensor that mean nothing for other kinds."""


class SensorSpec(Section):
    """One product on the lattice."""

    kind: Kind
    """What the product is."""
    collections: tuple[str, ...] = ()
    """STAC collections to search; empty means the kind's usual ones."""
    bands: tuple[str, ...] = ()
    """Bands to store, by canonical name; empty means B02 B03 B04 B08 for Sentinel-2, coherence and phase_rate for
    interferograms, and all bands that have files for other kinds. Computed from others: VV/VH of `s1`; slope, aspect
    (degrees clockwise from grid north, none if flat), eastness and northness (sine and cosine of aspect, times the
    sine of slope; 0 if flat) of `dem`; phase_rate of `interferogram` (phase divided by the days of its pair)."""
    assets: dict[str, str] = Field(default_factory=dict)
    """Asset key of a band where it is not a usual one, as {band: key}; `key#2` is the second band of a file with
    several, `key#name` a variable of a data set. Names the bands of `classes`,
    `continuous`, `coherence`, `points` and `polygons`."""
    legend: dict[int, str] = Field(default_factory=dict)
    """Names of class codes, for people; changes no pixel."""
    composite: Literal["median", "mean", "medoid", "geomedian", "least-cloudy", "latest-valid"] = "median"
    """How observations of one time bin become one image. `median` and `mean` take each band for itself; `medoid` takes
    the observation nearest to all others, `geomedian` the point nearest to all, `least-cloudy` the observation with
    most valid pixels in the chip and fills its holes from the next, `latest-valid` the last: these four want all bands
    of an array valid, and an array decides for itself, so `pixel_m` is how to have all bands of a sensor decide as
    one."""
    max_cloud_pct: Annotated[float, Field(ge=0, le=100)] = 100.0
    """Scenes with more cloud cover are left out, percent."""
    scl_invalid: tuple[int, ...] = SCL_INVALID
    """Sentinel-2: scene classes whose pixels are left out. Codes outside the legend are always left out."""
    orbit: Literal["ascending", "descending"] | None = None
    """Sentinel-1: the orbit direction; needed where both occur, since they are kept apart."""
    offset_dn: int | None = None
    """Sentinel-2: declared offset in digital numbers, for files that nothing else classifies."""
    values: Literal["linear", "db"] | None = None
    """Sentinel-1: declared scale of the files, where items do not tell."""
    border_m: Annotated[float, Field(ge=0)] = 200.0
    """Sentinel-1: width of the strip inside the edge of a swath that is left out as noise, metres."""
    pixel_scale: Annotated[float, Field(gt=0)] = 1.0
    """Pixel size of these files relative to the product's own (decimated copies): 12 for 120 m copies of 10 m
    bands."""
    pixel_m: Annotated[float, Field(gt=0)] | None = None
    """Pixel size of all bands in the cube, metres; empty means each band's own (native, or twice the finest
    for 20 m and 60 m bands); a whole chip for points."""
    resampling: Literal["bilinear", "mean", "sum"] | None = None
    """Continuous rasters: bilinear (if empty), or weighted by area: `mean` for rates such as tree cover, `sum` for
    counts such as people, whose total is kept."""
    units: str | None = None
    """Continuous rasters: physical unit, as UDUNITS writes it."""
    dated: bool = False
    """Continuous rasters: whether images belong to time bins, as a series does, and not to all time, as a map does."""
    min_baseline_days: Annotated[float, Field(ge=0)] = 0.0
    """Interferograms: pairs whose two dates are closer than this are left out, days."""
    max_baseline_days: Annotated[float, Field(gt=0)] = 366.0
    """Interferograms: pairs whose two dates are further apart are left out, days."""
    where: dict[str, tuple[str | int, ...]] = Field(default_factory=dict)
    """Points and polygons: only features whose property has one of the values, as {property: [value, …]}; name every
    spelling that is meant."""
    epsg: Annotated[int, Field(gt=0)] | None = None
    """EPSG code of a Zarr or netCDF data set that does not tell its own."""
    catalog: str | None = None
    """Catalogue of this sensor, if not the run's. May also be a Zarr (`….zarr`) or netCDF (`….nc`) data set, whose
    variables are the asset keys."""

    @property
    def info(self) -> SensorKind:
        """The kind's row in the table of kinds, with what the spec says of a continuous raster filled in."""
        row = SENSOR_KINDS[self.kind]
        if self.kind != "continuous":
            return row
        return replace(
            row,
            resampling=self.resampling or row.resampling,
            units=self.units or row.units,
            static=not self.dated,
        )

    @model_validator(mode="after")
    def _only_of_its_kind(self) -> Self:
        for name, fields in _FIELDS_OF_KIND.items():
            fits = self.kind == name or (name == "vectors" and self.kind in VECTORS)
            for field in fields:
                default = type(self).model_fields[field].get_default(call_default_factory=True)
                if not fits and getattr(self, field) != default:
                    raise ValueError(
                        f"{field}={getattr(self, field)!r} is for kind {name}, not {self.kind}; leave it out"
                    )
        return self

    @property
    def takes_whole_pixels(self) -> bool:
        """Whether a pixel's bands are composited together, and not each for itself. One observation needs neither."""
        return self.composite not in ("median", "mean") and not self.info.static

    @model_validator(mode="after")
    def _known_bands(self) -> Self:
        if not self.info.bands and not self.assets:
            raise ValueError(f"a sensor of kind {self.kind} needs assets: {{band: asset key}}")
        known = {band.name for band in self.info.bands} | set(self.assets)
        computed = [band.name for band in self.info.bands if band.derived_from and band.name in self.assets]
        if computed:
            raise ValueError(
                f"assets: {computed[0]} of {self.kind} is computed and has no file; leave it out of assets"
            )
        for name in self.bands:
            if name not in known:
                raise ValueError(f"bands: {name!r} is no band of {self.kind}; known: {', '.join(sorted(known))}")
        if len(set(self.bands)) != len(self.bands):
            raise ValueError(f"bands={list(self.bands)} names a band twice; name each once")
        return self

    def class_name(self, code: int) -> str:
        """What a person calls a class."""
        return self.legend.get(code, f"class {code}")

    def band_rows(self) -> tuple[Band, ...]:
        """The chosen bands; keys given under `assets` come first in each."""
        table = {band.name: band for band in self.info.bands}
        filed = tuple(name for name, band in table.items() if not band.derived_from)
        some = {"s2-l2a": ("B02", "B03", "B04", "B08"), "interferogram": ("coherence", "phase_rate")}
        usual = some.get(self.kind) or filed or tuple(self.assets)
        return tuple(self._row(name) for name in self.bands or usual)

    def read_rows(self) -> tuple[Band, ...]:
        """The bands that are read from files: the chosen ones, and what others of them are computed from."""
        return self.sources_of(self.band_rows())

    def sources_of(self, bands: tuple[Band, ...]) -> tuple[Band, ...]:
        """The bands with files that some bands need, each once."""
        names = dict.fromkeys(name for band in bands for name in band.derived_from or (band.name,))
        return tuple(self._row(name) for name in names)

    def _row(self, name: str) -> Band:
        row = next((band for band in self.info.bands if band.name == name), Band(name, (), 10))
        extra = (self.assets[name],) if name in self.assets else ()
        return replace(row, assets=extra + row.assets)


class SplitSpec(Section):
    """Which chips train and which are held out: whole coarse cells, with a buffer between them."""

    cell_km: Annotated[float, Field(gt=0)] = 20.0
    """Side of the coarse cells that are never divided, kilometres."""
    test: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """Share of coarse cells that is held out."""
    buffer_m: Annotated[float, Field(ge=0)] = 0.0
    """Chips of the training part closer than this to a held-out chip are used by neither, metres. Chips that touch
    are always apart."""
    seed: int = 0
    """Draws the held-out cells; the same ground falls on the same side in every run with the same seed."""


class LimitSpec(Section):
    """What a plan may ask for."""

    shard_memory_gb: Annotated[float, Field(gt=0)] = 4.0
    """Largest projected memory of one shard, GB; a plan over it is refused."""
    max_missing: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of a shard's source files that may be unreadable for good (missing, corrupt); beyond it the shard fails
    instead of recording the loss."""


class RunSpec(Section):
    """One run, from area and dates to a report."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
    """Name of the run: its folder in the store."""
    catalog: str | None = None
    """STAC API, static catalogue, ItemCollection or stac-geoparquet: an address or a path."""
    as_of: str = ""
    """Free label; another one makes a new plan, that is, searches the catalogues again."""
    area: AreaSpec
    """Where."""
    time: TimeSpec
    """When."""
    grid: GridSpec = GridSpec()
    """The chip lattice."""
    sensors: Annotated[dict[str, SensorSpec], Field(min_length=1)]
    """Products by name; names become array names in the cube."""
    split: SplitSpec = SplitSpec()
    """Training and held-out chips."""
    limits: LimitSpec = LimitSpec()
    """What a plan may ask for."""
    pretrain: PretrainSpec = PretrainSpec()
    """Pretraining."""
    embed: EmbedSpec = EmbedSpec()
    """Embeddings."""
    probe: ProbeSpec | None = None
    """Probe of the embeddings; empty means none."""

    @field_validator("sensors")
    @classmethod
    def _names(cls, sensors: dict[str, SensorSpec]) -> dict[str, SensorSpec]:
        for name in sensors:
            if not name.isidentifier() or not name.islower():
                raise ValueError(f"sensors.{name} is not a plain lower-case name; use letters, digits and _")
        return sensors

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        for array in self.arrays():
            if abs(array.chip_px * array.pixel_m - self.grid.chip_m) > 1e-9:
                raise ValueError(
                    f"grid.chip_px={self.grid.chip_px}: a chip of {self.grid.chip_m} m is not a whole number of "
                    f"{array.pixel_m:g} m pixels of sensors.{array.sensor}; use a multiple of "
                    f"{Fraction(self.grid.gsd_m / array.pixel_m).limit_denominator(4096).denominator}"
                )
        patch = self.pretrain.encoder.patch_px
        if self.grid.chip_px % patch:
            fit = max(p for p in range(1, patch + 1) if self.grid.chip_px % p == 0)
            raise ValueError(
                f"grid.chip_px={self.grid.chip_px} is not a multiple of pretrain.encoder.patch_px={patch}; "
                f"use grid.chip_px={-(-self.grid.chip_px // patch) * patch} or patch_px={fit}"
            )
        if self.probe is not None:
            target = self.sensors.get(self.probe.target)
            if target is None or target.kind != "classes":
                labels = [name for name, sensor in self.sensors.items() if sensor.kind == "classes"]
                raise ValueError(
                    f"probe.target={self.probe.target!r} is not a sensor of kind classes; "
                    f"choose one of {labels or 'none: add one under sensors'}"
                )
        return self

    def arrays(self) -> tuple["CubeArray", ...]:
        """The cube's arrays, in the order of the spec: one per sensor and pixel size."""
        found: list[CubeArray] = []
        for name, sensor in self.sensors.items():
            sizes: dict[float, list[Band]] = {}
            for band in sensor.band_rows():
                sizes.setdefault(self._pixel_m(sensor, band), []).append(band)
            for pixel_m, bands in sorted(sizes.items()):
                found.append(CubeArray(name, sensor, pixel_m, round(self.grid.chip_m / pixel_m), tuple(bands)))
        return tuple(found)

    def _pixel_m(self, sensor: SensorSpec, band: Band) -> float:
        if sensor.pixel_m is not None:
            return sensor.pixel_m
        if sensor.kind == "s2-l2a":
            # 60 m bands share the 20 m array: one array less for a resampling that is written in its attributes.
            return min(band.native_m, 20.0) * sensor.pixel_scale
        if sensor.kind == "points":
            return float(self.grid.chip_m)  # one count a chip: positions are seldom as good as a pixel
        own = sensor.kind in ("dem", "interferogram") or not sensor.info.bands
        return self.grid.gsd_m if own else band.native_m * sensor.pixel_scale


@dataclass(frozen=True)
class CubeArray:
    """One array of the cube: the bands of one sensor that share a pixel size."""

    sensor: str
    """Name of the sensor in the run spec."""
    spec: SensorSpec
    pixel_m: float
    """Pixel size, metres."""
    chip_px: int
    """Side of a chip, pixels of `pixel_m`."""
    bands: tuple[Band, ...]

    @property
    def name(self) -> str:
        """Name in the cube, such as `s2_10m`."""
        return f"{self.sensor}_{self.pixel_m:g}m"

    @property
    def band_names(self) -> tuple[str, ...]:
        """Band labels in order."""
        return tuple(band.name for band in self.bands)

    @property
    def read_names(self) -> tuple[str, ...]:
        """Names of the bands that are read to make it."""
        return tuple(band.name for band in self.spec.sources_of(self.bands))

    def units_of(self, band: Band) -> str:
        """Physical unit of one of its bands."""
        return band.units or self.spec.info.units
