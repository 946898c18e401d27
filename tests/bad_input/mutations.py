"""Damaged STAC items: seeded changes of a real-looking one, at any depth and of the fields that rules read."""

from __future__ import annotations

import random
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
Path = tuple[str | int, ...]

SECRET = "S3CRET"


@dataclass(frozen=True)
class Mutant:
    """A damaged item."""

    item: Any
    fields: frozenset[str]
    """Names in the paths of what was changed: all that its meaning can have changed by."""
    told: str
    """What was done, for a person."""


def mutants(item: Json, seed: str, count: int) -> Iterator[Mutant]:
    """The same for the same seed; each has one change, or up to three."""
    rng = random.Random(seed)
    for _ in range(count):
        damaged: Any = deepcopy(item)
        done: list[tuple[str, list[Path]]] = []
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            change = rng.choice((_field, _field, _field, _field, _replace, _replace, _delete, _swap, _repeat))
            done.append((change.__name__[1:], change(damaged, rng)))
        fields = frozenset(str(part) for _, paths in done for path in paths for part in path)
        yield Mutant(damaged, fields, "; ".join(f"{name} {', '.join(map(_dotted, p))}" for name, p in done))


def nested(depth: int) -> Any:
    """Lists in lists."""
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


WILD: tuple[Any, ...] = (
    None, True, False, 0, -1, 7, 1.5, 1e308, -1e308, 5e-324, 10**30, 10**400, float("nan"), float("inf"), float("-inf"),
    "", " ", "nan", "1e999", "x" * 20_000, "žluťoučký 衛星\n\x00\x1b[31m", "\ud800", "../../..", [], {}, [None], [1, 2],
    ["a"] * 4, [[]], {"a": {"b": [None, {"c": 1}]}}, nested(60),
)  # fmt: skip
"""Values of every type, none of which is what a field asks for."""

_RINGS: tuple[Any, ...] = (
    [[]], [[[11.9, 48.0], [12.1, 48.0], [12.1, 48.1]]],  # empty; open
    [[[48.0, 11.9], [48.1, 11.9], [48.1, 12.1], [48.0, 11.9]]],  # latitude first
    [[[11.9, float("nan")], [12.1, 48.0], [12.1, 48.1], [11.9, float("nan")]]],
    [[[11.9, 48.0, 5.0], [12.1, 48.0, 5.0], [12.1, 48.1, 5.0], [11.9, 48.0, 5.0]]],
    [[[11.9, 48.0], [12.1, 48.1], [12.1, 48.0], [11.9, 48.1], [11.9, 48.0]]],  # crosses itself
    [[[-180, -90], [180, -90], [180, 90], [-180, 90], [-180, -90]]],
)  # fmt: skip
_FIELDS: dict[str, tuple[Any, ...]] = {
    "datetime": (
        "yesterday", "2023-02-30T00:00:00Z", "2023-06-03", "2023-06-03T23:59:60Z", "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59", "2023-06-03T10:10:31", "2023-06-04T10:10:31Z", "20230603T101031Z", 1685787031,
        "2023-06-03T10:10:31Z/2023-06-04T10:10:31Z", "1970-01-01T00:00:00Z", None,
    ),
    "geometry": (None, *({"type": "Polygon", "coordinates": rings} for rings in _RINGS),
                 {"type": "GeometryCollection", "geometries": []}, {"type": "Point", "coordinates": []}),
    "bbox": (
        [], [11.9, 48.0], [11.9, 48.0, 12.1], [48.0, 11.9, 48.1, 12.1], [12.1, 48.1, 11.9, 48.0], [11.9, 48.1, 12.1,
        48.0],
        [11.9, 48.0, 0.0, 12.1, 48.1, 9.0], [-180, -90, 180, 90], [float("nan")] * 4, [float("-inf"), -90,
        float("inf"), 90],
        [-1e308, -1e308, 1e308, 1e308], ["11.9", "48.0", "12.1", "48.1"], [None] * 4, [[11.9, 48.0, 12.1, 48.1]],
        "world",
        [10**400, 0, 10**400, 1], [True] * 4, {"xmin": 11.9}, [11.9, 91, 12.1, 95],
    ),
    "proj:code": (None, "EPSG:", "EPSG:999999", "EPSG:4978", "EPSG:5773", "EPSG:²", "EPSG:99999999999999999999",
        "epsg:4326",
                  "IAU_2015:30100", "EPSG:32633", 32632, "EPSG:-1", "EPSG:0"),
    "proj:epsg": (None, 0, -1, 999999, 10**12, 1e300, float("nan"), float("inf"), "32632", 32632.5, 4978, 5773, True,
        32633),
    "proj:shape": ([0, 0], [-1, -1], [1], [1, 1], "12", ["a", "b"], [float("nan"), 1], [2**40, 2**40], [1.5, 1.5],
        [None, None],
                   {"a": 1, "b": 2}),
    "proj:transform": (
        [0, 0, 0, 0, 0, 0], [0, 0, 600000, 0, -10, 5300000], [10, 0, 600000, 0, 10, 5300000], [-10, 0, 600000, 0, 10,
        5300000],
        [7, 7, 600000, 7, -7, 5300000], [1, 1, 0, 1, 1, 0], [float("nan")] * 6, [10, 0, float("inf"), 0, -10, 5300000],
        ["10"] * 6, "abcdef", "123456", [None] * 6, [10, 0, 600000], [1e308, 0, 1e308, 0, -1e308, 1e308], [1e-300] * 6,
        [10, 0, 10**400, 0, -10, 0],
    ),
    "raster:bands": ([], None, [None], "bands", [{"scale": 0, "offset": 1}], {"scale": 2}, [[]]),
    "scale": (0, -1, 2, float("inf"), float("nan"), "0.0001", "one", 5e-324, True, None, [], 10**400),
    "offset": (0, 1, -0.1, -1e308, float("inf"), float("nan"), "-0.1", True, None, {}, 10**400),
    "nodata": (None, "nan", "none", float("inf"), -1, 1e400, [0], True, 10**400),
    "unit": ("dB", "linear", None, 5, "K"),
    "href": (
        "", ".", "/", "#", "?", "B04.tif#2", "../" * 60 + "etc/passwd", "ftp://host/B04.tif", "http://[::1/B04.tif",
        "gopher:x",
        f"https://user:{SECRET}@host/B04.tif?sig={SECRET}",
        f"s3://user:{SECRET}@sentinel-s2-l2a/B04.tif?X-Amz={SECRET}",
        f"//user:{SECRET}@host/B04.tif", "s3://", "https:///B04.tif", "file://relative", "\n", "a\nb.tif", "a\x00b",
        None, 5,
        "C:\\data\\B04.tif", "https://host:port/B04.tif", "x" * 50_000,
    ),
    "id": ("", " ", "a/b", "../../etc", "..", "a\nb", "\x00", "x" * 20_000, "žluťoučký", "\ud800", None, 5, ["a"],
        True),
    "collection": (None, "", "another", 5, ["sentinel-2-l2a"], "\ud800"),
    "platform": (None, 5, ["a"], "\ud800", "x\ny"),
    "eo:cloud_cover": (None, -1, 101, 1e308, float("nan"), float("inf"), "12", [], True, 10**400),
    "sat:orbit_state": (None, "sideways", "Ascending", 5, ["ascending"], "a\nb", "\ud800", "x" * 20_000),
    "sat:relative_orbit": (None, -1, 1.5, 1e300, 10**12, float("nan"), float("inf"), "5", True),
    "sar:product_type": (None, "grd", 5, []),
    "s2:processing_baseline": (None, 5.09, "5.9", "05.09.1", "99.99", "04.00", "02.14", "٠٥.٠٩", [], ""),
    "s2:product_uri": (None, "S2A_N9999_", 5, "_N0400_"),
    "earthsearch:boa_offset_applied": (None, "false", "true", 0, 1, [], {}, True, False),
    "grid:code": (None, 5, "MGRS-", "\ud800", "x\ny", "MGRS-33TWL", []),
    "updated": ("2024-01-01", 5, None, [], {"a": float("nan")}),
    "stac_version": (None, "9.9.9", 1, []),
    "type": (None, "Collection", 5),
    "properties": (None, [], "datetime", {}, {"datetime": "2023-06-03T10:10:31Z"}),
    "assets": (None, [], "red", {}, {"red": None}, {"red": {}}, {"vv": "a.tif", "vh": []}, ["red"],
        {"map": {"href": {}}}),
}  # fmt: skip
"""What goes wrong in fields that have a meaning. `_HOME` tells where those live that an item may not have."""
_HOME = {
    "id": (),
    "collection": (),
    "bbox": (),
    "geometry": (),
    "properties": (),
    "assets": (),
    "stac_version": (),
    "type": (),
}


