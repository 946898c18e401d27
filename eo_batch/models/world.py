"""The processes that train one model together.

Each holds the whole model and takes its part of every batch. Gradients are summed in one flat buffer after the backward
pass. DistributedDataParallel would overlap the two, but it averages where parts of unequal size must be summed, and a
parameter that a part does not use has to be searched for at every step.

What one process finds out by itself (a file that can't be read, a loss that is not finite) ends all of them with the
same error; a process that is gone ends the others after `TIMEOUT_S` at the latest.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from eo_batch.core.errors import EoBatchError, ShardFailed, UsageError

TIMEOUT_S = 600.0
"""Longest wait for another process. The first one writes checkpoints while the others wait, and a process whose node
vanished closes no connection: this is how long the others take to notice."""

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among those that train together. All of them call the same methods in the same order."""

    rank: int
    """Number of this process; 0 leads."""

    size: int
    """Number of processes."""

    device: torch.device
    """Where this process computes."""

    @classmethod
    def alone(cls) -> "World":
        """One process, on the GPU if there is one."""
        return cls(0, 1, _device(0))

    @property
    def hardware(self) -> str:
        """What computes, for people: `cpu`, or the GPU's name."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type

    def part(self, count: int) -> slice:
        """This process's part of a batch of `count` samples. The parts are disjoint and differ by at most one sample;
        where samples are fewer than processes some have none."""
        return slice(self.rank, count, self.size)

    def count(self, part: int) -> int:
        """Samples of the batch of which all processes have parts, this one of `part` samples."""
        return part if self.size == 1 else int(self.sum(torch.tensor(part)))

    def sum(self, values: Tensor) -> Tensor:
        """The sum of all processes' tensors, the same bits in all; shapes and types must be equal."""
        if self.size == 1:
            return values
        total = values.clone()
        with _partners(self.rank, self.size):
            dist.all_reduce(total)
        return total

    def gather(self, part: Tensor, count: int) -> Tensor:
        """The rows of a batch of `count` samples in the batch's order, each process giving its `part` of them. A loss
        of all rows that each process computes a share of has its gradient: shares' gradients are added."""
        if self.size == 1:
            return part
        gathered: Tensor = _Gather.apply(part, self, count)  # type: ignore[no-untyped-call]
        return gathered

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their sums over all processes. The same parameters must have one in all."""
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        total = self.sum(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = torch.split(total, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    @contextmanager
    def together(self) -> Iterator[None]:
        """Leave a block in step: if it failed in any process, the error of the first of those is raised in all.

        Nothing in the block may wait for another process.
        """
        if self.size == 1:
            yield
            return
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
        if not int(self.sum(torch.tensor(failure is not None, dtype=torch.int64))):
            return
        told = self._gather(None if failure is None else _portable(failure, self.rank, self.size))
        rank, first = next((rank, other) for rank, other in enumerate(told) if other is not None)
        if failure is not None and rank == self.rank:
            raise failure
        raise first from failure

    def lead(self, act: Callable[[], T]) -> T:
        """Do something in the first process; its result, which must pickle, is returned in all, when it is done; its
        error is raised in all."""
        if self.size == 1:
            return act()
        result: list[T | None] = [None]
        with self.together():
            if self.rank == 0:
                result[0] = act()
        with _partners(self.rank, self.size):
            dist.broadcast_object_list(result, src=0)
        return result[0]  # type: ignore[return-value]

    def agree(self, what: str, value: str) -> None:
        """Raise UsageError in all processes unless they have the same value."""
        if self.size == 1:
            return
        found = self._gather(value)
        for rank, other in enumerate(found):
            if other != found[0]:
                raise UsageError(
                    f"processes that train together need the same {what}: process 0 has {found[0]!r}, process {rank} "
                    f"has {other!r}; start all of them with the same command on the same kind of machine"
                )

    def _gather(self, value: T) -> list[T]:
        gathered: list[T] = [value] * self.size
        with _partners(self.rank, self.size):
            dist.all_gather_object(gathered, value)
        return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, world: World, count: int) -> Tensor:
        ctx.world = world
        whole = part.new_zeros((count, *part.shape[1:]))
        whole[world.part(count)] = part.detach()
        return world.sum(whole)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (whole,) = gradients
        return ctx.world.sum(whole.contiguous())[ctx.world.part(len(whole))], None, None


@contextmanager
def join(
    rank: int, size: int, local_rank: int, address: str, port: int, timeout_s: float = TIMEOUT_S
) -> Iterator[World]:
    """Meet the other processes, as torchrun started them, and leave them at the end, after an error too.

    `local_rank` is the number of this process on its machine, `address` and `port` where process 0 is met. Raises
    ShardFailed, which may be retried, when one of the others does not come or is lost, also within the block.
    """
    world = World(rank, size, _device(local_rank))
    cuda = world.device.type == "cuda"
    if cuda:
        torch.cuda.set_device(world.device)
    host = f"[{address}]" if ":" in address else address
    timeout = timedelta(seconds=timeout_s)
    with _partners(rank, size):
        store, _, _ = next(rendezvous(f"tcp://{host}:{port}", rank, size, timeout=timeout))
        # What an earlier meeting left in the store would mislead this one.
        meeting = store.add(f"meetings/{rank}", 1)
        dist.init_process_group(
            # What is not computed on the GPU need not go through it; and gloo says who was lost, where NCCL aborts.
            "cpu:gloo,cuda:nccl" if cuda else "cpu:gloo",
            store=PrefixStore(f"meeting-{meeting}", store),
            rank=rank,
            world_size=size,
            timeout=timeout,
        )
    try:
        world.agree("device", world.device.type)
        yield world
    finally:
        dist.destroy_process_group()


def _device(local_rank: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    found = torch.cuda.device_count()
    if local_rank >= found:
        raise UsageError(
            f"process {local_rank} of this machine has no GPU of its own, for there are {found}; "
            f"start torchrun with --nproc-per-node={found}"
        )
    return torch.device("cuda", local_rank)


def _portable(error: Exception, rank: int, size: int) -> EoBatchError:
    """An error as other processes raise it: those meant for people as they are, others in words."""
    if isinstance(error, EoBatchError):
        return error
    return ShardFailed(f"process {rank} of {size} failed: {type(error).__name__}: {error}")


@contextmanager
def _partners(rank: int, size: int) -> Iterator[None]:
    """Turn what torch raises when another process is gone into an error for people."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        lost = ShardFailed(
            f"process {rank} of {size} lost the others, or they did not come: {reason}; "
            "run it again: training goes on from the last checkpoint"
        )
        lost.retryable = True
        raise lost from error
