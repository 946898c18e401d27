"""Stage `publish`: what the chips are worth knowing about, in four tables.

chips.parquet      GeoParquet, one row a chip: where it is, its split, of each sensor and bin what became of it and how
                   valid it is, its class proportions by area, and how many points lie in it
bandstats.parquet  one row a chip, bin, array and band: count, mean, standard deviation
ledger.parquet     one row for every chip x sensor x bin with its outcome, and for every file and scene that was
                   lost, replaced or left out, with the cause
stats.json         mean and standard deviation of every band over the training chips, for models
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from eo_batch.core import layout
from eo_batch.core.errors import DataError
from eo_batch.core.grid import block_of, outline
from eo_batch.core.identity import Identity
from eo_batch.core.plan import Axes, Plan
from eo_batch.core.receipts import Receipt
from eo_batch.core.shards import only_scenes_differ
from eo_batch.core.spec import RunSpec
from eo_batch.core.splits import Split, split_cells
from eo_batch.io.receipts import read_receipt
from eo_batch.io.store import Store
from eo_batch.io.tables import parquet_bytes, read_table, with_geometry
from eo_batch.pixels.moments import EMPTY, Moments, merge


def run(spec: RunSpec, plan: Plan, axes: Axes, store: Store) -> Receipt:
    """Write the tables of a run whose chips are done. Raises DataError if a chips receipt is missing."""
    identity = Identity(spec)
    chips_prefix, prefix = identity.prefix("chips"), identity.prefix("publish")
    receipts = [_receipt(store, chips_prefix, key) for key in plan.shards.keys]
    summary = pa.concat_tables(read_table(store, layout.summary(chips_prefix, key)) for key in plan.shards.keys)
    labels = [array.name for array in spec.arrays() if array.spec.kind == "classes"]
    is_label = pc.is_in(summary["array"], pa.array(labels, pa.string()))
    bands = _bandstats(summary.filter(pc.invert(is_label)))
    splits = split_cells(plan.cells, spec.split)
    points = [array.name for array in spec.arrays() if array.spec.kind == "points"]
    counts = bands.filter(pc.is_in(bands["array"], pa.array(points, pa.string())))
    chips = _chips(plan, axes, splits, receipts, summary.filter(is_label), counts)
    written = {
        "chips.parquet": parquet_bytes(with_geometry(chips)),
        "bandstats.parquet": parquet_bytes(bands),
        "ledger.parquet": parquet_bytes(_ledger(plan, receipts)),
        "stats.json": json.dumps(_stats(plan, splits, bands), indent=1, sort_keys=True).encode(),
    }
    for name, data in written.items():
        store.put(f"{prefix}/{name}", data)
    return Receipt(
        stage="publish", shard="publish", inputs=prefix, outputs={name: len(data) for name, data in written.items()}
    )


def _receipt(store: Store, prefix: str, shard: str) -> Receipt:
    receipt = read_receipt(store, prefix, shard)
    if receipt is None:
        raise DataError(f"shard {shard} has no receipt; finish the chips first (`eo-batch run` does)")
    return receipt


def _chips(
    plan: Plan, axes: Axes, splits: Sequence[Split], receipts: Sequence[Receipt], labels: pa.Table, counts: pa.Table
) -> pa.Table:
    side = plan.blocks[0].side
    rows: dict[str, dict[str, Any]] = {}
    for planned, split in zip(plan.cells, splits, strict=True):
        cell = planned.cell
        block = block_of(cell, side)
        x_min, _, _, y_max = cell.bounds
        rows[cell.chip_id] = {
            "chip_id": cell.chip_id,
            "geometry": shapely.to_wkb(outline(cell)),
            "epsg": cell.epsg,
            "x0": float(x_min),
            "y0": float(y_max),
            "lon": planned.lon,
            "lat": planned.lat,
            "owner": planned.owner,
            "split": split,
            "block": block.key,
            "slot": axes.first_slot(block) + block.place(cell),
        }
    for shard, receipt in zip(plan.shards, receipts, strict=True):
        place = f"{shard.sensor}:{shard.bin_key}"
        for chip_id, state in receipt.chips.items():
            rows[chip_id][f"state:{place}"] = state
            rows[chip_id][f"valid:{place}"] = receipt.valid.get(chip_id)
    for row in counts.to_pylist():
        if row["n"]:
            rows[row["chip_id"]][f"count:{row['array']}:{row['band']}"] = round(row["mean"] * row["n"])
    columns: dict[str, pa.Array] = {field.name: _column(rows, field.name, field.type) for field in _CHIPS}
    for prefix, kind in _PER_BIN.items():
        for name in sorted({key for row in rows.values() for key in row if key.startswith(prefix)}):
            columns[name] = _column(rows, name, kind)
    areas: dict[tuple[str, str], dict[int, float]] = {}
    for row in labels.to_pylist():
        areas.setdefault((row["array"], row["chip_id"]), {})[row["code"]] = row["area_m2"]
    codes = sorted({(array, code) for (array, _), by_code in areas.items() for code in by_code})
    for array, code in codes:
        shares = []
        for chip_id in rows:
            by_code = areas.get((array, chip_id), {})
            total = sum(by_code.values())
            shares.append(by_code.get(code, 0) / total if total else None)
        columns[f"share:{array}:{code}"] = pa.array(shares, pa.float64())
    return pa.table(columns)


def _column(rows: dict[str, dict[str, Any]], name: str, kind: pa.DataType) -> pa.Array:
    return pa.array([row.get(name) for row in rows.values()], kind)


def _bandstats(summary: pa.Table) -> pa.Table:
    n = summary["n"].to_numpy()
    std = np.sqrt(summary["m2"].to_numpy() / np.maximum(n, 1))
    return (
        summary.drop_columns(["code", "m2", "area_m2"])
        .append_column("std", pa.array(std, pa.float64()))
        .sort_by([("chip_id", "ascending"), ("bin", "ascending"), ("array", "ascending"), ("band", "ascending")])
    )


def _stats(plan: Plan, splits: Sequence[Split], bands: pa.Table) -> dict[str, dict[str, dict[str, float]]]:
    """Mean and deviation of each array's bands over owner chips of the training part (of all, if it is empty)."""
    owners = {p.cell.chip_id for p in plan.cells if p.owner}
    training = {p.cell.chip_id for p, s in zip(plan.cells, splits, strict=True) if s == "train" and p.owner}
    chosen = training or owners
    merged: dict[tuple[str, str], Moments] = {}
    for row in bands.to_pylist():
        if row["chip_id"] in chosen and row["n"]:
            key = (row["array"], row["band"])
            part = Moments(row["n"], row["mean"], row["std"] ** 2 * row["n"])
            merged[key] = merge(merged.get(key, EMPTY), part)
    stats: dict[str, dict[str, dict[str, float]]] = {}
    for (array, band), sums in merged.items():
        stats.setdefault(array, {})[band] = {"n": sums.n, "mean": sums.mean, "std": sums.std}
    return stats


