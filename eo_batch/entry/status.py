"""How far a run is, for people and programs: by its receipts, and by what its pods noted."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from eo_batch.core.errors import DataError
from eo_batch.entry.drive import state_of
from eo_batch.entry.run import Run
from eo_batch.entry.stages import stages_of
from eo_batch.entry.work import Trouble, troubles


@dataclass(frozen=True)
class StageStatus:
    """One stage of a run."""

    stage: str
    done: int
    """Shards with a receipt that counts."""
    shards: int
    cpu_seconds: float
    bytes_in: int
    """Bytes read from sources."""
    bytes_out: int
    """Bytes of the objects that are in the store."""
    notes: tuple[Trouble, ...]
    """On shards that are not done."""


def status_of(run: Run) -> list[StageStatus]:
    """All stages whose shards are known: before the plan is frozen, that is the plan. Raises StoreError."""
    found: list[StageStatus] = []
    for stage in stages_of(run):
        try:
            state = state_of(run, stage)
        except DataError:
            break
        receipts = run.receipts(stage).values()
        found.append(
            StageStatus(
                stage=stage,
                done=state.done,
                shards=len(state.shards),
                cpu_seconds=round(sum(receipt.cpu_seconds for receipt in receipts), 1),
                bytes_in=sum(receipt.bytes_in for receipt in receipts),
                bytes_out=sum(sum(receipt.outputs.values()) for receipt in receipts),
                notes=tuple(troubles(run, stage, (state.shards[index] for index in state.missing))),
            )
        )
    return found


def status_json(name: str, stages: Sequence[StageStatus], waits: Sequence[str] = ()) -> dict[str, Any]:
    """The same for programs; `waits` is what keeps pods from running."""
    rows = [asdict(stage) for stage in stages]
    notes = [{"stage": row["stage"], **note} for row in rows for note in row.pop("notes")]
    return {"run": name, "stages": rows, "notes": notes, "waits": list(waits)}
