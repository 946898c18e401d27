"""Rows of stac-geoparquet to scenes, in columns.

Rows that are equal in all that the rules of `core.stacitems` look at are one group, and the rules are asked once for
each group, about an item made from its first row. Only what is a row's own is taken from the columns themselves: id,
time, platform, box, cloud cover, addresses, and the tile where nothing but the id tells it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from eo_batch.core.columns import Ints
from eo_batch.core.radiometry import BASELINE_PROPERTIES, PRODUCT_PROPERTIES, baseline_of
from eo_batch.core.scenes import Scene
from eo_batch.core.spec import SensorSpec
from eo_batch.core.stacitems import (
    OF_THEIR_OWN,
    RULE_PROPERTIES,
    address,
    asset_keys,
    scene_of_item,
    tile_in_id,
    tile_stated,
)
from eo_batch.core.stated import parse_time
from eo_batch.core.timebins import microseconds
from eo_batch.core.utm import Floats
from eo_batch.io.scenetable import SceneTable, concat, kind_of, scene_table

_REMOTE = r"^(https?|s3|gs|az)://[^/:@?#\[\]]+/"
"""Addresses that need no closer look."""
_HEAD = r"^(?P<head>[^/]*//[^/]*/?[^/]*)"
"""Scheme, host and first folder: nothing behind them decides which bucket an address points into."""
_RULE_COLUMNS = frozenset(RULE_PROPERTIES) - {*BASELINE_PROPERTIES, *PRODUCT_PROPERTIES}
"""Properties that are told to the rules as they are; the baseline is found first."""
_LONGEST = 9
"""Elements of a list that the rules look at: an affine transform has that many at most."""
_EARLIEST_US, _LATEST_US = (microseconds(moment.replace(tzinfo=UTC)) for moment in (datetime.min, datetime.max))
"""Times that Python has: a column can hold others."""
_ANY = {"datetime": "1970-01-01T00:00:00Z"}


Ruled = tuple[Scene, str | None, str | None]
"""What the rules say of a row: the kind of its scene, a refusal, and the tile if it is stated."""
Known = dict[str, Ruled]
"""The same of rows that were met before, by all that the rules looked at."""


def scenes_of_rows(
    rows: pa.Table, sensor_name: str, sensor: SensorSpec, base_href: str, known: Known | None = None
) -> SceneTable:
    """Scenes of a sensor, one for each row. Raises CatalogError, naming the item, where a row is no usable item.

    known: of earlier calls about the same sensor and base address; it is added to.
    """
    if sensor.kind in OF_THEIR_OWN:
        return scene_table(scene_of_item(item, sensor_name, sensor, base_href) for item in _whole_items(rows))
    asked = _Asked(sensor_name, sensor, base_href, {} if known is None else known)
    rows = rows.combine_chunks()
    files = _column(rows, "assets")
    listed = {key.partition("#")[0] for _, keys in asset_keys(sensor) for key in keys}
    keys = {key for key in listed if files.type.get_field_index(key) >= 0}
    there = {key: pc.struct_field(files, [key]) for key in sorted(keys)}
    hrefs = {key: pc.struct_field(files, [key, "href"]) for key in there if _has_href(files.type, key)}
    # Which files a row has decides which of them it is asked for: rows that have the same are taken together.
    has = [_valid(column) for column in (files, *there.values(), *hrefs.values())]
    group = _combined(column.astype(np.int64) for column in has)
    parts = [np.flatnonzero(group == number) for number in range(int(group.max()) + 1)]
    if len(parts) == 1:
        return _alike(rows, asked)
    found = concat([_alike(rows.take(pa.array(part)), asked) for part in parts])
    return found.take(np.argsort(np.concatenate(parts)))


@dataclass(frozen=True)
class _Asked:
    """The rules about single items, asked about what was not met before."""

    sensor_name: str
    sensor: SensorSpec
    base_href: str
    known: Known

    def about(self, row: Mapping[str, Any], baseline: str | None, heads: Mapping[str, str | None]) -> Ruled:
        """What the rules say of a row; heads: what counts of the addresses of its files."""
        item_id, files = row["id"] if row.get("collection") is None else "", row["assets"] or {}
        bare = {key: file and {**file, "href": key in heads and (heads[key],)} for key, file in files.items()}
        looked_at = repr((item_id, baseline, {**row, "id": "", "assets": bare}))
        if looked_at not in self.known:
            item = _item(row, baseline)
            scene = scene_of_item(item, self.sensor_name, self.sensor, self.base_href)
            self.known[looked_at] = kind_of(scene), scene.refusal, tile_stated(item["properties"])
        return self.known[looked_at]


def _alike(rows: pa.Table, asked: _Asked) -> SceneTable:
    """Scenes of rows that have the same files."""
    files, ids = _column(rows, "assets"), _column(rows, "id").cast(pa.string())
    chosen = _chosen(files, asked.sensor)
    files_of = dict.fromkeys(key for key, _ in chosen)
    stated = {key: pc.struct_field(files, [key, "href"]).cast(pa.large_string()) for key in files_of}
    named = {key: absolute(hrefs, asked.base_href) for key, hrefs in stated.items()}
    heads = {key: _heads(hrefs, stated[key]) for key, hrefs in named.items()}
    baseline = _baselines(rows)
    group = _combined(_looked_at(rows, files, ids, heads, baseline))
    first = _firsts(group)
    at = pa.array(first)
    shown = [name for name in rows.column_names if name in ("id", "collection", *_RULE_COLUMNS)]
    told = zip(
        rows.select([*shown, "assets"]).take(at).to_pylist(),
        baseline[first].tolist(),
        pa.table({key: head.take(at) for key, head in heads.items()}).to_pylist() or [{} for _ in first],
        strict=True,
    )
    kinds, refusals, tiles = zip(*(asked.about(*one) for one in told), strict=True)
    tile = pa.array(tiles, pa.string()).take(pa.array(group))
    if tile.null_count:
        tile = pc.coalesce(tile, pa.array([tile_in_id(one) for one in ids.to_pylist()], pa.string()))
    cloud, platform = _column(rows, "eo:cloud_cover"), _column(rows, "platform")
    return SceneTable(
        kinds,
        group.astype(np.int32),
        ids,
        tile,
        _lower(platform, len(rows)),
        moments(rows)[2],
        boxes(rows),
        np.full(len(rows), np.nan) if cloud is None or not _is_number(cloud.type) else _finite(_floats(cloud)),
        np.array(refusals, object)[group],
        _interleaved([_part_of(pc.fill_null(named[key], ""), part) for key, part in chosen], len(rows)),
        np.full(len(rows), -1, np.int64),
    )


def _chosen(files: pa.StructArray, sensor: SensorSpec) -> list[tuple[str, str]]:
    """Keys and parts of the files that each of these rows is read from, in order; all rows have the same."""
    chosen = []
    for _, keys in asset_keys(sensor):
        parts = (key.partition("#")[::2] for key in keys)
        listed = ((key, part) for key, part in parts if files.type.get_field_index(key) >= 0)
        key, part = next(((k, p) for k, p in listed if pc.struct_field(files, [k])[0].is_valid), ("", ""))
        if key and _has_href(files.type, key) and pc.struct_field(files, [key, "href"])[0].is_valid:
            chosen.append((key, part))
    return chosen


def _part_of(hrefs: pa.Array, part: str) -> pa.Array:
    return pc.binary_join_element_wise(hrefs, pa.scalar(part, pa.large_string()), "#") if part else hrefs


def _whole_items(rows: pa.Table) -> Iterator[dict[str, Any]]:
    """Items of rows, as far as the rules look at them."""
    own = {"id", "collection", "assets", "bbox"}
    for row, bbox in zip(rows.drop_columns("bbox").to_pylist(), boxes(rows).tolist(), strict=True):
        item = {name: row[name] for name in ("id", "collection") if row.get(name) is not None}
        properties = {n: str(v) if isinstance(v, datetime) else v for n, v in row.items() if n not in own}
        yield item | {"bbox": bbox, "properties": _present(properties), "assets": _without_nulls(row["assets"] or {})}


def _looked_at(
    rows: pa.Table, files: pa.StructArray, ids: pa.Array, heads: Mapping[str, pa.Array], baseline: NDArray[np.object_]
) -> Iterator[Ints]:
    """All that the rules look at, as numbers."""
    collection = _column(rows, "collection")
    yield from _numbers(ids if collection is None else pc.coalesce(collection.cast(pa.string()), ids))
    yield from _numbers(pa.array(baseline, pa.string()))
    for name in rows.column_names:
        if name in _RULE_COLUMNS:
            yield from _numbers(_column(rows, name))
    for key, head in heads.items():
        yield from _numbers(head)
        part = pc.struct_field(files, [key])
        for field in part.type:
            if field.name != "href":
                yield from _numbers(pc.struct_field(part, [field.name]))


def _item(row: Mapping[str, Any], baseline: Any) -> dict[str, Any]:
    """The item of a row, as far as the rules look at it."""
    properties = {name: value for name, value in row.items() if name in _RULE_COLUMNS and value is not None}
    if baseline is not None:
        properties[BASELINE_PROPERTIES[0]] = baseline
    item = {"id": row["id"], "collection": row.get("collection"), "bbox": [0, 0, 0, 0], "properties": _ANY | properties}
    if row["assets"] is not None:
        item["assets"] = _without_nulls(row["assets"])
    return item


def _baselines(rows: pa.Table) -> NDArray[np.object_]:
    """Processing baseline of each row; products' names are looked at where no property states it."""
    stated = [name for name in BASELINE_PROPERTIES if name in rows.column_names]
    group = _combined(code for name in stated for code in _numbers(_column(rows, name)))
    group = group if len(group) else np.zeros(len(rows), np.int64)
    first = _firsts(group)
    told = [baseline_of(_present(row)) for row in rows.select(stated).take(pa.array(first)).to_pylist() or [{}]]
    found = np.array(told, object)[group]
    products = [name for name in PRODUCT_PROPERTIES if name in rows.column_names]
    silent = np.flatnonzero(found == None)  # noqa: E711  # element by element
    if products and len(silent):
        found[silent] = [baseline_of(_present(r)) for r in rows.select(products).take(pa.array(silent)).to_pylist()]
    return found


