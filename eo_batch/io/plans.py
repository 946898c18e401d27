"""The plan in the store: scenes frozen first, then everything that follows from them.

    scenes.parquet           every scene without its files, and the names of the pages that hold them
    scenes/<digest>.parquet  pages of neighbouring scenes with their files
    cells.parquet            the cells
    shards/<page>.parquet    pages of consecutive shards, with the positions of their scenes

`scenes.parquet` is written once with a put-if-absent, after its pages, and together they are all that a plan knows of
the outside world; whoever loses the race uses the winner's. Cells and shards follow from it, so any planner writes the
same. A worker reads one page of shards, and the few pages that hold the scenes of its shard.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eo_batch.core import layout
from eo_batch.core.errors import DataError, StoreMissing, UsageError
from eo_batch.core.grid import Cells, parse_block_key
from eo_batch.core.plan import Plan, SceneColumns
from eo_batch.core.scenes import Scene
from eo_batch.core.shards import Shard, Shards
from eo_batch.core.spec import RunSpec
from eo_batch.io.scenepages import Pages, scenes_of_page
from eo_batch.io.scenetable import SceneTable
from eo_batch.io.store import Store
from eo_batch.io.tables import parquet_bytes, read_table, table_of_bytes

PAGE_SCENES = 1024
"""Scenes of a page: enough that those of a shard are on few pages, few enough that little is read in vain."""
PAGE_SHARDS = 512
_WRITERS = 8
"""Pages in work at once: while some wait for the store, others are compressed."""
_PAGES = b"pages"
"""Where the index of scenes names the pages."""
_FACTS = b"plan"
"""What a page of shards knows of the whole plan."""


@dataclass(frozen=True)
class FrozenScenes:
    """The scenes of a plan as they are in the store."""

    columns: SceneColumns
    pages: tuple[str, ...]
    """Names of the pages that hold their files, in the scenes' order."""


def save_scenes(store: Store, prefix: str, found: SceneTable, scenes: SceneColumns) -> FrozenScenes:
    """Freeze the scenes of a plan; returns those that count, which are another planner's if it was faster.

    scenes: the columns of `found`.
    """
    pages = Pages(found)

    def write(first: int) -> str:
        data = parquet_bytes(pages.page(first, PAGE_SCENES))
        name = hashlib.sha256(data).hexdigest()[:16]
        store.put(layout.scenes_page(prefix, name), data)
        return name

    with ThreadPoolExecutor(_WRITERS) as pool:
        names = tuple(pool.map(write, range(0, len(found), PAGE_SCENES)))
    columns = {name: getattr(scenes, name) for name in ("sensor", "scene_id", "epsg", "refusal", "look")}
    index = pa.table(
        {
            **columns,
            "moment": pa.array(scenes.moment_us).cast(pa.timestamp("us", tz="UTC")),
            **{name: scenes.bounds[:, i] for i, name in enumerate(_BOUNDS)},
            "digest": pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(16), len(scenes), [None, pa.py_buffer(scenes.digest.tobytes())]
            ),
        },
        schema=_INDEX.with_metadata({_PAGES: json.dumps(names)}),
    )
    if store.put_if_absent(layout.scenes_index(prefix), parquet_bytes(index)):
        return FrozenScenes(scenes, names)
    return load_scenes(store, prefix)


def has_scenes(store: Store, prefix: str) -> bool:
    """Whether the plan is frozen."""
    return store.exists(layout.scenes_index(prefix))


def load_scenes(store: Store, prefix: str) -> FrozenScenes:
    """The frozen scenes of a plan."""
    table = read_table(store, layout.scenes_index(prefix)).combine_chunks()
    return FrozenScenes(_columns(table), tuple(json.loads(table.schema.metadata[_PAGES])))


def _columns(table: pa.Table) -> SceneColumns:
    digest = table.column("digest").combine_chunks()
    return SceneColumns(
        table.column("sensor").to_numpy(zero_copy_only=False),
        table.column("scene_id").to_numpy(zero_copy_only=False),
        table.column("moment").cast(pa.int64()).to_numpy(),
        table.column("epsg").to_numpy(),
        np.stack([table.column(name).to_numpy() for name in _BOUNDS], axis=-1),
        table.column("refusal").to_numpy(zero_copy_only=False),
        table.column("look").to_numpy(zero_copy_only=False),
        np.frombuffer(digest.buffers()[1], "V16")[digest.offset : digest.offset + len(digest)],
    )


