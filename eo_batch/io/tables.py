"""Tables as Parquet bytes: deterministic, with a geometry column as GeoParquet where there is one."""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from eo_batch.core.errors import DataError, StoreMissing
from eo_batch.io.store import Store


def parquet_bytes(table: pa.Table) -> bytes:
    """Parquet, zstd-compressed. Equal tables give equal bytes with one pyarrow version."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", row_group_size=65536, store_schema=True)
    return sink.getvalue()


def read_table(store: Store, key: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A whole Parquet object. Raises DataError if it is missing or cut short."""
    try:
        data = store.get(key)
    except StoreMissing as error:
        raise DataError(f"{store.href(key)} is missing; run the stage that writes it") from error
    return table_of_bytes(data, store.href(key), columns)


def table_of_bytes(data: bytes, where: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The table that Parquet bytes hold. Raises DataError, naming `where`, if they were cut short."""
    try:
        # One thread: Arrow's pool can still hold an object of this interpreter when it exits (apache/arrow 34314).
        chosen = list(columns) if columns is not None else None
        return pq.ParquetFile(io.BytesIO(data)).read(columns=chosen, use_threads=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{where} is not a whole Parquet file ({error}); delete it and run again") from error


def with_geometry(table: pa.Table) -> pa.Table:
    """The table with GeoParquet 1.1 metadata for `geometry`, polygons in longitude and latitude (WKB, OGC:CRS84)."""
    geo: Mapping[str, Any] = {
        "version": "1.1.0",
        "primary_column": "geometry",
        "columns": {"geometry": {"encoding": "WKB", "geometry_types": ["Polygon"]}},
    }
    metadata = dict(table.schema.metadata or {})
    metadata[b"geo"] = json.dumps(geo, sort_keys=True).encode()
    return table.replace_schema_metadata(metadata)