def moments(rows: pa.Table) -> tuple[Ints, Ints, Ints, NDArray[np.bool_]]:
    """First, last and middle time of each row, microseconds since 1970, and whether it has one."""
    begin, end, told = (_instants(rows, name) for name in ("start_datetime", "end_datetime", "datetime"))
    first, last = (np.where(told[1], told[0], other[0]) for other in (begin, end))
    half, odd = np.divmod(last - first, 2)
    middle = first + half + (odd & half & 1)  # rounded half to even, as `timedelta` does
    return first, last, middle, told[1] | (begin[1] & end[1])


def boxes(rows: pa.Table) -> Floats:
    """(row, 4) west, south, east, north; NaN where a row has no box. Raises ValueError for a column of another kind."""
    box = _column(rows, "bbox")
    if box is not None and pa.types.is_struct(box.type):
        names = ("xmin", "ymin", "xmax", "ymax")
        return np.stack([_floats(pc.struct_field(box, [name])) for name in names], axis=-1)
    if box is None or not _is_list(box.type):
        raise ValueError("it has no bounding boxes")
    length = pc.list_value_length(box).fill_null(0).to_numpy(zero_copy_only=False)
    if not np.isin(length, (0, 4, 6)).all():
        raise ValueError("it has bounding boxes of other than 4 or 6 numbers")
    parts = {j: _floats(_element(box, j)) for j in range(int(length.max(initial=4)))}
    east, north = (np.where(length == 6, parts[j + 1], parts[j]) if 5 in parts else parts[j] for j in (2, 3))
    return np.stack([parts[0], parts[1], east, north], axis=-1)


