"""STAC items of any publisher and version, as plain dictionaries, to scenes.

Works on dictionaries rather than `pystac.Item`, which moves `proj:epsg` to `proj:code` while reading.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urljoin, urlsplit

from eo_batch.core import stated as said
from eo_batch.core.errors import CatalogError
from eo_batch.core.radiometry import BASELINE_PROPERTIES, OFFSET_FLAGS, PRODUCT_PROPERTIES, baseline_of, s2_offset
from eo_batch.core.scenes import Asset, Scene, pair_days
from eo_batch.core.sensors import SCL_ASSETS, VECTORS
from eo_batch.core.spec import SensorSpec
from eo_batch.core.stated import RULE_BANDS, parse_time
from eo_batch.core.telling import one_line, shown
from eo_batch.core.utm import WGS84

Item = Mapping[str, Any]

_TILE_PREFIXES = ("mgrs", "sentinel")
_TILE_PARTS = ("utm_zone", "latitude_band", "grid_square")
_MGRS_IN_ID = re.compile(r"_T?(\d{1,2}[C-HJ-NP-X][A-HJ-NP-Z][A-HJ-NP-V])(?:_|$)")
SAME_SENSING = timedelta(seconds=1)
"""Times this close are one sensing: publishers round them differently, and two passes are minutes apart."""
OF_INTERVALS = ("coherence", "interferogram")
"""Kinds whose items count by the middle of their two dates."""
OF_THEIR_OWN = frozenset({*OF_INTERVALS, *VECTORS})
"""Kinds whose rules look at what each item has of its own, its times or its box; there are few of them."""
OWN_PROPERTIES = ("datetime", "start_datetime", "end_datetime", "eo:cloud_cover", "platform")
"""What an item has a value of its own of; the rules below only hand it on."""
RULE_PROPERTIES = (
    *BASELINE_PROPERTIES,
    *PRODUCT_PROPERTIES,
    *OFFSET_FLAGS,
    "sat:orbit_state",
    "sat:relative_orbit",
    "sar:product_type",
    "proj:epsg",
    "proj:code",
    "proj:transform",
    "proj:shape",
    "grid:code",
    "s2:mgrs_tile",
    *(f"{prefix}:{part}" for prefix in _TILE_PREFIXES for part in _TILE_PARTS),
)
"""What else the rules read of an item's properties. They are shown nothing else, so that a table of items need not be
read whole."""
RULE_FIELDS = ("href", "nodata", "unit", "raster:scale", "raster:offset", "proj:epsg", "proj:code", "proj:transform",
               "proj:shape", *RULE_BANDS)  # fmt: skip
"""The same of an asset."""
_SCALED = ("s1", "dem", "continuous", "coherence", "interferogram")
"""Kinds whose files hold numbers that their items scale."""
_READABLE = ("http", "https", "s3", "gs", "az")
_OF_THIS_MACHINE = ("", "file", "ee")
"""Schemes without a host; `ee` names a data set."""


def scene_of_item(item: Item, sensor_name: str, sensor: SensorSpec, base_href: str) -> Scene:
    """One item as a scene of a sensor.

    base_href: address against which the item's relative asset hrefs are resolved.

    A scene that can't be used keeps the reason in `refusal`. Raises CatalogError if the item is not even
    an item (no id, no time, no assets).
    """
    try:
        collection, item_id = identity(item)
        stated = section(item, "properties")
        properties = {name: stated[name] for name in (*OWN_PROPERTIES, *RULE_PROPERTIES) if name in stated}
        moment = _moment(properties, of_interval=sensor.kind in OF_INTERVALS)
        bbox = said.box(item.get("bbox"))
        raw_assets = section(item, "assets")
    except ValueError as error:
        raise unusable(item, base_href, error) from error
    refusals: list[str] = []
    pair = None
    if sensor.kind == "interferogram":
        pair, refusal = _pair(properties, sensor)
        refusals.extend([refusal] if refusal else [])
    assets: list[Asset] = []
    for band, keys in asset_keys(sensor):
        found = next((key for key in keys if key.partition("#")[0] in raw_assets), "")
        name, mark, part = found.partition("#")
        raw = raw_assets.get(name)
        if not isinstance(raw, Mapping) or raw.get("href") is None:
            refusals.append(f"no asset for {band} (looked for {', '.join(keys)})")
            continue
        asset, refusal = _asset(band, raw, mark + part, item, properties, sensor, base_href)
        if band == "phase_rate" and pair is not None:
            asset = replace(asset, scale=asset.scale / pair_days(pair))
        assets.append(asset)
        if refusal:
            refusals.append(refusal)
    return Scene(
        scene_id=item_id,
        collection=collection,
        sensor=sensor_name,
        moment=moment,
        bbox=bbox,
        tile=tile_stated(properties) or tile_in_id(item_id),
        platform=said.text(properties.get("platform")).lower(),
        baseline=baseline_of(properties) if sensor.kind == "s2-l2a" else None,
        orbit_state=_orbit_state(properties),
        relative_orbit=said.whole(properties.get("sat:relative_orbit")),
        cloud_pct=said.number(properties.get("eo:cloud_cover")),
        assets=tuple(assets),
        refusal="; ".join(dict.fromkeys(refusals)) or None,
        pair=pair,
        ambiguous=any("declare sensors" in refusal for refusal in refusals),
    )


def identity(item: Any) -> tuple[str, str]:
    """An item's collection (empty for none) and id. Raises ValueError if it can't be named."""
    if not isinstance(item, Mapping):
        raise ValueError("it is no object")
    collection = item.get("collection")
    return "" if collection in (None, "") else said.name(collection, "collection"), said.name(item.get("id"), "id")


def section(item: Item, field: str) -> Mapping[str, Any]:
    """One of an item's objects. Raises ValueError if it is none."""
    found = item.get(field)
    if not isinstance(found, Mapping):
        raise ValueError(f"its {field} are no object")
    return found


