"""Which offset is left to correct in a Sentinel-2 L2A file: decided per file, never guessed.

From processing baseline 04.00 on, ESA adds 1000 to every valid digital number (DN), so reflectance =
(DN - 1000) / 10000. Some publishers take it out again, but not in all their files:

  bucket                              rule
  sentinel-cogs (Element 84 v0, v1)   the item's `*:boa_offset_applied`; without it the baseline, if below 04.00
  e84-earth-search-sentinel-data,     the baseline; `raster:bands.offset` is checked against it
  deafrica-sentinel-2-l2a-c1 (c1)
  sentinel-s2-l2a (ESA on AWS)        the baseline; the item's flag speaks of another bucket's files
  sentinel2l2a01 (Planetary Computer) the baseline
  anything else                       the flag if the item has one, else the baseline if below 04.00

Files that no rule can classify are refused unless the spec declares `offset_dn`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from eo_batch.core.stated import number

ESA_OFFSET_DN = -1000.0
"""What ESA's baseline 04.00 asks to be added to a DN (ESA, S2 Processing Baseline 04.00, January 2022)."""

_OFFSET_FROM = (4, 0)
_BASELINE_IN_NAME = re.compile(r"_N(\d{2})\.?(\d{2})(?:_|$)")
_AS_ESA_BUCKETS = ("sentinel-s2-l2a", "sentinel2l2a01", "e84-earth-search-sentinel-data", "deafrica-sentinel-2-l2a")
BASELINE_PROPERTIES = ("s2:processing_baseline", "processing:version", "sentinel:processing_baseline")
"""Properties that state the processing baseline."""
PRODUCT_PROPERTIES = ("s2:product_uri", "s2:granule_id", "sentinel:product_id")
"""Properties with a product's name, which holds the baseline."""
OFFSET_FLAGS = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied", "s2:boa_offset_applied")


@dataclass(frozen=True)
class OffsetDecision:
    """What is known about one file's offset."""

    offset_dn: float | None
    """To be added to every valid DN; None if nobody can say."""
    reason: str


def baseline_of(properties: Mapping[str, Any]) -> str | None:
    """Processing baseline `NN.NN` of an item, from its property or else from the product's name."""
    for key in BASELINE_PROPERTIES:
        value = str(properties.get(key, ""))
        if re.fullmatch(r"\d{2}\.\d{2}", value):
            return value
    for key in PRODUCT_PROPERTIES:
        if match := _BASELINE_IN_NAME.search(str(properties.get(key, "")).removesuffix(".SAFE")):
            return f"{match[1]}.{match[2]}"
    return None


def bucket_of(href: str) -> str:
    """Bucket or account that an address points into; empty for plain paths."""
    parts = urlsplit(href)
    place = parts.netloc.rpartition("@")[2]  # a user and what he is let in with are no part of it
    if parts.scheme in ("http", "https"):
        host = place.split(":")[0]
        if host.startswith(("s3.", "s3-")):  # path style: the bucket is the first folder
            return parts.path.lstrip("/").split("/", 1)[0]
        return host.split(".", 1)[0]
    return place


def s2_offset(href: str, properties: Mapping[str, Any], raster_bands: Any, declared_dn: int | None) -> OffsetDecision:
    """Decide the offset of one Sentinel-2 L2A file; see the table above."""
    if declared_dn is not None:
        return OffsetDecision(float(declared_dn), f"declared by the spec: offset_dn={declared_dn}")
    baseline = baseline_of(properties)
    by_baseline = _by_baseline(baseline)
    flag = next((properties[key] for key in OFFSET_FLAGS if properties.get(key) is not None), None)
    bucket = bucket_of(href)
    if bucket.startswith(_AS_ESA_BUCKETS):
        stated = _stated_offset(raster_bands)
        if by_baseline.offset_dn is not None and stated is not None and stated != by_baseline.offset_dn:
            return OffsetDecision(None, f"the item states offset {stated:g} DN, but {by_baseline.reason}")
        return OffsetDecision(by_baseline.offset_dn, f"bucket {bucket} keeps ESA's numbers: {by_baseline.reason}")
    if flag is not None and flag not in (True, False):  # tables of which some rows have no flag hold 1.0 and 0.0
        return OffsetDecision(None, f"the item's flag on it is {ascii(flag)[:40]}, neither true nor false")
    if flag:
        return OffsetDecision(0.0, "the item says that the offset is already applied")
    if flag is not None:
        return OffsetDecision(by_baseline.offset_dn, f"the item says offset not applied, {by_baseline.reason}")
    if by_baseline.offset_dn == 0.0:
        return by_baseline
    return OffsetDecision(None, f"no flag tells whether the offset is applied, and {by_baseline.reason}")


def _by_baseline(baseline: str | None) -> OffsetDecision:
    if baseline is None:
        return OffsetDecision(None, "the processing baseline is unknown")
    major, minor = (int(part) for part in baseline.split("."))
    if (major, minor) < _OFFSET_FROM:
        return OffsetDecision(0.0, f"baseline {baseline} is before 04.00")
    return OffsetDecision(ESA_OFFSET_DN, f"baseline {baseline} carries +1000")


def _stated_offset(raster_bands: Any) -> float | None:
    """`raster:bands` offset in DN, if stated."""
    if not (isinstance(raster_bands, list) and raster_bands and isinstance(raster_bands[0], Mapping)):
        return None
    offset, scale = number(raster_bands[0].get("offset")), number(raster_bands[0].get("scale"))
    if offset is None or not scale:
        return None
    return round(offset / scale, 6)
