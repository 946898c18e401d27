"""What each kind of sensor product is: bands, pixel sizes, storage encoding, how it may be resampled.

One row per kind; everything that reads, composites, stores or plots asks this table.
"""

from dataclasses import dataclass
from typing import Literal

from eo_batch.core.errors import SpecError

Kind = Literal["s2-l2a", "s1", "dem", "classes", "continuous", "coherence", "interferogram", "points", "polygons"]
Resampling = Literal["nearest", "bilinear", "mean", "sum"]
"""Classes: nearest; measurements: bilinear; rates: mean by area; counts: dealt out by area, so that totals are kept."""
Scale = Literal["linear", "db"]


@dataclass(frozen=True)
class Band:
    """One band of a kind."""

    name: str
    """Canonical name; the band's label in the cube."""
    assets: tuple[str, ...]
    """Asset keys under which publishers list it, in order of preference."""
    native_m: float
    """Native pixel size, metres."""
    wavelength_um: float | None = None
    """Centre wavelength, micrometres."""
    derived_from: tuple[str, ...] = ()
    """Bands that it is computed from, after these are composited; such a band has no file (`pixels/derived.py`)."""
    units: str | None = None
    """Physical unit, where it is not the kind's."""


@dataclass(frozen=True)
class SensorKind:
    """One kind of product."""

    kind: Kind
    title: str
    """What a person calls it."""
    collections: tuple[str, ...] = ()
    """STAC collections searched unless the spec names others."""
    bands: tuple[Band, ...] = ()
    """Known bands; empty where the spec names band and asset itself."""
    dtype: str = "float32"
    """Storage dtype in the cube."""
    fill: float = float("nan")
    """Stored value that means 'no valid pixel'."""
    scale_factor: float = 1.0
    """physical = stored * scale_factor + add_offset."""
    add_offset: float = 0.0
    units: str = "1"
    """Physical unit, as UDUNITS writes it."""
    resampling: Resampling = "bilinear"
    """How pixels are resampled where grids do not nest."""
    static: bool = False
    """Whether the product has no time axis."""
    model_scale: Scale = "linear"
    """Scale on which statistics are taken and models see it; `db` is 10*log10(physical)."""
    limits: tuple[float, float] | None = None
    """Smallest and largest physical value that can be a measurement; what lies outside is no data."""

    def band(self, name: str) -> Band:
        """The band called `name`. Raises SpecError listing the known ones."""
        for band in self.bands:
            if band.name == name:
                return band
        known = ", ".join(band.name for band in self.bands) or "none: name it under `assets`"
        raise SpecError(f"{self.kind} has no band {name!r}; known bands: {known}")


# Centre wavelengths: ESA Sentinel-2 MSI user guide, S2A values rounded to the nanometre.
_S2_BANDS = (
    Band("B01", ("B01", "coastal"), 60, 0.443),
    Band("B02", ("B02", "blue"), 10, 0.493),
    Band("B03", ("B03", "green"), 10, 0.560),
    Band("B04", ("B04", "red"), 10, 0.665),
    Band("B05", ("B05", "rededge1"), 20, 0.704),
    Band("B06", ("B06", "rededge2"), 20, 0.741),
    Band("B07", ("B07", "rededge3"), 20, 0.783),
    Band("B08", ("B08", "nir"), 10, 0.833),
    Band("B8A", ("B8A", "nir08"), 20, 0.865),
    Band("B09", ("B09", "nir09"), 60, 0.945),
    Band("B11", ("B11", "swir16"), 20, 1.614),
    Band("B12", ("B12", "swir22"), 20, 2.202),
)

SENSOR_KINDS: dict[str, SensorKind] = {
    "s2-l2a": SensorKind(
        kind="s2-l2a",
        title="Sentinel-2 L2A surface reflectance",
        collections=("sentinel-2-l2a",),
        bands=_S2_BANDS,
        dtype="uint16",
        fill=0,
        # ESA's own encoding since baseline 04.00: dark pixels stay representable below zero.
        scale_factor=0.0001,
        add_offset=-0.1,
    ),
    "s1": SensorKind(
        kind="s1",
        title="Sentinel-1 backscatter, linear power",
        collections=("sentinel-1-rtc",),
        bands=(
            Band("VV", ("VV", "vv"), 10),
            Band("VH", ("VH", "vh"), 10),
            # A ratio of powers, so that in dB, as models see it, it is the difference VV - VH.
            Band("VV/VH", (), 10, derived_from=("VV", "VH")),
        ),
        model_scale="db",
    ),
    "dem": SensorKind(
        kind="dem",
        title="Elevation",
        collections=("cop-dem-glo-30",),
        bands=(
            Band("elevation", ("elevation", "dem", "data"), 10),
            Band("slope", (), 10, derived_from=("elevation",), units="degree"),
            Band("aspect", (), 10, derived_from=("elevation",), units="degree"),
            Band("eastness", (), 10, derived_from=("elevation",), units="1"),
            Band("northness", (), 10, derived_from=("elevation",), units="1"),
        ),
        units="m",
        static=True,
        # From below the deepest trench to above the highest summit: files that do not declare -32767 hold it.
        limits=(-12_000.0, 9_000.0),
    ),
    "classes": SensorKind(
        kind="classes",
        title="Class labels",
        dtype="uint16",
        fill=0,
        resampling="nearest",
        static=True,
    ),
    "continuous": SensorKind(
        kind="continuous",
        title="Continuous raster",
        static=True,
    ),
    "coherence": SensorKind(
        kind="coherence",
        title="Interferometric coherence",
        # As the global seasonal data set (GSSIC) stores it: hundredths, 0 is no data.
        dtype="uint8",
        fill=0,
        scale_factor=0.01,
        limits=(0.0, 1.0),
    ),
    "interferogram": SensorKind(
        kind="interferogram",
        title="Interferograms of pairs of dates",
        bands=(
            Band("coherence", ("coherence",), 10),
            Band("unwrapped_phase", ("unwrapped_phase",), 10, units="radian"),
            # The same file, divided by the days of its pair: what pairs of different length have in common.
            Band("phase_rate", ("unwrapped_phase",), 10, units="radian day-1"),
        ),
    ),
    "points": SensorKind(
        kind="points",
        title="Points in each pixel",
        resampling="sum",
        static=True,
    ),
    "polygons": SensorKind(
        kind="polygons",
        title="Share of each pixel that polygons cover",
        resampling="mean",
        static=True,
    ),
}

VECTORS = ("points", "polygons")
"""Kinds whose files are vectors."""
LABELS = ("classes", *VECTORS)
"""Kinds that encoders don't see: what is to be predicted."""
ZERO_IS_NODATA = ("s2-l2a", "classes", "coherence", "interferogram")
"""Kinds that define 0 as no data, whether or not a file says it."""

SCL_ASSETS = ("SCL", "scl")
"""Asset keys of Sentinel-2's scene classification."""

SCL_NAMES = {
    0: "no data",
    1: "saturated or defective",
    2: "dark area",
    3: "cloud shadow",
    4: "vegetation",
    5: "bare soil",
    6: "water",
    7: "unclassified",
    8: "cloud, medium probability",
    9: "cloud, high probability",
    10: "thin cirrus",
    11: "snow or ice",
}
"""Legend of Sentinel-2's scene classification (ESA, Level-2A Algorithm Theoretical Basis Document)."""

SCL_INVALID = (0, 1, 3, 8, 9, 10)
"""Classes that the composite leaves out unless the spec says otherwise."""
SCL_CLOUD = (3, 8, 9, 10)
"""Classes of cloud, cirrus and cloud shadow."""
