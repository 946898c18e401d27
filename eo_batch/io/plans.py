"""The plan in the store: scenes frozen first, then everything that follows from them; and the cube's axes.

`scenes.parquet` is written once with a put-if-absent and is all that a plan knows of the outside world;
whoever loses the race uses the winner's. Cells and shards follow from it, so any planner writes the same.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC

import pyarrow as pa

from eo_batch.core import layout
from eo_batch.core.errors import DataError, StoreError
from eo_batch.core.grid import Block, PlannedCell, block_of, parse_chip_id
from eo_batch.core.plan import Axes, Plan, Shard
from eo_batch.core.scenes import Asset, Scene
from eo_batch.io.store import Store
from eo_batch.io.tables import parquet_bytes, read_table

_AXES_TRIES = 50


def save_scenes(store: Store, prefix: str, scenes: Sequence[Scene]) -> list[Scene]:
    """Freeze the scenes of a plan; returns those that count, which are another planner's if it was faster."""
    rows = [
        {
            **{key: value for key, value in asdict(scene).items() if key not in ("assets", "spare", "bbox")},
            "bbox": list(scene.bbox),
            "assets": json.dumps([asdict(asset) for asset in scene.assets]),
            "spare": json.dumps([asdict(asset) for asset in scene.spare]),
        }
        for scene in scenes
    ]
    table = pa.Table.from_pylist(rows, schema=_SCENES)
    store.put_if_absent(f"{prefix}/scenes.parquet", parquet_bytes(table))
    return load_scenes(store, prefix)


def has_scenes(store: Store, prefix: str) -> bool:
    """Whether the plan is frozen."""
    return store.exists(f"{prefix}/scenes.parquet")


def load_scenes(store: Store, prefix: str) -> list[Scene]:
    """The frozen scenes of a plan."""
    rows = read_table(store, f"{prefix}/scenes.parquet").to_pylist()
    return [
        Scene(
            **{
                **row,
                "moment": row["moment"].astimezone(UTC),
                "bbox": tuple(row["bbox"]),
                "assets": _assets(row["assets"]),
                "spare": _assets(row["spare"]),
            }
        )
        for row in rows
    ]


def save_plan(store: Store, prefix: str, plan: Plan) -> dict[str, int]:
    """Write cells and shards; returns the bytes of each object by key below the prefix."""
    cells = pa.Table.from_pylist(
        [
            {
                "chip_id": p.cell.chip_id,
                "epsg": p.cell.epsg,
                "row": p.cell.row,
                "col": p.cell.col,
                "owner": p.owner,
                "lon": p.lon,
                "lat": p.lat,
            }
            for p in plan.cells
        ],
        schema=_CELLS,
    )
    shards = pa.Table.from_pylist(
        [
            {
                "index": s.index,
                "sensor": s.sensor,
                "epsg": s.block.epsg,
                "block_row": s.block.row,
                "block_col": s.block.col,
                "chip_m": s.block.chip_m,
                "side": s.block.side,
                "bin": s.bin_key,
                "chip_ids": list(s.chip_ids),
                "scene_ids": list(s.scene_ids),
                "inputs": s.inputs,
                "memory_bytes": s.memory_bytes,
                "read_bytes": s.read_bytes,
                "write_bytes": s.write_bytes,
            }
            for s in plan.shards
        ],
        schema=_SHARDS,
    )
    sizes = {}
    for name, table in (("cells.parquet", cells), ("shards.parquet", shards)):
        data = parquet_bytes(table)
        store.put(f"{prefix}/{name}", data)
        sizes[name] = len(data)
    return sizes


