"""What the pods of one job share through the store: the frozen list, and notes on shards that are not done."""

from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from eo_batch.core.errors import DataError


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_bytes(self) -> bytes:
        """UTF-8 JSON."""
        return self.model_dump_json().encode()

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Self:
        """Read it back. Raises DataError if it is something else."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise DataError(f"{where} was not written by this version; start the run again") from error


class WorkList(_Value):
    """The shards of one job, as every pod of it sees them, and the spec as it was when they were listed."""

    stage: str
    indices: tuple[int, ...]
    """Missing shards, by their position in the stage."""
    shards_per_pod: int
    attempts: int
    """Tries for each shard."""
    runner: str
    """Name of the runner, for receipts."""
    refresh: bool
    """Whether chips whose scenes changed are made again."""
    spec: str
    """The run spec, YAML."""
    aside: dict[int, str] = {}
    """Why, of the indices that are not to be tried: they failed in earlier runs."""

    def slice_of(self, number: int) -> tuple[int, ...]:
        """Indices that pod `number` runs; empty past the end."""
        first = number * self.shards_per_pod
        return self.indices[first : first + self.shards_per_pod]


class Try(_Value):
    """A shard was begun. What is left of it after its pod died tells which shard kills pods."""

    tries: int
    """How often it was begun, this time included."""
    begun: str
    """UTC time, ISO 8601."""
    host: str


class GivenUp(_Value):
    """A shard failed for good."""

    message: str
    """One line for a person."""
    tries: int
    trace: str = ""
    """Traceback of a fault of our own; empty for errors that are meant for people."""
    exit_code: int = 1
    inputs: str = ""
    """Digest of what the shard was to be made from."""
    allowed: float = 0.0
    """`limits.max_missing` of the run that gave it up."""
    at: str = ""
    """UTC time, ISO 8601."""


class Tally(_Value):
    """How often runs have given up a shard that is not done."""

    inputs: str
    """As in `GivenUp`: of another shard's content these are not failures."""
    allowed: float
    times: int
    """Runs that gave it up."""
    tries: int
    """Tries of all of them."""
    message: str
    """Why, the last time."""
    exit_code: int
    at: str
