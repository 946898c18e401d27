"""STAC items of any publisher and version, as plain dictionaries, to scenes.

Works on dictionaries rather than `pystac.Item`, which moves `proj:epsg` to `proj:code` while reading.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urljoin, urlsplit

from eo_batch.core.errors import CatalogError
from eo_batch.core.radiometry import BASELINE_PROPERTIES, OFFSET_FLAGS, PRODUCT_PROPERTIES, baseline_of, s2_offset
from eo_batch.core.scenes import Affine6, Asset, Scene, pair_days
from eo_batch.core.sensors import SCL_ASSETS, VECTORS
from eo_batch.core.spec import SensorSpec
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
               "proj:shape", "raster:bands", "bands")  # fmt: skip
"""The same of an asset."""
BAND_FIELDS = ("nodata", "unit", "scale", "offset", "raster:scale", "raster:offset")
"""The same of an asset's first band."""


def scene_of_item(item: Item, sensor_name: str, sensor: SensorSpec, base_href: str) -> Scene:
    """One item as a scene of a sensor.

    base_href: address against which the item's relative asset hrefs are resolved.

    A scene that can't be used keeps the reason in `refusal`. Raises CatalogError if the item is not even
    an item (no id, no time, no assets).
    """
    try:
        item_id = str(item["id"])
        stated: Mapping[str, Any] = item["properties"]
        properties = {name: stated[name] for name in (*OWN_PROPERTIES, *RULE_PROPERTIES) if name in stated}
        moment = _moment(properties, of_interval=sensor.kind in OF_INTERVALS)
        bbox = _bbox(item)
        raw_assets: Mapping[str, Mapping[str, Any]] = item["assets"]
    except (KeyError, TypeError, ValueError) as error:
        raise CatalogError(
            f"item {item.get('id', '(no id)')} of {base_href} is not a usable STAC item: {error!r}"
        ) from error
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
        if raw is None or "href" not in raw:
            refusals.append(f"no asset for {band} (looked for {', '.join(keys)})")
            continue
        raw = {**raw, "href": f"{raw['href']}{mark}{part}"} if part else raw
        asset, refusal = _asset(band, raw, item, properties, sensor, base_href)
        if band == "phase_rate" and pair is not None:
            asset = replace(asset, scale=asset.scale / pair_days(pair))
        assets.append(asset)
        if refusal:
            refusals.append(refusal)
    return Scene(
        scene_id=item_id,
        collection=str(item.get("collection") or ""),
        sensor=sensor_name,
        moment=moment,
        bbox=bbox,
        tile=tile_stated(properties) or tile_in_id(item_id),
        platform=str(properties.get("platform", "")).lower(),
        baseline=baseline_of(properties) if sensor.kind == "s2-l2a" else None,
        orbit_state=_text(properties.get("sat:orbit_state")),
        relative_orbit=_int(properties.get("sat:relative_orbit")),
        cloud_pct=_float(properties.get("eo:cloud_cover")),
        assets=tuple(assets),
        refusal="; ".join(dict.fromkeys(refusals)) or None,
        pair=pair,
        ambiguous=any("declare sensors" in refusal for refusal in refusals),
    )


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
    item: Item,
    properties: Mapping[str, Any],
    sensor: SensorSpec,
    base_href: str,
) -> tuple[Asset, str | None]:
    href = absolute_href(str(raw["href"]), base_href)
    raw = {name: raw[name] for name in RULE_FIELDS if name in raw}
    first = _encoding(raw)
    scale, offset_dn, reason, is_db, refusal = 1.0, 0.0, "", False, None
    if sensor.kind == "s2-l2a" and band != "SCL":
        decision = s2_offset(href, properties, [first], sensor.offset_dn)
        scale, reason = 0.0001, decision.reason
        if decision.offset_dn is None:
            refusal = (
                f"{band}: whether the radiometric offset is in the file can't be told: {decision.reason}; "
                f"declare sensors.*.offset_dn if you know it"
            )
        else:
            offset_dn = decision.offset_dn
    elif sensor.kind == "s1":
        scale = float(first.get("scale") or 1.0)
        stated = str(first.get("unit") or "").lower()
        if sensor.values is not None:
            is_db, reason = sensor.values == "db", f"declared by the spec: values={sensor.values}"
        elif stated == "db":
            is_db, reason = True, "the item says dB"
        elif "rtc" in str(item.get("collection") or item.get("id")).lower() or stated in ("1", "linear"):
            reason = "terrain-corrected product in linear power"
        else:
            refusal = f"{band}: neither item nor spec says whether values are dB or linear; declare sensors.*.values"
        if _is_ungridded(properties, raw):
            refusal = (
                f"{band}: the file is not map-projected (ground range); it needs calibration and terrain correction, "
                "which sarsen does; give its results as files of linear power"
            )
    elif sensor.kind in ("continuous", "coherence", "interferogram"):
        scale = float(first.get("scale") or 1.0)
        offset_dn = float(first.get("offset") or 0.0) / scale
    epsg = _epsg(raw) or _epsg(properties)
    transform = _affine(raw.get("proj:transform") or properties.get("proj:transform"))
    shape = _shape(raw.get("proj:shape") or properties.get("proj:shape"))
    if sensor.kind in VECTORS:  # the item's box is the ground that they speak of: one pixel, as it were
        west, south, east, north = _bbox(item)
        epsg, shape = WGS84, (1, 1)
        transform = (east - west if east >= west else east - west + 360.0, 0.0, west, 0.0, south - north, north)
    asset = Asset(
        band=band,
        href=href,
        epsg=epsg,
        transform=transform,
        shape=shape,
        nodata=_float(first.get("nodata")),
        scale=scale,
        offset_dn=offset_dn,
        offset_reason=reason,
        db=is_db,
    )
    return asset, refusal