def unusable(item: Any, base_href: str, error: ValueError) -> CatalogError:
    """Says that an item can't be used, and why."""
    try:
        _, named = identity(item)
    except ValueError:
        named = "without an id"
    return CatalogError(f"item {named} of {shown(base_href)} is not a usable STAC item: {one_line(error)}")


def asset_keys(sensor: SensorSpec) -> list[tuple[str, tuple[str, ...]]]:
    """The files that a scene of a sensor needs: band, and the keys that it can be listed under, the best first."""
    wanted = [(band.name, band.assets) for band in sensor.read_rows()]
    return [*wanted, ("SCL", SCL_ASSETS)] if sensor.kind == "s2-l2a" else wanted


@dataclass(frozen=True)
class Listed:
    """What decides between scenes of one (sensor, tile, platform, sensing)."""

    row: int
    """Position among all scenes."""
    scene_id: str
    baseline: str | None
    usable: bool


def resolve_duplicates(listed: Sequence[Listed]) -> list[tuple[Listed, Listed | None]]:
    """Of scenes of one (sensor, tile, platform, sensing), those that count, each with its spare.

    The newest processing counts, with the next one as its spare. Usable scenes win over refused ones, and of one id
    the one listed last.
    """
    unique = {one.scene_id: one for one in listed}
    ranked = sorted(unique.values(), key=lambda s: (s.usable, s.baseline or "", s.scene_id), reverse=True)
    best = ranked[0]
    if best.baseline is None:
        return [(one, None) for one in ranked]  # without baselines, equal times on one tile are different acquisitions
    return [(best, ranked[1] if len(ranked) > 1 and ranked[1].usable else None)]


def _asset(
    band: str,
    raw: Mapping[str, Any],
    part: str,
    item: Item,
    properties: Mapping[str, Any],
    sensor: SensorSpec,
    base_href: str,
) -> tuple[Asset, str | None]:
    """A file of a band, and why it can't be used; part: what its address ends with, to name a part of the file."""
    refusal, href, first = None, "", dict[str, Any]()
    try:
        href = address(raw["href"], base_href) + part
        raw = {name: raw[name] for name in RULE_FIELDS if name in raw}
        first = said.encoding(raw)
    except ValueError as error:
        refusal = f"{band}: {error}"
    scale, offset_dn, reason, is_db = 1.0, 0.0, "", False
    if sensor.kind == "s2-l2a" and band != "SCL":
        decision = s2_offset(href, properties, [first], sensor.offset_dn)
        scale, reason = 0.0001, decision.reason
        if decision.offset_dn is not None:
            offset_dn = decision.offset_dn
        elif refusal is None:
            refusal = (
                f"{band}: whether the radiometric offset is in the file can't be told: {decision.reason}; "
                f"declare sensors.*.offset_dn if you know it"
            )
    elif sensor.kind in _SCALED:
        scale = float(first.get("scale", 1.0))
        offset_dn = float(first.get("offset", 0.0)) / scale
        if not math.isfinite(offset_dn):
            scale, offset_dn, refusal = 1.0, 0.0, f"{band}: its scale {scale:g} is too small for its offset"
    if sensor.kind == "s1":
        stated = str(first.get("unit") or "").lower()
        if sensor.values is not None:
            is_db, reason = sensor.values == "db", f"declared by the spec: values={sensor.values}"
        elif stated == "db":
            is_db, reason = True, "the item says dB"
        elif "rtc" in str(item.get("collection") or item.get("id")).lower() or stated in ("1", "linear"):
            reason = "terrain-corrected product in linear power"
        elif refusal is None:
            refusal = f"{band}: neither item nor spec says whether values are dB or linear; declare sensors.*.values"
        if _is_ungridded(properties, raw):
            refusal = (
                f"{band}: the file is not map-projected (ground range); it needs calibration and terrain correction, "
                "which sarsen does; give its results as files of linear power"
            )
    epsg = said.epsg(raw) or said.epsg(properties)
    transform = said.affine(raw.get("proj:transform")) or said.affine(properties.get("proj:transform"))
    shape = said.shape(raw.get("proj:shape")) or said.shape(properties.get("proj:shape"))
    if sensor.kind in VECTORS:  # the item's box is the ground that they speak of: one pixel, as it were
        west, south, east, north = said.box(item.get("bbox"))
        epsg, shape = WGS84, (1, 1)
        transform = (east - west if east >= west else east - west + 360.0, 0.0, west, 0.0, south - north, north)
    asset = Asset(
        band=band,
        href=href,
        epsg=epsg,
        transform=transform,
        shape=shape,
        nodata=first.get("nodata"),
        scale=scale,
        offset_dn=offset_dn,
        offset_reason=reason,
        db=is_db,
    )
    return asset, refusal


