"""A run in a store, as every process that works on it opens it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from eo_batch.core import layout
from eo_batch.core.errors import DataError, StoreMissing, UsageError
from eo_batch.core.grid import Cells
from eo_batch.core.identity import Identity
from eo_batch.core.plan import Axes, Plan
from eo_batch.core.receipts import Receipt
from eo_batch.core.scenes import Scene
from eo_batch.core.spec import RunSpec
from eo_batch.core.specfile import dump_spec, parse_spec
from eo_batch.io.axes import load_axes
from eo_batch.io.plans import FoundShard, load_cells, load_plan, load_scenes_of, load_shard
from eo_batch.io.receipts import read_receipt, read_receipts
from eo_batch.io.store import Store, parse_store
from eo_batch.settings import Settings


@dataclass(frozen=True)
class Run:
    """One spec in one store. Pickles without what it has loaded."""

    spec: RunSpec
    store: Store
    settings: Settings
    refresh: bool = False
    """Whether chips whose scenes changed since they were made are made again."""
    sent: bool = field(default=False, init=False, compare=False)
    """Whether it was unpickled, that is, sent here by another process."""

    def __getstate__(self) -> dict[str, object]:
        # Who is sent a run reaches the store its own way: a forwarded port leads nowhere in a pod. Only settings that
        # are not those of the environment travel.
        settings = Settings.from_env()
        own = self.settings == settings and parse_store(self.store.url, settings) == self.store
        where: dict[str, object] = {"url": self.store.url} if own else {"store": self.store, "settings": self.settings}
        return {"spec": self.spec, "refresh": self.refresh, **where}

    def __setstate__(self, state: dict[str, Any]) -> None:
        url = state.pop("url", None)
        if url is not None:
            settings = Settings.from_env()
            state |= {"settings": settings, "store": parse_store(url, settings)}
        self.__dict__.update(state, sent=True)

    @cached_property
    def identity(self) -> Identity:
        """Prefixes of the stages."""
        return Identity(self.spec)

    @cached_property
    def plan(self) -> Plan:
        """The whole frozen plan: for who drives or sums up. Raises DataError before the stage `plan` is done."""
        return load_plan(self.store, self.identity.prefix("plan"))

    @cached_property
    def cells(self) -> Cells:
        """The plan's cells alone. Raises as `plan`."""
        return load_cells(self.store, self.identity.prefix("plan"))

    def shard(self, index: int) -> FoundShard:
        """One chips shard, found without the rest of the plan. Raises UsageError for no such index, and as `plan`."""
        if index not in self._shards:
            self._shards.clear()
            self._shards[index] = load_shard(self.store, self.identity.prefix("plan"), index)
        return self._shards[index]

    @cached_property
    def _shards(self) -> dict[int, FoundShard]:
        """The shard asked for last: a worker asks for its key, its inputs and itself."""
        return {}

    def scenes_of(self, found: FoundShard) -> list[Scene]:
        """The scenes of a chips shard, with their files."""
        return load_scenes_of(self.store, self.identity.prefix("plan"), found)

    @cached_property
    def axes(self) -> Axes:
        """The cube's axes."""
        return load_axes(self.store, self.identity.prefix("chips"))

    def newest_axes(self) -> Axes:
        """The same, as they are in the store now; `axes` are these from here on."""
        vars(self).pop("axes", None)
        return self.axes

    def receipt(self, stage: str, shard: str) -> Receipt | None:
        """A shard's receipt, if there is one."""
        return read_receipt(self.store, self.identity.prefix(stage), shard)

    def receipts(self, stage: str, shards: Iterable[str] | None = None) -> dict[str, Receipt]:
        """Receipts of a stage, by shard: those of `shards`, which have to be there, or else all."""
        return read_receipts(self.store, self.identity.prefix(stage), shards)

    def submit(self) -> None:
        """Write the spec into the store, for every process that follows."""
        self.store.put(f"{self.spec.name}/{layout.RUN_SPEC}", dump_spec(self.spec).encode())


def open_run(store: Store, name: str, settings: Settings) -> Run:
    """The run called `name` as it was last submitted. Raises UsageError if there is none."""
    key = f"{name}/{layout.RUN_SPEC}"
    try:
        text = store.get(key).decode()
    except StoreMissing as error:
        raise UsageError(f"{store.href(key)} is not there; start the run with `eo-batch run SPEC`") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{store.href(key)} is not text") from error
    return Run(parse_spec(text, where=store.href(key)), store, settings)


def run_names(store: Store) -> list[str]:
    """Names of all runs in a store, sorted."""
    return [name for name in store.folders() if store.exists(f"{name}/{layout.RUN_SPEC}")]
