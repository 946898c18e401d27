"""Checkpoints and weights as bytes: safetensors, which holds numbers and never code.

A checkpoint proves its own completeness: 8 bytes of magic, 32 bytes SHA-256 of the rest, then a safetensors file.
Object stores write whole objects, file systems and copies do not; what was cut short must not be half believed.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from eo_batch.core.errors import DataError

MAGIC = b"EOBCKPT2"
_START = len(MAGIC) + hashlib.sha256().digest_size


@dataclass(frozen=True)
class Checkpoint:
    """All that a trainer needs to go on; randomness needs nothing, it follows from seed and step."""

    step: int
    """Steps done."""

    model: dict[str, Tensor]
    """State of the model."""

    optimizer: dict[str, Any]
    """State of the optimizer, as `torch.optim.Optimizer.state_dict` gives it."""

    curve: tuple[dict[str, float], ...]
    """Rows of the loss curve so far."""


def dump_checkpoint(checkpoint: Checkpoint) -> bytes:
    """The checkpoint's bytes; equal states give equal bytes."""
    tensors = {f"model/{name}": value for name, value in checkpoint.model.items()}
    for index, slots in checkpoint.optimizer["state"].items():
        tensors |= {f"optimizer/{index}/{slot}": value for slot, value in slots.items()}
    rest = {
        "step": checkpoint.step,
        "groups": checkpoint.optimizer["param_groups"],
        "curve": [dict(row) for row in checkpoint.curve],
    }
    payload = save(_packed(tensors), {"checkpoint": json.dumps(rest, sort_keys=True)})
    return MAGIC + hashlib.sha256(payload).digest() + payload


def load_checkpoint(content: bytes, name: str) -> Checkpoint:
    """Read `dump_checkpoint`'s bytes. Raises DataError where they are cut short or altered."""
    payload = content[_START:]
    if content[:_START] != MAGIC + hashlib.sha256(payload).digest():
        msg = f"checkpoint {name} ({len(content)} bytes) is cut short or altered; an earlier one must be used"
        raise DataError(msg)
    model: dict[str, Tensor] = {}
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in load(payload).items():
        kind, rest = key.split("/", 1)
        if kind == "model":
            model[rest] = value
        else:
            index, slot = rest.split("/", 1)
            slots.setdefault(int(index), {})[slot] = value
    header = json.loads(payload[8 : 8 + int.from_bytes(payload[:8], "little")])
    parts = json.loads(header["__metadata__"]["checkpoint"])
    optimizer = {"state": slots, "param_groups": parts["groups"]}
    return Checkpoint(parts["step"], model, optimizer, tuple(parts["curve"]))


def dump_weights(state: Mapping[str, Tensor]) -> bytes:
    """A model's weights as a safetensors file; equal weights give equal bytes."""
    return save(_packed(state))


def load_weights(content: bytes, name: str, sha256: str) -> dict[str, Tensor]:
    """Read `dump_weights`'s bytes. Raises DataError where their SHA-256 is not the one given."""
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        msg = f"weights {name} have SHA-256 {found[:12]}…, the model's card says {sha256[:12]}…; pretrain again"
        raise DataError(msg)
    return load(content)


def _packed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
