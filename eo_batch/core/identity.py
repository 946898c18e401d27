"""Identity of stages and shards: digests of what they depend on, never of where they run.

A stage's prefix is a digest of the spec sections it reads, its code version and its upstream prefixes.
The chips prefix leaves out area, dates and catalogue: a larger area or a later date adds shards to the same
cube. A shard's own digest holds its cells and scenes, so an unchanged shard keeps its receipt.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from eo_batch.core.digest import JsonValue, digest
from eo_batch.core.layout import STAGES, stage_prefix
from eo_batch.core.spec import RunSpec

CODE_VERSIONS: Mapping[str, int] = {
    "plan": 4,
    "chips": 6,
    "publish": 3,
    "pretrain": 3,
    "embed": 2,
    "probe": 1,
    "report": 1,
}
"""Raised by hand when a stage's code changes what it writes."""


@dataclass(frozen=True)
class Identity:
    """Prefixes of all stages of one run."""

    spec: RunSpec

    @cached_property
    def _digests(self) -> dict[str, str]:
        spec = self.spec.model_dump(mode="json")
        sensors = {
            name: {key: value for key, value in sensor.items() if key not in ("catalog", "collections", "legend")}
            for name, sensor in spec["sensors"].items()
        }
        # Names of arrays and their order are part of the cube, so the mapping is kept in the spec's order.
        ordered: JsonValue = [[name, sensor] for name, sensor in sensors.items()]
        # What a sensor's files are searched in is the plan's business; what classes are called, the report's.
        plan_inputs: dict[str, JsonValue] = {key: spec[key] for key in ("catalog", "as_of", "area", "time", "grid")}
        plan_inputs["time"] = {key: value for key, value in spec["time"].items() if value is not None}
        plan_inputs["sensors"] = {name: _without(sensor, ("legend",)) for name, sensor in spec["sensors"].items()}
        legends: JsonValue = {name: sensor["legend"] for name, sensor in spec["sensors"].items()}
        inputs: dict[str, tuple[JsonValue, tuple[str, ...]]] = {
            "plan": (plan_inputs, ()),
            "chips": ({"grid": spec["grid"], "sensors": ordered, "step": _step(self.spec)}, ()),
            "publish": ({"split": spec["split"]}, ("plan", "chips")),
            "pretrain": ({"pretrain": _without(spec["pretrain"], ("seeds",))}, ("publish",)),
            "embed": ({"embed": spec["embed"]}, ("pretrain",)),
            "probe": ({"probe": spec["probe"], "seeds": spec["pretrain"]["seeds"]}, ("embed",)),
            "report": ({"name": spec["name"], "legends": legends}, ("probe",)),
        }
        digests: dict[str, str] = {}
        for stage in STAGES:
            sections, upstream = inputs[stage]
            digests[stage] = digest(
                {
                    "stage": stage,
                    "code": CODE_VERSIONS[stage],
                    "sections": sections,
                    "upstream": {name: digests[name] for name in upstream},
                }
            )
        return digests

    def prefix(self, stage: str) -> str:
        """Prefix of everything that `stage` writes."""
        return stage_prefix(self.spec.name, stage, self._digests[stage])


def _step(spec: RunSpec) -> JsonValue:
    if spec.time.event is not None:
        return [spec.time.step, str(spec.time.event.date)]
    # `all` cuts no fixed bins: its one bin is the range, so the range is part of the cube's identity.
    return [str(spec.time.start), str(spec.time.end)] if spec.time.step == "all" else spec.time.step


def _without(section: dict[str, JsonValue], keys: tuple[str, ...]) -> dict[str, JsonValue]:
    return {key: value for key, value in section.items() if key not in keys}
