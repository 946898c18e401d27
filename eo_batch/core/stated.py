"""What STAC items state, taken only where it can be meant: publishers write anything anywhere.

A grid that can't be one counts as not stated, since the file's own header has the last word on it. What pixels would be
read wrongly without is refused: ValueError, in words for the item's reader.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from pyproj import CRS
from pyproj.exceptions import CRSError

from eo_batch.core.scenes import Affine6

RULE_BANDS = ("raster:bands", "bands")
"""Fields of an asset that list its bands, by STAC 1.0 and 1.1."""
BAND_FIELDS = ("nodata", "unit", "scale", "offset", "raster:scale", "raster:offset")
"""What is looked at of an asset's first band."""
_OF_ASSET = ("nodata", "unit", "raster:scale", "raster:offset")
"""The same where STAC 1.1 says it once for the whole asset."""
LONGEST_NAME = 1000
_SLACK_DEG = 1.0
"""Boxes of rasters reach over the poles and the antimeridian by pixels."""
_LARGEST = 1e9
"""No georeference has a larger number: the Earth is 4e7 metres around."""


def text(value: Any) -> str:
    """A text of one line; empty for anything else."""
    return value if isinstance(value, str) and value.isprintable() else ""


def name(value: Any, of: str) -> str:
    """A text that can name a thing. Raises ValueError."""
    if not text(value).strip() or len(value) > LONGEST_NAME:
        raise ValueError(f"its {of} is no text of one line and at most {LONGEST_NAME} letters")
    return str(value)


def number(value: Any) -> float | None:
    """A finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # a whole number beyond all floats
        return None


def whole(value: Any) -> int | None:
    """A whole number of 32 bits; None for anything else."""
    found = number(value)
    return int(found) if found is not None and found.is_integer() and abs(found) < 2**31 else None


def parse_time(stated: Any) -> datetime:
    """A time in UTC, which counts where no zone is given. Raises ValueError."""
    try:
        moment = datetime.fromisoformat(str(stated))
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (OverflowError, ValueError) as error:
        raise ValueError(f"{str(stated)[:60]!r} is no time") from error


def box(stated: Any) -> tuple[float, float, float, float]:
    """West, south, east, north in degrees, of 4 or 6 numbers. Raises ValueError."""
    listed: Sequence[Any] = stated if isinstance(stated, Sequence) and not isinstance(stated, str) else ()
    found = [value for part in listed if (value := number(part)) is not None]
    if len(found) != len(listed) or len(found) not in (4, 6):
        raise ValueError("its bbox is not 4 or 6 numbers")
    west, south, east, north = found if len(found) == 4 else (*found[:2], *found[3:5])
    if not on_earth(west, south, east, north):
        raise ValueError(f"its bbox [{west:g}, {south:g}, {east:g}, {north:g}] is no place on Earth")
    return west, south, east, north


def on_earth(west: Any, south: Any, east: Any, north: Any) -> Any:
    """Whether boxes in degrees can be places, for one box or columns of them."""
    around = (abs(west) <= 360 + _SLACK_DEG) & (abs(east) <= 360 + _SLACK_DEG)
    return around & (south >= -90 - _SLACK_DEG) & (south <= north) & (north <= 90 + _SLACK_DEG)


def epsg(holder: Mapping[str, Any]) -> int | None:
    """EPSG code of a grid's CRS."""
    stated = holder.get("proj:code")
    code = stated[5:] if isinstance(stated, str) and stated.upper().startswith("EPSG:") else ""
    found = whole(int(code)) if code.isascii() and code.isdigit() and len(code) < 10 else whole(holder.get("proj:epsg"))
    return found if found is not None and _is_of_maps(found) else None


@lru_cache(maxsize=1024)
def _is_of_maps(code: int) -> bool:
    try:
        crs = CRS.from_epsg(code)
    except CRSError:
        return False
    return bool(crs.is_projected or crs.is_geographic)


def affine(stated: Any) -> Affine6 | None:
    """A georeference that can be inverted."""
    if not isinstance(stated, Sequence) or len(stated) not in (6, 9):
        return None
    found = [value for part in stated[:6] if (value := number(part)) is not None and abs(value) <= _LARGEST]
    if len(found) != 6:
        return None
    a, b, c, d, e, f = found
    return (a, b, c, d, e, f) if a * e - b * d else None


def shape(stated: Any) -> tuple[int, int] | None:
    """Rows and columns."""
    found = [whole(part) or 0 for part in stated] if isinstance(stated, Sequence) else []
    return (found[0], found[1]) if len(found) == 2 and min(found) > 0 else None


def encoding(asset: Mapping[str, Any]) -> dict[str, Any]:
    """How an asset's first band is stored, under STAC 1.0's names: `scale` and `offset` finite, `nodata` a float.

    Raises ValueError where values would be misread.
    """
    stated = {field: asset[field] for field in _OF_ASSET if field in asset}
    listed: Any = next((asset[field] for field in RULE_BANDS if asset.get(field)), [{}])
    if not isinstance(listed, list) or not isinstance(listed[0], Mapping):
        raise ValueError("its bands are no list of objects")
    stated |= {field: listed[0][field] for field in BAND_FIELDS if field in listed[0]}
    found = {field.removeprefix("raster:"): value for field, value in stated.items() if value is not None}
    for field in ("scale", "offset"):
        if field in found and (number(found[field]) is None or (field == "scale" and not found[field])):
            raise ValueError(f"its {field} {_short(found[field])} is not a usable number")
    if "nodata" in found:
        found["nodata"] = _nodata(found["nodata"])
    return found


def _nodata(stated: Any) -> float:
    try:
        return float("" if isinstance(stated, bool) else stated)  # publishers also write it as text, NaN above all
    except (OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"its nodata {_short(stated)} is no number") from error


def _short(value: Any) -> str:
    shown = ascii(value)
    return shown if len(shown) <= 40 else f"{shown[:40]}…"
