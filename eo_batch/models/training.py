"""The pretraining loop.

Everything random at step k derives from (seed, k): batches, masks, views. So a checkpoint is model, optimizer and
step, and a resumed run is bit-equal to one that never stopped (same threads, same kind of CPU, as many processes).
Several processes (`models.world`) train on the same batches as one: the loss and its gradient are those of the whole
batch, up to the rounding of sums.

Dims: `n` sample, `t` token.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from functools import partial

import numpy as np
import torch
from torch.optim import AdamW

from eo_batch.core.errors import DataError
from eo_batch.models.batch import Samples
from eo_batch.models.checkpoints import Checkpoint
from eo_batch.models.objectives.base import Losses, Objective, Terms
from eo_batch.models.world import World

Row = dict[str, float]


@dataclass(frozen=True)
class TrainConfig:
    """How to train."""

    seed: int
    """Root of all randomness of batches and masks."""

    steps: int
    """Optimizer steps."""

    batch: int
    """Samples a step, over all processes."""

    lr: float
    """Peak learning rate."""

    weight_decay: float
    """Decoupled decay of matrices."""

    warmup_steps: int
    """Linear rise at the start."""

    clip_norm: float
    """Largest norm of the gradient."""

    checkpoint_every_steps: int
    """Interval of `save`; the last step is always saved."""

    validate_every_steps: int
    """Interval of validation; the last step is always validated."""


class Stream(IntEnum):
    """What randomness is for, so that no two uses share a stream."""

    ORDER = 0
    SAMPLE = 1
    VALIDATION = 2
    PANELS = 3


def generator(seed: int, stream: Stream, number: int) -> np.random.Generator:
    """The random stream of one purpose at one step, epoch or batch."""
    return np.random.default_rng([seed, int(stream), number])


def batch_indices(seed: int, step: int, batch: int, samples: int) -> list[int]:
    """Samples of a step. Each epoch is a fresh permutation; batches run on across the borders of epochs."""
    indices: list[int] = []
    position = step * batch
    while len(indices) < batch:
        epoch, offset = divmod(position + len(indices), samples)
        order = generator(seed, Stream.ORDER, epoch).permutation(samples)
        indices += order[offset : offset + batch - len(indices)].tolist()
    return indices


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then a cosine to 0 at the end."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(config.steps - config.warmup_steps, 1)
    return config.lr * 0.5 * (1.0 + math.cos(math.pi * progress))


@contextmanager
def reproducible(threads: int) -> Iterator[None]:
    """Fixed threads and deterministic kernels within the block; the caller's settings come back after it."""
    before, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    torch.set_num_threads(threads)
    # `use_deterministic_algorithms` says the same, and loads torch's compiler, which takes as long as all the rest.
    torch.set_deterministic_debug_mode("error")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        torch.set_num_threads(before)


def make_optimizer(model: Objective, config: TrainConfig) -> AdamW:
    """AdamW with the betas of the masked-autoencoder paper; only matrices decay."""
    trained = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in trained if p.ndim >= 2]
    others = [p for p in trained if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=config.lr, betas=(0.9, 0.95))


