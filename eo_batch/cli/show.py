"""What commands print: tables for people, JSON for programs."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table

from eo_batch.core import layout
from eo_batch.core.errors import StoreError
from eo_batch.core.estimate import Line, total
from eo_batch.core.plan import Plan
from eo_batch.core.prices import Amounts, Prices
from eo_batch.core.spec import RunSpec
from eo_batch.entry.run import Run
from eo_batch.entry.status import status_json, status_of

if TYPE_CHECKING:
    from eo_batch.io.aws import InitReport

_SHOWN_BEGUN = 20


def show_plan(spec: RunSpec, plan: Plan, as_json: bool, lines: Sequence[Line], prices: Prices | None = None) -> None:
    """Shards, chips, scenes and bytes of a plan, by sensor; what the run will take, by stage."""
    rows: list[dict[str, Any]] = []
    for name in spec.sensors:
        shards, own = plan.shards, plan.shards.of_sensor(name)
        rows.append(
            {
                "sensor": name,
                "shards": int(own.sum()),
                "scenes": shards.used_scenes(name),
                "left_out": plan.scenes.left_out(name),
                "read_bytes": int(shards.read_bytes[own].sum()),
                "write_bytes": int(shards.write_bytes[own].sum()),
                "memory_bytes": int(shards.memory_bytes[own].max(initial=0)),
            }
        )
    zones = Counter(plan.cells.epsg.tolist())
    if as_json:
        summary = {"run": spec.name, "chips": len(plan.cells), "blocks": len(plan.blocks), "zones": dict(zones)}
        typer.echo(json.dumps({**summary, "sensors": rows, "estimate": _estimate_json(lines, prices)}, indent=1))
        return
    where = ", ".join(f"{count} in EPSG:{epsg}" for epsg, count in sorted(zones.items()))
    typer.echo(f"{spec.name}: {len(plan.cells)} chips of {spec.grid.chip_m} m ({where}) in {len(plan.blocks)} blocks")
    table = Table("sensor", *(_right(t) for t in ("shards", "scenes", "left out", "read", "write", "memory a shard")))
    for row in rows:
        sizes = [_size(row[key]) for key in ("read_bytes", "write_bytes", "memory_bytes")]
        table.add_row(row["sensor"], *(str(row[key]) for key in ("shards", "scenes", "left_out")), *sizes)
    Console().print(table)
    typer.echo("Bytes are pixels before compression; memory is what one worker needs.")
    _show_estimate(lines, prices)


def _show_estimate(lines: Sequence[Line], prices: Prices | None) -> None:
    titles = ["shards", "CPU hours", "requests", "fetched", "objects", "stored"]
    titles += [prices.currency] if prices else []
    table = Table("estimate", *(_right(title) for title in titles))
    for name, took in [(line.work.name, line.amounts) for line in lines] + [("all", _total(lines))]:
        row = [f"{took.shards}", f"{took.cpu_s / 3600:.3g}", f"{took.requests:.0f}", _size(took.fetched_bytes)]
        row += [f"{took.writes:.0f}", _size(took.stored_bytes)]
        table.add_row(name, *row, *([f"{prices.cost(took):.2f}"] if prices else []))
    Console().print(table)
    for source in dict.fromkeys(line.source for line in lines):
        typer.echo(f"Measured on: {source}.")
    if prices:
        typer.echo(f"Prices of {prices.as_of}: {prices.source}. Storage for {prices.months_stored:g} months.")
    else:
        typer.echo("No price table: give one with --prices (docs/cost.md).")


def _estimate_json(lines: Sequence[Line], prices: Prices | None) -> dict[str, Any]:
    def one(took: Amounts) -> dict[str, Any]:
        return {**asdict(took), **({"cost": prices.cost(took)} if prices else {})}

    stages = [
        {"stage": line.work.stage, "sensor": line.work.sensor, **one(line.amounts), "calibration": line.source}
        for line in lines
    ]
    return {"stages": stages, "total": one(_total(lines)), "currency": prices.currency if prices else None}


def _total(lines: Sequence[Line]) -> Amounts:
    return total([line.amounts for line in lines])


def show_status(run: Run, as_json: bool, waits: Sequence[str] = ()) -> None:
    """Shards done and missing, by stage, and what pods have noted about those that are missing; `waits` is what keeps
    pods from running.
    """
    stages = status_of(run)
    if as_json:
        typer.echo(json.dumps(status_json(run.spec.name, stages, waits), indent=1))
        return
    table = Table("stage", *(_right(t) for t in ("done", "CPU", "read", "written")))
    for row in stages:
        sizes = (_size(row.bytes_in), _size(row.bytes_out))
        table.add_row(row.stage, f"{row.done} of {row.shards}", f"{row.cpu_seconds:.1f} s", *sizes)
    Console().print(table)
    told = [(row.stage, note) for row in stages for note in row.notes]
    for stage, note in told:
        if note.quarantined:
            typer.echo(f"{stage} {note.shard}: quarantined after {note.tries} tries: {note.failure}")
        elif note.failure is not None:
            typer.echo(f"{stage} {note.shard}: given up after {note.tries} tries: {note.failure}")
    if any(note.quarantined for _, note in told):
        typer.echo("Shards in quarantine are not tried again until `eo-batch run --retry-quarantined`.")
    begun = [(stage, note) for stage, note in told if note.failure is None]
    for stage, note in begun[:_SHOWN_BEGUN]:
        typer.echo(f"{stage} {note.shard}: try {note.tries}, begun {note.since} on {note.host}")
    if len(begun) > _SHOWN_BEGUN:
        typer.echo(f"… and {len(begun) - _SHOWN_BEGUN} more shards that were begun")
    for wait in waits:
        typer.echo(f"waiting: {wait}")


def show_probe(run: Run) -> None:
    """What the embeddings are worth, in a few lines; nothing for a run without a probe."""
    if run.spec.probe is None:
        return
    key = layout.metrics(run.identity.prefix("probe"), "summary.json")
    summary = json.loads(run.store.get(key))
    scores = ", ".join(f"{name} {facts['r2_mean']:.3f}" for name, facts in summary["encoders"].items())
    typer.echo(f"probe of {summary['target']}: R² on {summary['test_chips']} held-out chips: {scores}")
    for name, margin in summary["margins_over"].items():
        interval = ""
        if margin["low"] is not None:
            interval = f", 95 % interval {margin['low']:+.3f} to {margin['high']:+.3f}"
        spread = f" ± {margin['std']:.3f}" if margin["std"] is not None else ""
        typer.echo(f"  pretrained over {name}: {margin['mean']:+.3f}{spread} ({margin['seeds']} seeds{interval})")


def show_init(report: "InitReport") -> None:
    """What was done to a bucket; exit code 4 if a step that was asked for did not hold."""
    typer.echo(str(report))
    if not report.complete:
        raise StoreError("not every step holds; see the lines above")


def _right(title: str) -> Any:
    from rich.table import Column

    return Column(title, justify="right")


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
