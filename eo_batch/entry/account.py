"""What a run covered and what it cost, by its receipts alone."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from eo_batch.core.receipts import ChipState, Receipt
from eo_batch.entry.run import Run
from eo_batch.entry.stages import shards_of, stages_of


@dataclass(frozen=True)
class Coverage:
    """What became of one sensor's chips."""

    sensor: str
    shards: int
    """Shards in the plan."""
    done: int
    """Shards with a receipt."""
    chips: Mapping[ChipState, int]
    """Chips by outcome, over all time bins; a chip counts once a bin."""


@dataclass(frozen=True)
class Cost:
    """What the shards of one stage took when they were made, be it by this run or by an earlier one over the same
    data."""

    stage: str
    shards: int
    seconds: float
    """Wall time, summed over shards."""
    cpu_seconds: float
    bytes_in: int
    """Bytes of source files that were fetched."""
    bytes_out: int
    requests: int
    """Read requests that were sent to stores of source data."""

    def price(self, per_cpu_hour: float) -> float:
        """CPU hours times a price, in its currency. Idle cores, memory, storage and requests are not in it."""
        return self.cpu_seconds / 3600 * per_cpu_hour


def coverage_of(run: Run) -> tuple[Coverage, ...]:
    """Coverage by sensor, in the spec's order. Raises DataError before the plan is done."""
    receipts = run.receipts("chips")
    found = []
    for sensor in run.spec.sensors:
        shards = run.plan.shards
        keys = [key for key, own in zip(shards.keys, shards.of_sensor(sensor), strict=True) if own]
        done = [receipts[key] for key in keys if key in receipts]
        chips = Counter(state for receipt in done for state in receipt.chips.values())
        found.append(Coverage(sensor, len(keys), len(done), chips))
    return tuple(found)


def costs_of(run: Run) -> tuple[Cost, ...]:
    """Costs of the stages that have receipts, in order. Raises DataError before the plan is done."""
    own = ((stage, own_receipts(run, stage)) for stage in stages_of(run))
    return tuple(_cost(stage, receipts) for stage, receipts in own if receipts)


def own_receipts(run: Run, stage: str) -> list[Receipt]:
    """Receipts of a run's own shards: prefixes are shared by runs with other areas, dates and seeds."""
    wanted = set(shards_of(run, stage))
    return [receipt for shard, receipt in run.receipts(stage).items() if shard in wanted]


def _cost(stage: str, receipts: list[Receipt]) -> Cost:
    return Cost(
        stage,
        len(receipts),
        sum(receipt.seconds for receipt in receipts),
        sum(receipt.cpu_seconds for receipt in receipts),
        sum(receipt.bytes_in for receipt in receipts),
        sum(sum(receipt.outputs.values()) for receipt in receipts),
        sum(receipt.requests for receipt in receipts),
    )