def train(
    model: Objective,
    samples: Samples,
    validation: Samples,
    config: TrainConfig,
    save: Callable[[Checkpoint], None],
    resume: Checkpoint | None = None,
    progress: Callable[[int], None] = lambda step: None,
    world: World | None = None,
) -> tuple[Row, ...]:
    """Train in place, on the model's device, and return the loss curve: a row for each step with `step`,
    `lr`, `train`, `train.<term>`, and, where it was measured, `val` and `val.<term>`.

    `save` gets a checkpoint every `checkpoint_every_steps` steps and after the last. `progress` is called
    after each step with the number done. The processes of `world` (None: this one alone) all give equal models,
    samples and checkpoints; `save` is called in the first only, the curve is the same in all. Raises DataError where
    there is nothing to train on, or naming step and terms where the loss or the gradient is not finite.
    """
    world = world or World.alone()
    if not len(samples):
        raise DataError("no sample to pretrain on: the split leaves no chip outside test and buffer; enlarge the area")
    optimizer = make_optimizer(model, config)
    curve: list[Row] = []
    first = 0
    if resume is not None:
        model.load_state_dict(resume.model)
        optimizer.load_state_dict(resume.optimizer)
        first, curve = resume.step, list(resume.curve)
    model.train()
    for step in range(first, config.steps):
        lr = learning_rate(config, step)
        for group in optimizer.param_groups:
            group["lr"] = lr
        indices = batch_indices(config.seed, step, config.batch, len(samples))
        part, whole = _terms(model, samples, indices, generator(config.seed, Stream.SAMPLE, step), world)
        losses = whole.losses()
        _check_finite(losses, step)
        optimizer.zero_grad(set_to_none=True)
        part.losses(whole.counts).total.backward()  # type: ignore[no-untyped-call]
        world.sum_gradients(model.parameters())
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        if not bool(torch.isfinite(norm)):
            raise DataError(f"step {step}: the gradient is not finite although the loss is; lower pretrain.lr")
        optimizer.step()
        done = step + 1
        model.stepped(done / config.steps, world)
        row = {"step": float(done), "lr": lr, **_row("train", losses)}
        if len(validation) and (done % config.validate_every_steps == 0 or done == config.steps):
            row |= validate(model, validation, config, world)
        curve.append(row)
        if done % config.checkpoint_every_steps == 0 or done == config.steps:
            world.lead(partial(save, Checkpoint(done, model.state_dict(), optimizer.state_dict(), tuple(curve))))
        progress(done)
    return tuple(curve)


@torch.no_grad()
def validate(model: Objective, samples: Samples, config: TrainConfig, world: World) -> Row:
    """Mean loss over all samples, under masks and views that are the same at every step, so that values compare."""
    model.eval()
    sums: Row = {}
    weights: Row = {}
    for number, indices in enumerate(_chunks(len(samples), config.batch)):
        _, whole = _terms(model, samples, indices, generator(config.seed, Stream.VALIDATION, number), world)
        for name, loss in _row("val", whole.losses()).items():
            sums[name] = sums.get(name, 0.0) + loss * len(indices)
            weights[name] = weights.get(name, 0.0) + len(indices)
    model.train()
    return {name: total / weights[name] for name, total in sums.items()}


def _terms(
    model: Objective, samples: Samples, indices: Sequence[int], random: np.random.Generator, world: World
) -> tuple[Terms, Terms]:
    """Terms of this process's part of a batch, and of the whole batch; only the former have a gradient where there
    are several processes. Each draws for the whole batch, and takes its part."""
    mine = world.part(len(indices))
    device = next(model.parameters()).device
    with world.together():
        batch = samples.read(indices[mine])
        draw = {name: values[mine].to(device) for name, values in model.draw(random, batch, len(indices)).items()}
    part = model.terms(batch.to(device), draw, world)
    return part, _whole(part, world)


def _whole(part: Terms, world: World) -> Terms:
    """The terms of all parts. They are added in float64, which holds every count."""
    if world.size == 1:
        return part
    values = [total.detach() for total in part.sums.values()] + list(part.counts.values())
    sums, counts = world.sum(torch.stack([value.double() for value in values]).cpu()).chunk(2)
    return Terms(
        dict(zip(part.sums, sums.float(), strict=True)),
        dict(zip(part.counts, counts.long(), strict=True)),
        part.extra,
    )


def _row(prefix: str, losses: Losses) -> Row:
    terms = {f"{prefix}.{name}": float(loss.detach()) for name, loss in losses.by_term.items()}
    return {prefix: float(losses.total.detach()), **terms}


def _check_finite(losses: Losses, step: int) -> None:
    if not bool(torch.isfinite(losses.total.detach())):
        broken = [name for name, loss in losses.by_term.items() if not bool(torch.isfinite(loss.detach()))]
        where = ", ".join(broken) or "all terms"
        raise DataError(f"step {step}: the loss of {where} is not finite; look for wild values, or lower pretrain.lr")


def _chunks(count: int, size: int) -> Iterator[Sequence[int]]:
    for start in range(0, count, size):
        yield range(start, min(start + size, count))