def absolute_href(href: str, base_href: str) -> str:
    """An asset's address; relative ones are resolved against the address of the document that lists them."""
    if urlsplit(href).scheme:
        return href
    if urlsplit(base_href).scheme in ("http", "https"):
        return urljoin(base_href, href)
    if href.startswith("/"):
        return href
    folder, slash, _ = base_href.rpartition("/")
    parts = folder.split("/") if slash else []
    for part in href.split("/"):
        if part == "..":
            parts.pop()
        elif part not in (".", ""):
            parts.append(part)
    return "/".join(parts)


def _encoding(raw: Mapping[str, Any]) -> dict[str, Any]:
    """How an asset's first band is stored, under STAC 1.0's names (`scale`); 1.1 says `raster:scale`, and may say it
    once for the whole asset."""
    bands = raw.get("raster:bands") or raw.get("bands")
    band = bands[0] if isinstance(bands, list) and bands and isinstance(bands[0], Mapping) else {}
    stated = {name: raw[name] for name in ("nodata", "unit", "raster:scale", "raster:offset") if name in raw}
    found = (*stated.items(), *((name, band[name]) for name in BAND_FIELDS if name in band))
    return {name.removeprefix("raster:"): value for name, value in found}


def _is_ungridded(properties: Mapping[str, Any], raw: Mapping[str, Any]) -> bool:
    """Ground-range GRD: neither asset nor item states a CRS with a transform that is axis-aligned."""
    if str(properties.get("sar:product_type", "")).upper() != "GRD":
        return False
    return _epsg(raw) is None and _epsg(properties) is None


def _epsg(holder: Mapping[str, Any]) -> int | None:
    code = holder.get("proj:code")
    if isinstance(code, str) and code.upper().startswith("EPSG:") and code[5:].isdigit():
        return int(code[5:])
    return _int(holder.get("proj:epsg"))


def _affine(value: Any) -> Affine6 | None:
    if not isinstance(value, Sequence) or len(value) not in (6, 9):
        return None
    a, b, c, d, e, f = (float(v) for v in value[:6])
    return a, b, c, d, e, f


def _shape(value: Any) -> tuple[int, int] | None:
    if not isinstance(value, Sequence) or len(value) != 2:
        return None
    return int(value[0]), int(value[1])


def _pair(properties: Mapping[str, Any], sensor: SensorSpec) -> tuple[str | None, str | None]:
    """The two days of an interferogram, and why it can't be used."""
    first, second = properties.get("start_datetime"), properties.get("end_datetime")
    if not first or not second:
        return None, "the item does not name the two dates of its pair (start_datetime, end_datetime)"
    pair = f"{parse_time(str(first)).date()}/{parse_time(str(second)).date()}"
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
        return parse_time(str(properties["datetime"]))
    start, end = parse_time(str(properties["start_datetime"])), parse_time(str(properties["end_datetime"]))
    return start + (end - start) / 2


def parse_time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _bbox(item: Item) -> tuple[float, float, float, float]:
    bbox = [float(v) for v in item["bbox"]]
    if len(bbox) == 6:
        bbox = bbox[:2] + bbox[3:5]
    west, south, east, north = bbox
    return west, south, east, north


def tile_stated(properties: Mapping[str, Any]) -> str | None:
    """Name of an item's tile by its properties."""
    code = str(properties.get("grid:code") or "")
    if code and not code.startswith("MGRS-"):
        return code
    names = [code.removeprefix("MGRS-"), str(properties.get("s2:mgrs_tile") or "")]
    for prefix in _TILE_PREFIXES:
        parts = [properties.get(f"{prefix}:{part}") for part in _TILE_PARTS]
        names.append("".join(map(str, parts)) if None not in parts else "")
    return next((_mgrs(name) for name in names if name), None)


def tile_in_id(item_id: str) -> str:
    """Name of the tile in an item's id, or else the id."""
    in_id = _MGRS_IN_ID.search(item_id)
    return _mgrs(in_id[1]) if in_id else item_id


def _mgrs(name: str) -> str:
    return f"MGRS-{name.zfill(5)}"  # publishers differ in the leading zero of the zone


def _text(value: Any) -> str | None:
    return str(value).lower() if value else None


def _int(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _float(value: Any) -> float | None:
    if isinstance(value, str) and value.lower() in ("nan", "inf", "-inf"):
        return float(value)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