def _field(item: Any, rng: random.Random) -> list[Path]:
    """Give a field a value that is wrong in its own way."""
    name = rng.choice(tuple(_FIELDS))
    found = [path for path in _paths(item) if path[-1] == name]
    if not found:
        if not isinstance(item, dict) or not isinstance(item.get("properties"), dict):
            return []
        found = [(name,)] if name in _HOME else [("properties", name)]
    path = rng.choice(found)
    _set(item, path, deepcopy(rng.choice(_FIELDS[name])))
    return [path]


def _replace(item: Any, rng: random.Random) -> list[Path]:
    """Put a value of any type anywhere."""
    path = _walk(item, rng)
    if not path:
        return []
    _set(item, path, deepcopy(rng.choice(WILD)))
    return [path]


def _delete(item: Any, rng: random.Random) -> list[Path]:
    path = _walk(item, rng)
    if not path:
        return []
    del _get(item, path[:-1])[path[-1]]
    return [path]


def _repeat(item: Any, rng: random.Random) -> list[Path]:
    """Shuffle a list, or have one of its elements twice."""
    lists = [path for path in _paths(item) if isinstance(_get(item, path), list) and _get(item, path)]
    if not lists:
        return []
    path = rng.choice(lists)
    values = _get(item, path)
    if rng.random() < 0.5:
        rng.shuffle(values)
    else:
        values.insert(rng.randrange(len(values)), deepcopy(rng.choice(values)))
    return [path]


def _swap(item: Any, rng: random.Random) -> list[Path]:
    """Exchange two values, neither of which holds the other."""
    one, other = _walk(item, rng), _walk(item, rng)
    if one[: len(other)] == other or other[: len(one)] == one:
        return []
    first, second = _get(item, one), _get(item, other)
    _set(item, one, second)
    _set(item, other, first)
    return [one, other]


def _walk(item: Any, rng: random.Random) -> Path:
    """A path from the top, in which each part of an object is as likely as the others; empty where there is none."""
    path: Path = ()
    while True:
        value = _get(item, path)
        keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
        if not keys or len(path) > 8 or (path and rng.random() < 0.25):
            return path
        path = (*path, rng.choice(keys))


def _paths(value: Any, at: Path = ()) -> Iterator[Path]:
    """Of everything in it; not within what was nested on purpose."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield (*at, key)
        if len(at) < 8:
            yield from _paths(part, (*at, key))


def _get(value: Any, path: Path) -> Any:
    for key in path:
        value = value[key]
    return value


def _set(value: Any, path: Path, new: Any) -> None:
    _get(value, path[:-1])[path[-1]] = new


def _dotted(path: Path) -> str:
    return ".".join(map(str, path))