def save_plan(store: Store, prefix: str, plan: Plan, scene_pages: Sequence[str]) -> dict[str, int]:
    """Write cells and shards; returns the bytes of each object by key below the prefix.

    scene_pages: names of the pages of the plan's scenes.
    """
    cells = {name: getattr(plan.cells, name) for name in _CELLS.names[1:]}
    table = pa.table(
        {"chip_id": plan.cells.chip_ids(), **cells}, schema=_CELLS.with_metadata({"chip_m": str(plan.cells.chip_m)})
    )

    def write(page: int | None) -> tuple[str, int]:
        key = layout.cells(prefix) if page is None else layout.shards_page(prefix, page)
        data = parquet_bytes(table if page is None else _shards_page(plan.shards, page, scene_pages))
        store.put(key, data)
        return key.removeprefix(f"{prefix}/"), len(data)

    with ThreadPoolExecutor(_WRITERS) as pool:
        return dict(pool.map(write, (None, *range(-(-len(plan.shards) // PAGE_SHARDS)))))


def _shards_page(shards: Shards, page: int, names: Sequence[str]) -> pa.Table:
    rows = slice(page * PAGE_SHARDS, min((page + 1) * PAGE_SHARDS, len(shards)))
    start = shards.start[rows.start : rows.stop + 1]
    scenes = shards.scenes[start[0] : start[-1]]
    places = np.packbits(shards.places, axis=1)[shards.block[rows]]
    blocks = pa.array([shards.blocks[number].key for number in shards.block[rows].tolist()])
    facts = {
        "shards": len(shards),
        "sensors": shards.sensors,
        "bins": shards.bin_keys,
        "pages": {number: names[number] for number in np.unique(scenes // PAGE_SCENES).tolist()},
    }
    return pa.table(
        {
            "index": np.arange(rows.start, rows.stop),
            "sensor": np.array(shards.sensors, object)[shards.sensor[rows]],
            "bin": np.array(shards.bin_keys, object)[shards.bin[rows]],
            "block": blocks,
            "places": [own.tobytes() for own in places],
            "scenes": pa.ListArray.from_arrays(pa.array(start - start[0], pa.int32()), pa.array(scenes)),
            **{name: getattr(shards, name)[rows] for name in ("inputs", "memory_bytes", "read_bytes", "write_bytes")},
        },
        schema=_SHARDS.with_metadata({_FACTS: json.dumps(facts)}),
    )


def load_plan(store: Store, prefix: str) -> Plan:
    """A frozen plan. Raises DataError if it is not there."""
    with ThreadPoolExecutor(3) as pool:  # three round trips at once
        cells = pool.submit(load_cells, store, prefix)
        scenes = pool.submit(load_scenes, store, prefix)
        shards = pool.submit(_shard_pages, store, prefix)
        return Plan(cells.result(), scenes.result().columns, _shards_of(shards.result(), cells.result()))


def load_cells(store: Store, prefix: str) -> Cells:
    """The cells of a frozen plan. Raises DataError if it is not there."""
    table = read_table(store, layout.cells(prefix))
    chip_m = int(table.schema.metadata[b"chip_m"])
    return Cells(chip_m, *(table.column(name).to_numpy(zero_copy_only=False) for name in _CELLS.names[1:]))


def load_found_shards(store: Store, prefix: str, spec: RunSpec, cells: Cells) -> Shards | None:
    """All shards of a frozen plan where they alone tell which time bins there are; None where the spec does."""
    return _shards_of(_shard_pages(store, prefix), cells) if spec.time.found else None


def _shard_pages(store: Store, prefix: str) -> list[pa.Table]:
    key = layout.shards_page(prefix, 0)
    first = read_table(store, key)
    facts = json.loads(first.schema.metadata[_FACTS])
    keys = [layout.shards_page(prefix, page) for page in range(1, -(-facts["shards"] // PAGE_SHARDS))]
    try:
        return [first, *(table_of_bytes(d, store.href(k)) for k, d in zip(keys, store.get_many(keys), strict=True))]
    except StoreMissing as error:
        raise DataError(f"{error}; run the stage that writes it") from error


def _shards_of(pages: Sequence[pa.Table], cells: Cells) -> Shards:
    first = pages[0]
    facts = json.loads(first.schema.metadata[_FACTS])
    table = pa.concat_tables([page.replace_schema_metadata() for page in pages]).combine_chunks()
    blocks, places = cells.blocks_and_places(parse_block_key(first.column("block")[0].as_py()).side)
    scenes = table.column("scenes").combine_chunks()
    known = {"sensor": facts["sensors"], "bin": facts["bins"], "block": [block.key for block in blocks]}
    numbers = {name: pc.index_in(table.column(name), pa.array(names)).to_numpy() for name, names in known.items()}
    sizes = {name: table.column(name).to_numpy() for name in ("memory_bytes", "read_bytes", "write_bytes")}
    return Shards(
        blocks,
        places,
        tuple(facts["sensors"]),
        tuple(facts["bins"]),
        start=np.asarray(scenes.offsets).astype(np.int64),
        scenes=np.asarray(scenes.values),
        inputs=table.column("inputs").to_numpy(zero_copy_only=False),
        **numbers,
        **sizes,
    )


@dataclass(frozen=True)
class FoundShard:
    """A shard, found without the rest of its plan."""

    shard: Shard
    pages: tuple[tuple[str, tuple[int, ...]], ...]
    """Names of the pages that hold its scenes, each with their positions on it."""


def load_shard(store: Store, prefix: str, index: int) -> FoundShard:
    """One shard of a frozen plan. Raises UsageError if it has none of that index, DataError if there is no plan."""
    page, row = divmod(index, PAGE_SHARDS)
    try:
        table = read_table(store, layout.shards_page(prefix, max(page, 0)))
    except DataError:
        if page > 0:
            _check_index(index, read_table(store, layout.shards_page(prefix, 0)))
        raise
    _check_index(index, table)
    names = json.loads(table.schema.metadata[_FACTS])["pages"]
    found = table.slice(row, 1).to_pylist()[0]
    positions = np.array(found["scenes"], np.int64)
    on_page = positions // PAGE_SCENES
    pages = tuple(
        (names[str(page)], tuple((positions[on_page == page] % PAGE_SCENES).tolist()))
        for page in np.unique(on_page).tolist()
    )
    block = parse_block_key(found["block"])
    places = np.flatnonzero(np.unpackbits(np.frombuffer(found["places"], np.uint8), count=block.side**2))
    shard = Shard(
        index,
        found["sensor"],
        block,
        found["bin"],
        tuple(places.tolist()),
        tuple(positions.tolist()),
        *(found[name] for name in ("inputs", "memory_bytes", "read_bytes", "write_bytes")),
    )
    return FoundShard(shard, pages)


def _check_index(index: int, page: pa.Table) -> None:
    count = json.loads(page.schema.metadata[_FACTS])["shards"]
    if not 0 <= index < count:
        raise UsageError(f"chips has no shard {index}; it has 0 to {count - 1}")


def load_scenes_of(store: Store, prefix: str, found: FoundShard) -> list[Scene]:
    """The scenes of a shard, with their files, in the plan's order."""
    keys = [layout.scenes_page(prefix, name) for name, _ in found.pages]
    pages: Iterator[bytes] = store.get_many(keys)
    scenes: list[Scene] = []
    for key, data, (_, rows) in zip(keys, pages, found.pages, strict=True):
        scenes.extend(scenes_of_page(table_of_bytes(data, store.href(key)), rows))
    return scenes


def load_all_scenes(store: Store, prefix: str) -> list[Scene]:
    """All frozen scenes with their files, refused ones included."""
    keys = [layout.scenes_page(prefix, name) for name in load_scenes(store, prefix).pages]
    scenes: list[Scene] = []
    for key, data in zip(keys, store.get_many(keys), strict=True):
        page = table_of_bytes(data, store.href(key))
        scenes.extend(scenes_of_page(page, range(len(page))))
    return scenes


_BOUNDS = ("x_min", "y_min", "x_max", "y_max")
_INDEX = pa.schema(
    [
        ("sensor", pa.string()),
        ("scene_id", pa.string()),
        ("moment", pa.timestamp("us", tz="UTC")),
        ("epsg", pa.int32()),
        *((name, pa.float64()) for name in _BOUNDS),
        ("refusal", pa.string()),
        ("look", pa.string()),
        ("digest", pa.binary(16)),
    ]
)
_CELLS = pa.schema(
    [
        ("chip_id", pa.string()),
        ("epsg", pa.int32()),
        ("row", pa.int32()),
        ("col", pa.int32()),
        ("owner", pa.bool_()),
        ("lon", pa.float64()),
        ("lat", pa.float64()),
    ]
)
_SHARDS = pa.schema(
    [
        ("index", pa.int32()),
        ("sensor", pa.string()),
        ("bin", pa.string()),
        ("block", pa.string()),
        ("places", pa.binary()),
        ("scenes", pa.list_(pa.int32())),
        ("inputs", pa.string()),
        ("memory_bytes", pa.int64()),
        ("read_bytes", pa.int64()),
        ("write_bytes", pa.int64()),
    ]
)
