"""Receipts: the only truth about what is done, and the story of every chip and source file."""

from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from eo_batch.core.errors import DataError

ChipState = Literal["ok", "no_scene", "clouded_out", "no_data", "read_failed"]
"""Outcome of one chip in one sensor and time bin: pixels were written; nothing was ever taken there; every
observation was cloud or otherwise masked; scenes cover it but hold no data there; files that would have covered
it could not be read."""

SourceState = Literal["ok", "spare", "missing", "forbidden", "transient", "truncated", "corrupt", "outside"]
"""Outcome of one source file: read; its spare was read instead; failure kinds as in `core.errors`; its grid does not
reach the block."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Value):
    """What happened to one source file."""

    scene: str
    band: str
    href: str
    """Address without query or token."""
    state: SourceState
    detail: str = ""
    """What went wrong, or the id of the spare; of a file that was read in the end, what went wrong last."""
    bytes_in: int = 0
    """Bytes fetched."""
    requests: int = 0
    """Range requests sent."""
    tries: int = 1
    """How often the file was read until this outcome."""
    offset_dn: float = 0.0
    offset_reason: str = ""


class Note(_Value):
    """Something a person should know about a shard, that made it neither fail nor lose pixels."""

    subject: str
    """Scene or chip."""
    text: str


class Receipt(_Value):
    """One shard of one stage is done."""

    stage: str
    shard: str
    """The shard's key."""
    inputs: str
    """Digest of everything the shard's content depends on; another digest means: run again."""
    outputs: dict[str, int]
    """Bytes of every object written, by key relative to the stage's prefix."""
    digests: dict[str, str] = {}
    """SHA-256 of the same objects."""
    chips: dict[str, ChipState] = {}
    """Outcome of every chip of the shard, by chip id."""
    valid: dict[str, float] = {}
    """Share of pixels with at least one valid observation, by chip id."""
    sources: tuple[Source, ...] = ()
    notes: tuple[Note, ...] = ()
    bytes_in: int = 0
    requests: int = 0
    """Read requests sent to stores of source data."""
    seconds: float = 0.0
    """Wall time."""
    cpu_seconds: float = 0.0
    peak_mb: float = 0.0
    """Largest resident memory of the process so far, MB."""
    finished: str = ""
    """UTC time at which the shard was done, ISO 8601."""
    host: str = ""
    runner: str = ""
    software: dict[str, str] = {}
    """Versions that can change bytes."""

    def to_bytes(self) -> bytes:
        """UTF-8 JSON."""
        return self.model_dump_json(indent=1).encode()

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Self:
        """Read a receipt. Raises DataError if it is none."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise DataError(f"{where} is not a receipt of this version; delete it to run the shard again") from error


LOST: frozenset[SourceState] = frozenset({"missing", "truncated", "corrupt"})
"""Outcomes of files that are lost for good."""


def lost_share(sources: Sequence[Source]) -> float:
    """Share of source files that are lost for good; 0 for none."""
    return sum(source.state in LOST for source in sources) / max(len(sources), 1)


def facts(receipt: Receipt) -> dict[str, Any]:
    """The columns of a receipt that a table of timings shows."""
    return {
        "stage": receipt.stage,
        "shard": receipt.shard,
        "seconds": receipt.seconds,
        "cpu_seconds": receipt.cpu_seconds,
        "bytes_in": receipt.bytes_in,
        "bytes_out": sum(receipt.outputs.values()),
        "requests": receipt.requests,
        "peak_mb": receipt.peak_mb,
    }
