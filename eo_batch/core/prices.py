"""What computing, storage and requests cost, and what a run uses of each. Pure."""

from dataclasses import dataclass, fields
from datetime import date
from typing import Annotated, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from eo_batch.core.errors import SpecError

Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Values = TypeVar("Values", bound=BaseModel)


@dataclass(frozen=True)
class Amounts:
    """What a stage uses, by an estimate or by its receipts."""

    shards: int = 0
    cpu_s: float = 0.0
    """CPU seconds."""
    requests: float = 0.0
    """Read requests to stores of source files."""
    fetched_bytes: float = 0.0
    """Bytes of source files."""
    writes: float = 0.0
    """Objects written to the store, receipts among them."""
    stored_bytes: float = 0.0
    """Bytes of those objects, without the receipts."""

    def __add__(self, other: "Amounts") -> "Amounts":
        return Amounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


class Prices(BaseModel):
    """A price table. Idle cores, memory, GPUs and what stages read back from the run's own store are not in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    """Code of ISO 4217, such as USD."""
    as_of: date
    """When the prices were valid."""
    source: Annotated[str, Field(min_length=1)]
    """Where they come from."""
    per_cpu_hour: Price
    """One core for one hour."""
    per_1000_requests: Price
    """A thousand read requests to stores of source files; 0 where their owner pays."""
    per_fetched_gb: Price
    """Transfer of 10^9 bytes of source files to where the run is."""
    per_1000_writes: Price
    """A thousand objects written."""
    per_stored_gb_month: Price
    """10^9 bytes, stored for a month."""
    months_stored: Price = 1.0
    """For how many months the results are kept."""

    def cost(self, amounts: Amounts) -> float:
        """Money for what is used, with the storage of `months_stored`."""
        return (
            amounts.cpu_s / 3600 * self.per_cpu_hour
            + amounts.requests / 1000 * self.per_1000_requests
            + amounts.fetched_bytes / 1e9 * self.per_fetched_gb
            + amounts.writes / 1000 * self.per_1000_writes
            + amounts.stored_bytes / 1e9 * self.per_stored_gb_month * self.months_stored
        )

    @classmethod
    def parse(cls, text: str, where: str) -> Self:
        """The price table of a YAML text. Raises SpecError naming every wrong field."""
        return parse_values(cls, text, where)


def parse_values(kind: type[Values], text: str, where: str) -> Values:
    """Values of a YAML text. Raises SpecError naming every wrong field."""
    try:
        return kind.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise SpecError(f"{where} is not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        wrong = (f"{'.'.join(map(str, p['loc'])) or 'file'}: {p['msg']}" for p in error.errors())
        raise SpecError(f"{where}: {'; '.join(wrong)}") from error