def _ledger(plan: Plan, receipts: Sequence[Receipt]) -> pa.Table:
    rows: list[dict[str, Any]] = []
    scenes = plan.scenes
    for sensor, scene_id, cause in zip(scenes.sensor, scenes.scene_id, scenes.refusal, strict=True):
        if cause is not None:
            rows.append({"level": "scene", "sensor": sensor, "scene": scene_id, "state": "left out", "cause": cause})
    for shard, receipt in zip(plan.shards, receipts, strict=True):
        place = {"sensor": shard.sensor, "bin": shard.bin_key, "block": shard.block.key}
        bad = [source for source in receipt.sources if source.state not in ("ok", "outside")]
        if only_scenes_differ(receipt.inputs, shard.inputs):
            text = "made from scenes of an earlier plan; `eo-batch run --refresh` makes it again"
            rows.append({**place, "level": "note", "scene": shard.key, "state": "note", "cause": text})
        cause = "; ".join(f"{s.scene} {s.band}: {s.state} {s.detail}".strip() for s in bad)
        for chip_id, state in receipt.chips.items():
            rows.append(
                {
                    **place,
                    "level": "chip",
                    "chip_id": chip_id,
                    "state": state,
                    "valid": receipt.valid.get(chip_id),
                    "scenes": len(shard.scenes),
                    "cause": cause or _CAUSES[state],
                }
            )
        rows.extend(
            {
                **place,
                "level": "source",
                "scene": s.scene,
                "band": s.band,
                "href": s.href,
                "state": s.state,
                "cause": s.detail,
            }
            for s in bad
        )
        rows.extend(
            {**place, "level": "note", "scene": note.subject, "state": "note", "cause": note.text}
            for note in receipt.notes
        )
    return pa.Table.from_pylist(rows, schema=_LEDGER)


_CAUSES = {
    "ok": "",
    "no_scene": "no scene reaches the chip in this time bin",
    "clouded_out": "every observation is masked (cloud, shadow, saturation)",
    "no_data": "scenes reach the chip but hold no data there",
    "read_failed": "files that cover the chip could not be read",
}
_CHIPS = pa.schema(
    [
        ("chip_id", pa.string()),
        ("geometry", pa.binary()),
        ("epsg", pa.int32()),
        ("x0", pa.float64()),
        ("y0", pa.float64()),
        ("lon", pa.float64()),
        ("lat", pa.float64()),
        ("owner", pa.bool_()),
        ("split", pa.string()),
        ("block", pa.string()),
        ("slot", pa.int64()),
    ]
)
_PER_BIN = {"state:": pa.string(), "valid:": pa.float64(), "count:": pa.float64()}
"""Columns of `chips.parquet` for each sensor and bin, as `valid:s2:2023-06`; of points for each array and band."""
_LEDGER = pa.schema(
    [
        ("level", pa.string()),
        ("sensor", pa.string()),
        ("bin", pa.string()),
        ("block", pa.string()),
        ("chip_id", pa.string()),
        ("state", pa.string()),
        ("valid", pa.float64()),
        ("scenes", pa.int32()),
        ("scene", pa.string()),
        ("band", pa.string()),
        ("href", pa.string()),
        ("cause", pa.string()),
    ]
)
