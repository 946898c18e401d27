"""What a run has written so far, as the report reads it. Stages that have not run leave an empty place."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from eo_batch.core import layout
from eo_batch.core.errors import DataError
from eo_batch.core.identity import Identity
from eo_batch.core.layout import STAGES
from eo_batch.core.learning_plan import embed_shards
from eo_batch.core.plan import Axes, Plan
from eo_batch.core.receipts import Receipt
from eo_batch.core.spec import RunSpec
from eo_batch.io.axes import load_axes
from eo_batch.io.cube import CubeReader
from eo_batch.io.plans import load_plan
from eo_batch.io.receipts import read_receipts
from eo_batch.io.store import Store
from eo_batch.io.tables import read_table

Row = dict[str, Any]


@dataclass(frozen=True)
class Results:
    """One run's results, read when they are asked for."""

    spec: RunSpec
    store: Store

    @cached_property
    def identity(self) -> Identity:
        """Prefixes of the stages."""
        return Identity(self.spec)

    @cached_property
    def plan(self) -> Plan:
        """The frozen plan. Raises DataError before there is one."""
        return load_plan(self.store, self.identity.prefix("plan"))

    @cached_property
    def axes(self) -> Axes:
        """The cube's axes."""
        return load_axes(self.store, self.identity.prefix("chips"))

    @cached_property
    def chips(self) -> pa.Table:
        """One row a chip (`publish`). Raises DataError before it is published."""
        return read_table(self.store, f"{self.identity.prefix('publish')}/chips.parquet")

    @cached_property
    def ledger(self) -> pa.Table:
        """Outcomes of chips, files and scenes (`publish`)."""
        return read_table(self.store, f"{self.identity.prefix('publish')}/ledger.parquet")

    def cube(self) -> CubeReader:
        """The cube."""
        return CubeReader(self.store, self.identity.prefix("chips"))

    @cached_property
    def losses(self) -> Mapping[int, pa.Table]:
        """Loss per step of every seed of the spec that has been trained, by seed."""
        prefix = self.identity.prefix("pretrain")
        found: dict[int, pa.Table] = {}
        for seed in self.spec.pretrain.seeds:
            key = layout.losses(prefix, seed)
            if self.store.exists(key):
                found[seed] = read_table(self.store, key)
        return found

    @cached_property
    def receipts(self) -> Mapping[str, list[Receipt]]:
        """Receipts by stage, in the stages' order; of shared stages only this run's."""
        stages = [stage for stage in STAGES if stage != "report"]
        found = {stage: list(read_receipts(self.store, self.identity.prefix(stage)).values()) for stage in stages}
        # These stages' prefixes are shared by runs with other areas, dates and seeds.
        wanted = {
            "chips": set(self.plan.shards.keys),
            "pretrain": {f"seed-{seed}" for seed in self.spec.pretrain.seeds},
            "embed": set(embed_shards(self.spec, self.plan.blocks, self.plan.shards)),
        }
        for stage, keys in wanted.items():
            found[stage] = [receipt for receipt in found[stage] if receipt.shard in keys]
        return {stage: receipts for stage, receipts in found.items() if receipts}

    def table(self, stage: str, name: str) -> pa.Table | None:
        """A table of metrics, if its stage has written it."""
        key = layout.metrics(self.identity.prefix(stage), name)
        return read_table(self.store, key) if self.store.exists(key) else None

    def document(self, stage: str, name: str) -> Row | None:
        """A summary of metrics, if its stage has written it. Raises DataError if it is no JSON object."""
        key = layout.metrics(self.identity.prefix(stage), name)
        if not self.store.exists(key):
            return None
        try:
            found = json.loads(self.store.get(key))
        except ValueError as error:
            raise DataError(f"{self.store.href(key)} is not JSON ({error}); delete it and run again") from error
        if not isinstance(found, dict):
            raise DataError(f"{self.store.href(key)} is not a JSON object; delete it and run again")
        return found

    def embedded(self) -> Mapping[str, list[str]]:
        """Keys of the embeddings by model."""
        prefix = f"{self.identity.prefix('embed')}/chips"
        found: dict[str, list[str]] = {}
        for key in self.store.list(prefix):
            model = key.removeprefix(f"{prefix}/").split("/", 1)[0]
            found.setdefault(model, []).append(key)
        return found