def address(stated: Any, base_href: str) -> str:
    """An asset's absolute address. Raises ValueError if it is none that can be read."""
    if not said.text(stated):
        raise ValueError("its address is no text of one line")
    try:
        href = absolute_href(stated, base_href)
        parts = urlsplit(href)
    except ValueError as error:
        raise ValueError("its address is none") from error
    if href.startswith("//"):
        raise ValueError("its address has a host and no scheme")
    if parts.scheme not in (*_READABLE, *_OF_THIS_MACHINE):
        raise ValueError(f"files at {parts.scheme}:// can't be read; use {', '.join(_READABLE)}, file or a path")
    if parts.scheme in _READABLE and not parts.netloc:
        raise ValueError("its address has no host or bucket")
    return href


def absolute_href(href: str, base_href: str) -> str:
    """An asset's address; relative ones are resolved against the address of the document that lists them.

    Raises ValueError for what is no address, or leads out of where the document is.
    """
    if urlsplit(href).scheme:
        return href
    if urlsplit(base_href).scheme in ("http", "https"):
        return urljoin(base_href, href)
    if href.startswith("/"):
        return href
    folder, slash, _ = base_href.rpartition("/")
    parts = folder.split("/") if slash else []
    root = 3 if "://" in base_href else 1  # scheme and bucket, or where paths begin
    for part in href.split("/"):
        if part == "..":
            if len(parts) <= root:
                raise ValueError("it leads out of its catalogue's place")
            parts.pop()
        elif part not in (".", ""):
            parts.append(part)
    return "/".join(parts)


def _is_ungridded(properties: Mapping[str, Any], raw: Mapping[str, Any]) -> bool:
    """Ground-range GRD: neither asset nor item states a CRS with a transform that is axis-aligned."""
    if str(properties.get("sar:product_type", "")).upper() != "GRD":
        return False
    return said.epsg(raw) is None and said.epsg(properties) is None


def _pair(properties: Mapping[str, Any], sensor: SensorSpec) -> tuple[str | None, str | None]:
    """The two days of an interferogram, and why it can't be used."""
    first, second = properties.get("start_datetime"), properties.get("end_datetime")
    if not first or not second:
        return None, "the item does not name the two dates of its pair (start_datetime, end_datetime)"
    pair = f"{parse_time(first).date()}/{parse_time(second).date()}"
    days = pair_days(pair)
    if days < 1:
        return None, f"its two dates are one or in the wrong order ({pair})"
    if not sensor.min_baseline_days <= days <= sensor.max_baseline_days:
        window = f"{sensor.min_baseline_days:g} to {sensor.max_baseline_days:g}"
        return pair, f"temporal baseline of {days} days is outside {window}"
    return pair, None


def _moment(properties: Mapping[str, Any], of_interval: bool) -> datetime:
    """The item's time; the middle of its interval where it has no time, or where the interval is what counts."""
    whole = properties.get("start_datetime") and properties.get("end_datetime")
    if properties.get("datetime") and not (of_interval and whole):
        return parse_time(properties["datetime"])
    if not whole:
        raise ValueError("it has no time (datetime, or start_datetime and end_datetime)")
    start, end = parse_time(properties["start_datetime"]), parse_time(properties["end_datetime"])
    return start + (end - start) / 2


def tile_stated(properties: Mapping[str, Any]) -> str | None:
    """Name of an item's tile by its properties."""
    code = said.text(properties.get("grid:code"))
    if code and not code.startswith("MGRS-"):
        return code
    names = [code.removeprefix("MGRS-"), said.text(properties.get("s2:mgrs_tile"))]
    for prefix in _TILE_PREFIXES:
        parts = [properties.get(f"{prefix}:{part}") for part in _TILE_PARTS]
        names.append(said.text("".join(map(str, parts))) if None not in parts else "")
    return next((_mgrs(name) for name in names if name), None)


def tile_in_id(item_id: str) -> str:
    """Name of the tile in an item's id, or else the id."""
    in_id = _MGRS_IN_ID.search(item_id)
    return _mgrs(in_id[1]) if in_id else item_id


def _mgrs(name: str) -> str:
    return f"MGRS-{name.zfill(5)}"  # publishers differ in the leading zero of the zone


def _orbit_state(properties: Mapping[str, Any]) -> str | None:
    stated = said.text(properties.get("sat:orbit_state")).lower()
    return stated if stated in ("ascending", "descending") else None