def absolute(hrefs: pa.Array, base_href: str) -> pa.Array:
    """Addresses made absolute, as `address` does; null where one is none."""
    plain = pc.and_(pc.match_substring_regex(hrefs, _REMOTE), pc.utf8_is_printable(hrefs))
    if pc.all(plain, min_count=0).as_py():
        return hrefs
    return pa.array([_address(href, base_href) for href in hrefs.to_pylist()], pa.large_string())


def _address(stated: str, base_href: str) -> str | None:
    try:
        return address(stated, base_href)
    except ValueError:
        return None


def _heads(hrefs: pa.Array, stated: pa.Array) -> pa.Array:
    """What counts of addresses; null where they have no host, and all of what is none."""
    first = re.match(_HEAD, hrefs[0].as_py() or "")
    if first and pc.all(pc.starts_with(hrefs, f"{first['head']}/"), skip_nulls=False).as_py():
        return pa.repeat(first["head"], len(hrefs))
    head = pc.struct_field(pc.extract_regex(hrefs, _HEAD), "head").cast(pa.string())
    return pc.if_else(hrefs.is_valid(), head, stated.cast(pa.string()))


def _instants(rows: pa.Table, name: str) -> tuple[Ints, NDArray[np.bool_]]:
    """A column of times in microseconds since 1970, and where it has one."""
    column = _column(rows, name)
    if column is None or pa.types.is_null(column.type):
        return np.zeros(len(rows), np.int64), np.zeros(len(rows), bool)
    if pa.types.is_temporal(column.type):
        times = column.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
    else:
        times = pa.array([None if v is None else microseconds(parse_time(v)) for v in column.to_pylist()])
    found = times.fill_null(0).to_numpy()
    return found, _valid(times) & (found >= _EARLIEST_US) & (found <= _LATEST_US)


