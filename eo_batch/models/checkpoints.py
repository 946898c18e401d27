"""Checkpoints as bytes that prove their own completeness.

Layout: 8 bytes of magic, 32 bytes SHA-256 of the rest, the rest as `torch.save` writes it. Object stores
write whole objects, file systems and copies do not: a checkpoint that was cut short must never be half
believed.
"""

import hashlib
import io
from dataclasses import dataclass
from typing import Any

import torch

from eo_batch.core.errors import DataError

MAGIC = b"EOBCKPT1"
_DIGEST_BYTES = 32


@dataclass(frozen=True)
class Checkpoint:
    """All that a trainer needs to go on; randomness needs nothing, it follows from seed and step."""

    step: int
    """Steps done."""

    model: dict[str, Any]
    """State of the model."""

    optimizer: dict[str, Any]
    """State of the optimizer."""

    curve: tuple[dict[str, float], ...]
    """Rows of the loss curve so far."""


def dump_checkpoint(checkpoint: Checkpoint) -> bytes:
    """The checkpoint's bytes; equal states give equal bytes."""
    buffer = io.BytesIO()
    parts = {
        "step": checkpoint.step,
        "model": checkpoint.model,
        "optimizer": checkpoint.optimizer,
        "curve": [dict(row) for row in checkpoint.curve],
    }
    torch.save(parts, buffer)
    payload = buffer.getvalue()
    return MAGIC + hashlib.sha256(payload).digest() + payload


def load_checkpoint(content: bytes, name: str) -> Checkpoint:
    """Read `dump_checkpoint`'s bytes. Raises DataError where they are cut short or altered; never runs
    code."""
    start = len(MAGIC) + _DIGEST_BYTES
    payload = content[start:]
    if content[: len(MAGIC)] != MAGIC or content[len(MAGIC) : start] != hashlib.sha256(payload).digest():
        msg = f"checkpoint {name} ({len(content)} bytes) is cut short or altered; an earlier one must be used"
        raise DataError(msg)
    parts = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    return Checkpoint(parts["step"], parts["model"], parts["optimizer"], tuple(parts["curve"]))
