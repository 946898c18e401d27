"""How much of everything a unit of work takes: measured on finished runs. Pure."""

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from eo_batch.core.prices import parse_values

Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Rates(BaseModel):
    """What one stage, or the chips of one kind of sensor, takes for each unit of its work (`core.estimate.Work`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu_s_per_effort: Rate
    """CPU seconds for a unit of effort."""
    stored_bytes_per_product: Rate
    """Bytes written for a unit of product."""
    stored_bytes_per_shard: Rate = 0.0
    """Bytes written by a shard of chips beside the cube, whatever its size."""
    objects_per_shard: Rate
    """Objects written by a shard beside its receipt."""
    requests_per_read: Rate = 0.0
    """Read requests for a band of a scene over a block."""
    fetched_bytes_per_source_byte: Rate = 0.0
    """Bytes fetched for a byte of source pixels before compression."""


class Calibration(BaseModel):
    """Rates by key: a stage, `chips/<kind>` for chips of one kind of sensor, `chips/*` for those of all kinds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Annotated[str, Field(min_length=1)]
    """Which run was measured, where and when."""
    rates: Mapping[str, Rates]

    def find(self, key: str) -> tuple[Rates, str]:
        """The rates for a key, and the source of the calibration that they come from: this one or the built-in one."""
        for calibration in (self, BUILT_IN):
            if key in calibration.rates:
                return calibration.rates[key], calibration.source
        both = "chips/*"
        kept = self if both in self.rates else BUILT_IN
        return kept.rates[both], f"{kept.source}, all sensors, since {key} was not measured"

    @classmethod
    def parse(cls, text: str, where: str) -> Self:
        """The calibration of a YAML text. Raises SpecError naming every wrong field."""
        return parse_values(cls, text, where)


BUILT_IN = Calibration(
    source="the built-in calibration (docs/cost.md)",
    rates={
        "chips/*": Rates(
            cpu_s_per_effort=55.52,
            stored_bytes_per_product=6.307e08,
            stored_bytes_per_shard=3325,
            objects_per_shard=3.5,
            requests_per_read=4.463,
            fetched_bytes_per_source_byte=0.7888,
        ),
        "chips/classes": Rates(
            cpu_s_per_effort=148.8,
            stored_bytes_per_product=2.206e07,
            stored_bytes_per_shard=3552,
            objects_per_shard=3,
            requests_per_read=2,
            fetched_bytes_per_source_byte=0.04139,
        ),
        "chips/dem": Rates(
            cpu_s_per_effort=118.2,
            stored_bytes_per_product=5.755e08,
            stored_bytes_per_shard=2851,
            objects_per_shard=3,
            requests_per_read=2.6,
            fetched_bytes_per_source_byte=0.1226,
        ),
        "chips/s1": Rates(
            cpu_s_per_effort=28.52,
            stored_bytes_per_product=8.297e08,
            stored_bytes_per_shard=3032,
            objects_per_shard=3,
            requests_per_read=4.75,
            fetched_bytes_per_source_byte=1.036,
        ),
        "chips/s2-l2a": Rates(
            cpu_s_per_effort=29.58,
            stored_bytes_per_product=6.125e08,
            stored_bytes_per_shard=3865,
            objects_per_shard=5,
            requests_per_read=5,
            fetched_bytes_per_source_byte=1.041,
        ),
        "embed": Rates(
            cpu_s_per_effort=192.1,
            stored_bytes_per_product=6.575e06,
            objects_per_shard=2,
        ),
        "plan": Rates(
            cpu_s_per_effort=0.735,
            stored_bytes_per_product=205500,
            objects_per_shard=2,
        ),
        "pretrain": Rates(
            cpu_s_per_effort=40.4,
            stored_bytes_per_product=6.072e06,
            objects_per_shard=4,
        ),
        "probe": Rates(
            cpu_s_per_effort=0.2648,
            stored_bytes_per_product=200.5,
            objects_per_shard=2,
        ),
        "publish": Rates(
            cpu_s_per_effort=0.08134,
            stored_bytes_per_product=57790,
            objects_per_shard=4,
        ),
        "report": Rates(
            cpu_s_per_effort=2.161,
            stored_bytes_per_product=1.055e06,
            objects_per_shard=1,
        ),
    },
)
"""Measured on simulated planets; docs/cost.md gives the commands. For a machine of one's own, `eo-batch calibrate`."""
