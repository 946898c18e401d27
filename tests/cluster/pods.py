"""The calls of the runners' contract in pods, which share a store with the test and nothing else.

The store holds the list, the call, and the code to run it; the image needs nothing but eo_batch.
"""

from __future__ import annotations

import json
import pickle
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from eo_batch.io.store import Store, parse_store
from eo_batch.runners.base import SLICE, Call, Failure, Job, OnEvent, Outcome, Runner

_HERE = Path(__file__).resolve().parents[1]
_CODE = {
    "tests.runners.calls": _HERE / "runners" / "calls.py",
    "tests.cluster.slices": _HERE / "cluster" / "slices.py",
}
"""What pods get."""
_BEGIN = """
import pathlib, sys
from eo_batch.io.store import parse_store
url, prefix, number = sys.argv[1:]
store = parse_store(url)
for name in {names!r}:
    path = pathlib.Path('/tmp/code', *name.split('.')).with_suffix('.py')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(store.get(f'{{prefix}}/code/{{name}}.py'))
sys.path.insert(0, '/tmp/code')
from tests.cluster.slices import main
main(store, prefix, int(number))
"""


@dataclass
class PodRemote:
    """The `Remote` of a job whose call pickles."""

    url: str
    call: Call
    attempts: int
    prefix: str = field(default_factory=lambda: uuid.uuid4().hex)
    indices: tuple[int, ...] = ()

    @property
    def store(self) -> Store:
        return parse_store(self.url)

    def freeze(self, indices: Sequence[int], shards_per_pod: int) -> tuple[str, ...]:
        """See `Remote.freeze`."""
        self.indices = tuple(indices)
        for name, path in _CODE.items():
            self.store.put(f"{self.prefix}/code/{name}.py", path.read_bytes())
        self.store.put(f"{self.prefix}/call.pickle", pickle.dumps(self.call))
        listed = {"indices": self.indices, "shards_per_pod": shards_per_pod, "attempts": self.attempts}
        self.store.put(f"{self.prefix}/list.json", json.dumps(listed).encode())
        return ("python3", "-c", _BEGIN.format(names=tuple(_CODE)), self.url, self.prefix, SLICE)

    def settled(self) -> Mapping[int, Failure | None]:
        """See `Remote.settled`."""
        found = {}
        for key in self.store.list(f"{self.prefix}/ends/"):
            note = json.loads(self.store.get(key))
            found[int(key.rpartition("/")[2])] = None if note is None else Failure(**note)
        return found

    def forget(self) -> None:
        """See `Remote.forget`."""
        for key in list(self.store.list(self.prefix)):
            self.store.delete(key)


@dataclass(frozen=True)
class InPods:
    """A runner whose jobs get a `PodRemote`."""

    runner: Runner
    url: str
    name: str = "in pods"

    def run(self, job: Job, on_event: OnEvent) -> Outcome:
        """See `Runner.run`."""
        return self.runner.run(replace(job, remote=PodRemote(self.url, job.call, job.attempts)), on_event)
