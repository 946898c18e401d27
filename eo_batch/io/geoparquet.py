"""Items of a stac-geoparquet file as scenes: row group by row group, and of each only what is looked at."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import local

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from obstore.exceptions import BaseError

from eo_batch.core.errors import CatalogError
from eo_batch.core.spec import SensorSpec
from eo_batch.core.stacitems import RULE_FIELDS, RULE_PROPERTIES, asset_keys, unusable
from eo_batch.core.stated import BAND_FIELDS, LONGEST_NAME, RULE_BANDS, on_earth
from eo_batch.core.telling import one_line, shown
from eo_batch.io.assets import open_asset
from eo_batch.io.catalogs import Query, address_of, catalog_errors, in_time, meets
from eo_batch.io.itemtable import Known, boxes, moments, scenes_of_rows
from eo_batch.io.ranges import RangeFile
from eo_batch.io.scenetable import SceneTable, concat, scene_table
from eo_batch.settings import Settings

_AT_ONCE = 2
"""Row groups in work at once: one is decoded while Python groups the rows of another."""
_ROWS = 2**16
"""Rows whose scenes are made together: the more, the fewer groups of equal rows; the fewer, the less memory."""
_WHERE_AND_WHEN = ("id", "collection", "bbox", "datetime", "start_datetime", "end_datetime", "updated")


def is_geoparquet(catalog: str) -> bool:
    """Whether a catalogue is a stac-geoparquet file, by its name."""
    return shown(catalog).endswith((".parquet", ".geoparquet"))


def scenes_of_geoparquet(
    query: Query,
    sensor_name: str,
    sensor: SensorSpec,
    settings: Settings,
    on_progress: Callable[[int], None] | None = None,
) -> tuple[SceneTable, tuple[str, ...]]:
    """Scenes of all items that the query wants, and the collections that the file holds.

    Raises CatalogError if it is not there or no stac-geoparquet, and naming the item if one is not usable.
    """
    file = _File(query, sensor_name, sensor, settings)
    tables: list[SceneTable] = []
    updated: list[pa.Array] = []
    seen: set[str] = set()
    found = 0
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for part, collections in pool.map(file.part, file.parts):
            seen |= collections
            if part is not None:
                tables.append(part[0])
                updated.append(part[1])
                found += len(part[0])
                if on_progress is not None:
                    on_progress(found)
    table = concat(tables) if tables else scene_table([])
    return _as_listed(table, updated), tuple(sorted(seen - {""}))


class _File:
    """One file and what is wanted of it."""

    def __init__(self, query: Query, sensor_name: str, sensor: SensorSpec, settings: Settings) -> None:
        self.query, self.sensor_name, self.sensor, self.settings = query, sensor_name, sensor, settings
        self.href = address_of(query.catalog)
        self._readers = local()
        self._known: Known = {}
        with catalog_errors(self.href):
            self._client, self._key = open_asset(self.href, settings)
        reader, _ = self._reader()
        rows = [reader.metadata.row_group(i).num_rows for i in range(reader.num_row_groups)]
        self.parts = _parts(rows)
        paths = [reader.schema.column(i).path for i in range(len(reader.schema))]
        schema = reader.schema_arrow
        for name in ("id", "bbox", "assets"):
            if schema.get_field_index(name) < 0:
                raise self._error(f"it has no column {name}")
        if not pa.types.is_struct(schema.field("assets").type):
            raise self._error("its assets are no struct")
        self.names = set(paths)
        self.light = [path for path in paths if _is_of(path, _WHERE_AND_WHEN)]
        self.heavy = [path for path in paths if _is_of(path, (*RULE_PROPERTIES, "eo:cloud_cover", "platform"))]
        for key in dict.fromkeys(key.partition("#")[0] for _, keys in asset_keys(sensor) for key in keys):
            self.heavy += _of_asset(paths, f"assets.{key}")
        if not any(path.startswith("assets.") for path in self.heavy):
            self.heavy.append(next(path for path in paths if path.startswith("assets.")))

    def part(self, groups: Sequence[int]) -> tuple[tuple[SceneTable, pa.Array] | None, set[str]]:
        """Scenes of some row groups and when they were updated, if they have any; and their collections."""
        try:
            return self._part(groups)
        except CatalogError:
            raise
        except BaseError as error:
            with catalog_errors(self.href):
                raise error
        except (pa.ArrowException, KeyError, OSError, OverflowError, TypeError, ValueError) as error:
            raise self._error(one_line(error)) from error

    def _part(self, groups: Sequence[int]) -> tuple[tuple[SceneTable, pa.Array] | None, set[str]]:
        seen: set[str] = set()
        found = [rows for number in groups for rows in [self._wanted(number, seen)] if len(rows)]
        if not found:
            return None, seen
        rows = pa.concat_tables(found)
        updated = rows.column("updated").combine_chunks() if "updated" in rows.column_names else pa.nulls(len(rows))
        table = scenes_of_rows(rows, self.sensor_name, self.sensor, self.href, self._known)
        return (table, updated.cast(pa.string())), seen

    def _wanted(self, number: int, seen: set[str]) -> pa.Table:
        """What is looked at of the items of a row group that the query wants; adds its collections to `seen`."""
        light = self._read(number, self.light)
        collection = light.column("collection") if "collection" in light.column_names else pa.nulls(len(light))
        collection = pc.fill_null(collection.cast(pa.string()), "")
        seen.update(pc.unique(collection).to_pylist())
        first, last, _, timed = moments(light)
        west, south, east, north = box = boxes(light).T
        placed, nowhere = on_earth(*box), np.isnan(box).all(0)
        wanted = _one_of(collection, self.query.collections) & (~placed | meets(west, south, east, north, self.query))
        if (wanted & nowhere).any():
            wanted &= ~nowhere | self._somewhere(number)
        if self.query.start is not None:
            wanted &= ~timed | in_time(first, last, self.query)
        rows = light if wanted.all() else light.filter(pa.array(wanted))
        if not len(rows):
            return rows
        self._check(rows, timed[wanted], placed[wanted])
        heavy = self._read(number, self.heavy)
        heavy = heavy if wanted.all() else heavy.filter(pa.array(wanted))
        for name in heavy.column_names:
            rows = rows.append_column(heavy.schema.field(name), heavy.column(name))
        return rows

    def _somewhere(self, number: int) -> NDArray[np.bool_]:
        """Which items have a geometry; one without that has no box either is nowhere, and STAC allows that."""
        geometry = self._read(number, ["geometry"] if "geometry" in self.names else self.light[:1])
        if "geometry" not in geometry.column_names:
            return np.zeros(len(geometry), bool)
        return np.asarray(geometry.column("geometry").is_valid().to_numpy())

    def _check(self, rows: pa.Table, timed: NDArray[np.bool_], placed: NDArray[np.bool_]) -> None:
        """Raise CatalogError, naming the item, for one without what every item has."""
        ids = rows.column("id").cast(pa.string())
        named = pc.and_(pc.utf8_is_printable(ids), pc.less_equal(pc.utf8_length(ids), LONGEST_NAME))
        named = pc.fill_null(pc.and_(named, pc.match_substring_regex(ids, r"\S")), False).to_numpy()
        for row in np.flatnonzero(~(timed & placed & named))[:1].tolist():
            item = {"id": ids[row].as_py()}
            what = "it has no usable time" if not timed[row] else "its bbox is no place on Earth"
            raise unusable(item, self.href, ValueError(what if named[row] else "its id is no text of one line"))

    def _read(self, number: int, paths: Sequence[str]) -> pa.Table:
        reader, source = self._reader()
        group = reader.metadata.row_group(number)
        chunks = [group.column(i) for i in range(group.num_columns)]
        wanted = [chunk for chunk in chunks if chunk.path_in_schema in set(paths)]
        starts = [min(c.dictionary_page_offset or c.data_page_offset, c.data_page_offset) for c in wanted]
        source.hold(starts, [s + c.total_compressed_size for s, c in zip(starts, wanted, strict=True)])
        return reader.read_row_group(number, columns=list(paths), use_threads=False)

    def _reader(self) -> tuple[pq.ParquetFile, RangeFile]:
        """This thread's reader: a file has one position, which threads can't share."""
        if not hasattr(self._readers, "file"):
            with catalog_errors(self.href):
                source = RangeFile(self._client, self._key)
            try:
                self._readers.file = pq.ParquetFile(source), source
            except (pa.ArrowException, OSError) as error:
                raise self._error(one_line(error)) from error
        file: tuple[pq.ParquetFile, RangeFile] = self._readers.file
        return file

    def _error(self, what: str) -> CatalogError:
        return CatalogError(f"{shown(self.href)} is not stac-geoparquet ({what}); check the address")


def _parts(rows: Sequence[int]) -> list[list[int]]:
    """Row groups, by their numbers of rows, in runs of about `_ROWS`."""
    parts: list[list[int]] = [[]]
    for number, count in enumerate(np.cumsum(rows).tolist()):
        if count > len(parts) * _ROWS and parts[-1]:
            parts.append([])
        parts[-1].append(number)
    return parts


def _is_of(path: str, names: Sequence[str]) -> bool:
    return any(path == name or path.startswith(f"{name}.") for name in names)


def _of_asset(paths: Sequence[str], asset: str) -> list[str]:
    """Columns of an asset that the rules look at; one at least if the file knows the asset, to tell who has it."""
    plain = [f"{asset}.{name}" for name in RULE_FIELDS if name not in RULE_BANDS]
    found = [path for path in paths if _is_of(path, plain)]
    for bands in (f"{asset}.{name}" for name in RULE_BANDS):
        fields = [path for path in paths if path.startswith(f"{bands}.")]
        # A list is three levels of a path: bands.list.element.scale.
        looked_at = [p for p in fields if p.count(".") == bands.count(".") + 3 and p.rsplit(".", 1)[1] in BAND_FIELDS]
        found += looked_at or fields[:1]
    return found or [path for path in paths if path.startswith(f"{asset}.")][:1]


def _one_of(collection: pa.ChunkedArray, wanted: Sequence[str]) -> NDArray[np.bool_]:
    """Whether items are of a wanted collection; those of none are, and so are all if none is named."""
    if not wanted:
        return np.ones(len(collection), bool)
    return np.asarray(pc.is_in(collection, pa.array([*wanted, ""], pa.string())).to_numpy())


def _as_listed(table: SceneTable, updated: Sequence[pa.Array]) -> SceneTable:
    """Scenes that share an id as `search` gives their items: by collection, then by update, each of these once."""
    codes = table.scene_id.dictionary_encode().indices.to_numpy()
    again = np.flatnonzero(np.bincount(codes, minlength=1)[codes] > 1)
    if not len(again):
        return table
    when = pa.concat_arrays(updated)

    def listed(row: int) -> tuple[str, str, bool, str]:
        at = when[row].as_py()
        return table.kinds[table.kind[row]].collection, table.scene_id[row].as_py(), at is None, at or ""

    kept = {listed(row): row for row in again.tolist()}  # of rows alike in these, the last
    others = np.setdiff1d(np.arange(len(table)), again)
    return table.take(np.concatenate([others, np.array([kept[key] for key in sorted(kept)], np.int64)]))
