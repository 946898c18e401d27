"""What happened to one chip, scene or shard, and why: from receipts, the plan, notes and the ledger."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import typer
from numpy.typing import NDArray

from eo_batch.core.errors import UsageError
from eo_batch.core.grid import block_of, parse_chip_id
from eo_batch.core.receipts import Receipt, Source
from eo_batch.core.shards import Shard
from eo_batch.core.utm import WGS84, project
from eo_batch.entry.run import Run
from eo_batch.entry.work import troubles
from eo_batch.io.tables import read_table


def show_why(run: Run, key: str) -> None:
    """The story of a chip; else the ledger's rows about a scene or shard, or its receipt while there is no ledger."""
    lines = list(_chip(run, key)) or list(_ledger(run, key))
    if not lines:
        raise UsageError(
            f"{key!r} is no chip, scene or shard that {run.spec.name} has something to tell about; "
            "chip ids look like u33n-2560m-r01992-c00195 and are listed in chips.parquet, shard keys in receipts/"
        )
    for line in lines:
        typer.echo(line)


def _chip(run: Run, chip_id: str) -> Iterator[str]:
    """For each sensor and time bin the outcome, then what happened to each file that could have given it pixels."""
    shards = _shards_of(run, chip_id)
    missing = []
    for shard in shards:
        receipt = run.receipt("chips", shard.key)
        if receipt is None:
            missing.append(shard.key)
            continue
        yield f"{chip_id} {shard.sensor} {shard.bin_key}: {_outcome(receipt, chip_id)}"
        for source in receipt.sources:
            yield f"  {source.scene} {source.band}: {_file(source)}"
        for note in receipt.notes:
            yield f"  {note.subject}: {note.text}"
    told = {trouble.shard: trouble for trouble in troubles(run, "chips", missing)}
    for shard in shards:
        if shard.key in missing:
            trouble = told.get(shard.key)
            text = "not done yet"
            if trouble is not None and trouble.failure is not None:
                text = f"{'quarantined' if trouble.quarantined else 'given up'} after {trouble.tries} tries: "
                text += trouble.failure
            yield f"{chip_id} {shard.sensor} {shard.bin_key}: {text}"
    yield from _left_out(run, chip_id, shards)


def _shards_of(run: Run, chip_id: str) -> list[Shard]:
    """Shards that make a chip; none for what is no chip of the run."""
    try:
        cell = parse_chip_id(chip_id)
    except UsageError:
        return []
    block, shards = block_of(cell, run.spec.grid.block_chips), run.plan.shards
    if block not in shards.blocks:
        return []
    number = shards.blocks.index(block)
    if not shards.places[number, block.place(cell)]:
        return []
    return [shards[index] for index in np.flatnonzero(shards.block == number).tolist()]


def _outcome(receipt: Receipt, chip_id: str) -> str:
    share = receipt.valid.get(chip_id)
    spares = sum(source.state == "spare" for source in receipt.sources)
    parts: list[str] = [receipt.chips[chip_id]]
    parts += [f"{100 * share:.1f} % valid"] if share is not None else []
    parts += [f"{spares} of {len(receipt.sources)} files replaced by a spare"] if spares else []
    return ", ".join(parts)


def _file(source: Source) -> str:
    parts: list[str] = [source.state + (f": {source.detail}" if source.detail else "")]
    parts += [f"offset {source.offset_dn:g} ({source.offset_reason})"] if source.offset_reason else []
    parts += [f"{source.tries} tries"] if source.tries > 1 else []
    return ", ".join(parts)


def _left_out(run: Run, chip_id: str, shards: list[Shard]) -> Iterator[str]:
    """Scenes that were not used, though they reach the chip's centre."""
    scenes = run.plan.scenes
    for row in np.flatnonzero(np.isin(scenes.sensor, [shard.sensor for shard in shards])):
        if scenes.refusal[row] is not None and _reaches(scenes.bounds[row], int(scenes.epsg[row]), chip_id):
            yield f"  {scenes.scene_id[row]} {scenes.sensor[row]}: left out: {scenes.refusal[row]}"


def _reaches(bounds: NDArray[np.float64], epsg: int, chip_id: str) -> bool:
    cell = parse_chip_id(chip_id)
    x_min, y_min, x_max, y_max = cell.bounds
    x, y = project(cell.epsg, epsg, np.array([(x_min + x_max) / 2]), np.array([(y_min + y_max) / 2]))
    turns = (-360.0, 0.0, 360.0) if epsg == WGS84 else (0.0,)
    across = any(bounds[0] <= float(x[0]) + turn <= bounds[2] for turn in turns)
    return across and bool(bounds[1] <= float(y[0]) <= bounds[3])


def _ledger(run: Run, key: str) -> Iterator[str]:
    ledger_key = f"{run.identity.prefix('publish')}/ledger.parquet"
    rows = read_table(run.store, ledger_key).to_pylist() if run.store.exists(ledger_key) else _from_receipts(run)
    for row in rows:
        if key not in (row.get("scene"), f"{row['sensor']}/{row.get('bin')}/{row.get('block')}"):
            continue
        subject = row.get("chip_id") or row.get("scene") or ""
        place = " ".join(str(row[k]) for k in ("sensor", "bin", "band") if row.get(k))
        share = f", {100 * row['valid']:.1f} % valid" if row.get("valid") is not None else ""
        cause = f": {row['cause']}" if row.get("cause") else ""
        yield f"{subject} {place}: {row['state']}{share}{cause}"


def _from_receipts(run: Run) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for shard in run.plan.shards:
        receipt = run.receipt("chips", shard.key)
        place = {"sensor": shard.sensor, "bin": shard.bin_key, "block": shard.block.key}
        for chip_id in shard.chip_ids:
            state = receipt.chips[chip_id] if receipt else "not done yet"
            valid = receipt.valid.get(chip_id) if receipt else None
            rows.append({**place, "level": "chip", "chip_id": chip_id, "state": state, "valid": valid})
        for source in receipt.sources if receipt else ():
            rows.append(
                {
                    **place,
                    "level": "source",
                    "scene": source.scene,
                    "band": source.band,
                    "state": source.state,
                    "cause": source.detail,
                }
            )
    return rows