def _numbers(column: pa.Array) -> Iterator[Ints]:
    """A column of any kind as columns of numbers that are equal where its values are; none if all are equal."""
    if pa.types.is_struct(column.type):
        yield _valid(column).astype(np.int64)
        for part in column.flatten():
            yield from _numbers(part)
    elif _is_list(column.type):
        lengths = pc.list_value_length(column).fill_null(-1).to_numpy(zero_copy_only=False)
        yield lengths.astype(np.int64) + 1
        for j in range(min(int(lengths.max(initial=0)), _LONGEST)):
            yield from _numbers(_element(column, j))
    elif not pa.types.is_null(column.type):
        codes = column if pa.types.is_dictionary(column.type) else column.dictionary_encode("encode")
        yield codes.indices.fill_null(len(codes.dictionary)).to_numpy(zero_copy_only=False).astype(np.int64)


def _element(lists: pa.Array, j: int) -> pa.Array:
    """Element j of each list; null where it has none."""
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
    at = np.cumsum(lengths) - lengths + j
    return lists.flatten().take(pa.array(at, pa.int64(), mask=lengths <= j))


def _combined(columns: Iterator[Ints]) -> Ints:
    """Rows that are equal in all columns of numbers are one group, numbered as they come."""
    group = np.zeros(0, np.int64)
    for column in columns:
        if not len(group):
            group = np.zeros(len(column), np.int64)
        if column.max(initial=0) != column.min(initial=0):
            joined = pa.array(group * (int(column.max()) + 1) + column).dictionary_encode()
            group = joined.indices.to_numpy().astype(np.int64)
    return group


def _firsts(group: Ints) -> Ints:
    """Position of the first row of each group."""
    first = np.empty(int(group.max()) + 1, np.int64)
    first[group[::-1]] = np.arange(len(group))[::-1]
    return first


def _interleaved(columns: Sequence[pa.Array], rows: int) -> pa.ListArray:
    """One list a row of the values of several columns."""
    n = len(columns)
    every = pa.concat_arrays(columns) if columns else pa.array([], pa.large_string())
    order = np.arange(n * rows).reshape(n, rows).T.ravel()
    return pa.ListArray.from_arrays(pa.array(np.arange(rows + 1, dtype=np.int32) * n), every.take(pa.array(order)))


def _lower(text: Any, n: int) -> pa.StringArray:
    if text is None:
        return pa.array([""]).take(pa.array(np.zeros(n, np.int64)))
    return pc.fill_null(pc.utf8_lower(text.cast(pa.string())), "")


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _column(rows: pa.Table, name: str) -> Any:
    """A column as one array; None if it is not there."""
    return rows.column(name).combine_chunks() if name in rows.column_names else None


def _has_href(files: pa.StructType, key: str) -> bool:
    part = files.field(key).type
    return bool(pa.types.is_struct(part) and part.get_field_index("href") >= 0)


def _valid(column: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(column.is_valid().to_numpy(zero_copy_only=False))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _finite(values: Floats) -> Floats:
    return np.where(np.isfinite(values), values, np.nan)


def _floats(column: pa.Array) -> Floats:
    return np.asarray(column.cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False))


def _present(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}


def _without_nulls(value: Any) -> Any:
    """A table gives every row the columns of all others: what an item does not have comes as null."""
    if isinstance(value, dict):
        return {key: _without_nulls(part) for key, part in value.items() if part is not None}
    return [_without_nulls(part) for part in value] if isinstance(value, list) else value
