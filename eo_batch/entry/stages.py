"""The closed table of stages: which shards each has, what each shard's content depends on, how one is run.

Stages are imported when they are run, so that planning and submitting never import torch.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from eo_batch.core.digest import digest
from eo_batch.core.errors import UsageError
from eo_batch.core.layout import STAGES
from eo_batch.core.learning_plan import embed_shards
from eo_batch.core.receipts import Receipt, lost_share
from eo_batch.core.shards import only_scenes_differ
from eo_batch.entry.run import Run
from eo_batch.io.axes import place_plan
from eo_batch.io.cube import prepare_cube
from eo_batch.io.plans import load_found_shards

if TYPE_CHECKING:
    from eo_batch.models.world import World


def stages_of(run: Run) -> list[str]:
    """The stages that a run has, in order."""
    return [stage for stage in STAGES if stage != "probe" or run.spec.probe is not None]


def shards_of(run: Run, stage: str) -> Sequence[str]:
    """Keys of a stage's shards; a shard's index is its position. Raises DataError before the plan is done."""
    match stage:
        case "plan" | "publish" | "report" | "probe":
            return (stage,)
        case "chips":
            return run.plan.shards.keys
        case "pretrain":
            return [f"seed-{seed}" for seed in run.spec.pretrain.seeds]
        case "embed":
            cells = run.cells
            shards = load_found_shards(run.store, run.identity.prefix("plan"), run.spec, cells)
            return embed_shards(run.spec, cells.blocks(run.spec.grid.block_chips), shards)
        case _:
            raise UsageError(f"stage {stage!r} is unknown; stages are {', '.join(STAGES)}")


def shard_of(run: Run, stage: str, index: int) -> str:
    """Key of one shard, as a worker finds it: without the whole plan. Raises UsageError for no such index."""
    if stage == "chips":
        return run.shard(index).shard.key
    shards = shards_of(run, stage)
    if not 0 <= index < len(shards):
        raise UsageError(f"{stage} has no shard {index}; it has 0 to {len(shards) - 1}")
    return shards[index]


def shard_inputs(run: Run, stage: str, index: int) -> str:
    """What the receipt of one shard must carry to count, as `inputs_of` tells of all."""
    return run.shard(index).shard.inputs if stage == "chips" else inputs_of(run, stage)(index)


def inputs_of(run: Run, stage: str) -> Callable[[int], str]:
    """What the receipt of each shard of a stage must carry to count: the digest of its inputs, by index.

    Chips know theirs from the plan. What is published depends on the chips as they were made, and everything after
    on what was published, so chips that are made again make the rest again.
    """
    prefix = run.identity.prefix(stage)
    match stage:
        case "plan":
            inputs = prefix
        case "chips":
            shards = run.plan.shards
            return lambda index: str(shards.inputs[index])
        case "publish":
            made = run.receipts("chips")
            inputs = digest([prefix, *(made[key].inputs for key in run.plan.shards.keys if key in made)])
        case _:
            published = run.receipt("publish", "publish")
            inputs = digest([prefix, published.inputs if published else None])
    return lambda _: inputs


def counts(run: Run, receipt: Receipt | None, inputs: str) -> bool:
    """Whether a shard is done by its receipt, given what its receipt should carry.

    A chips shard of the same cells counts though its scenes have changed since, unless the run refreshes: a new plan
    must not rewrite old bins behind people's backs. The ledger tells of it. One that lost more files than the run
    now accepts does not count.
    """
    if receipt is None or lost_share(receipt.sources) > run.spec.limits.max_missing:
        return False
    kept = receipt.stage == "chips" and not run.refresh and only_scenes_differ(receipt.inputs, inputs)
    return receipt.inputs == inputs or kept


def prepare(run: Run, stage: str) -> None:
    """What must be there once before a stage's shards run."""
    if stage == "chips":
        prefix = run.identity.prefix("chips")
        while True:
            # One plan can serve cubes of several identities, of which planning placed its blocks in the first only.
            axes = place_plan(run.store, prefix, run.plan)
            prepare_cube(run.store, prefix, run.spec, axes)
            if run.newest_axes() == axes:
                return
            # Another run has extended the cube meanwhile, and may have been the first to write.


@contextmanager
def joined(run: Run, stage: str) -> "Iterator[World | None]":
    """The processes that run shards of a stage together with this one; None for a process by itself.

    Raises UsageError for stages that one process runs, ShardFailed where the others do not come.
    """
    ranks = run.settings.ranks
    if ranks is None:
        yield None
        return
    if stage != "pretrain":
        raise UsageError(
            f"{stage} was started in {ranks.world_size} processes, and each would do the same; start it without "
            "torchrun, which is for pretrain only"
        )
    from eo_batch.models.world import join

    with join(ranks.rank, ranks.world_size, ranks.local_rank, ranks.master_addr, ranks.master_port) as world:
        yield world


def perform(run: Run, stage: str, index: int, world: "World | None" = None) -> Receipt:
    """Run one shard, together with the processes of `world`; the receipt is not written yet."""
    spec, store = run.spec, run.store
    match stage:
        case "plan":
            from eo_batch.stages import plan

            return plan.run(spec, store, run.settings)
        case "chips":
            from eo_batch.stages import chips

            found = run.shard(index)
            return chips.run(spec, found.shard, run.scenes_of(found), run.axes, store, run.settings)
        case "publish":
            from eo_batch.stages import publish

            return publish.run(spec, run.plan, run.axes, store)
        case "pretrain":
            from eo_batch.stages import pretrain

            return pretrain.run(spec, spec.pretrain.seeds[index], run.cells, run.axes, store, world=world)
        case "embed":
            from eo_batch.stages import embed

            return embed.run(spec, shard_of(run, "embed", index), run.cells, run.axes, store)
        case "probe":
            from eo_batch.stages import probe

            return probe.run(spec, run.cells, store)
        case "report":
            from eo_batch.stages import report

            return report.run(spec, store)
        case _:
            raise UsageError(f"stage {stage!r} is unknown; stages are {', '.join(STAGES)}")