def load_plan(store: Store, prefix: str) -> Plan:
    """A frozen plan. Raises DataError if it is not there."""
    cells = tuple(
        PlannedCell(parse_chip_id(row["chip_id"]), row["owner"], row["lon"], row["lat"])
        for row in read_table(store, f"{prefix}/cells.parquet").to_pylist()
    )
    shards = tuple(
        Shard(
            row["index"],
            row["sensor"],
            Block(row["epsg"], row["block_row"], row["block_col"], row["chip_m"], row["side"]),
            row["bin"],
            tuple(row["chip_ids"]),
            tuple(row["scene_ids"]),
            row["inputs"],
            row["memory_bytes"],
            row["read_bytes"],
            row["write_bytes"],
        )
        for row in read_table(store, f"{prefix}/shards.parquet").to_pylist()
    )
    side = shards[0].block.side
    blocks = tuple(sorted({block_of(planned.cell, side) for planned in cells}))
    return Plan(cells, blocks, tuple(load_scenes(store, prefix)), shards)


def load_axes(store: Store, chips_prefix: str) -> Axes:
    """The cube's axes: all entries in order."""
    return _axes_and_count(store, chips_prefix)[0]


def place_plan(store: Store, chips_prefix: str, plan: Plan) -> Axes:
    """Give the blocks and time bins of a plan their place in the cube."""
    bins = dict.fromkeys(shard.bin_key for shard in plan.shards)
    return extend_axes(store, chips_prefix, [block.key for block in plan.blocks], list(bins))


def extend_axes(store: Store, chips_prefix: str, blocks: Sequence[str], bins: Sequence[str]) -> Axes:
    """Give blocks and bins their place in the cube, after what is there; safe against another planner.

    Raises StoreError if entries can't be appended.
    """
    for _ in range(_AXES_TRIES):
        axes, number = _axes_and_count(store, chips_prefix)
        wanted = axes.extended(blocks, bins)
        if wanted == axes:
            return axes
        entry = {"blocks": wanted.blocks[len(axes.blocks) :], "bins": wanted.bins[len(axes.bins) :]}
        if store.put_if_absent(layout.axis_entry(chips_prefix, number), json.dumps(entry).encode()):
            return wanted
    raise StoreError(f"{store.href(chips_prefix)}: the cube's axes could not be extended; run again")


def _axes_and_count(store: Store, chips_prefix: str) -> tuple[Axes, int]:
    """The axes and the number of entries that they come from: the next entry follows those, or not at all."""
    axes, keys = Axes(), list(store.list(layout.axes_prefix(chips_prefix)))
    for key in keys:
        try:
            entry = json.loads(store.get(key))
            axes = axes.extended(entry["blocks"], entry["bins"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{store.href(key)} is not an axes entry: {error}") from error
    return axes, len(keys)


def _assets(text: str) -> tuple[Asset, ...]:
    return tuple(
        Asset(
            **{
                **row,
                "transform": tuple(row["transform"]) if row["transform"] else None,
                "shape": tuple(row["shape"]) if row["shape"] else None,
            }
        )
        for row in json.loads(text)
    )


_SCENES = pa.schema(
    [
        ("scene_id", pa.string()),
        ("collection", pa.string()),
        ("sensor", pa.string()),
        ("moment", pa.timestamp("us", tz="UTC")),
        ("bbox", pa.list_(pa.float64())),
        ("tile", pa.string()),
        ("platform", pa.string()),
        ("baseline", pa.string()),
        ("orbit_state", pa.string()),
        ("relative_orbit", pa.int32()),
        ("cloud_pct", pa.float64()),
        ("assets", pa.string()),
        ("spare", pa.string()),
        ("spare_id", pa.string()),
        ("refusal", pa.string()),
        ("ambiguous", pa.bool_()),
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
        ("epsg", pa.int32()),
        ("block_row", pa.int32()),
        ("block_col", pa.int32()),
        ("chip_m", pa.int32()),
        ("side", pa.int32()),
        ("bin", pa.string()),
        ("chip_ids", pa.list_(pa.string())),
        ("scene_ids", pa.list_(pa.string())),
        ("inputs", pa.string()),
        ("memory_bytes", pa.int64()),
        ("read_bytes", pa.int64()),
        ("write_bytes", pa.int64()),
    ]
)
