"""Looks for the store's keys where they must not be: objects of the API, logs of pods, what a run writes."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from typing import Any

from eo_batch.io.store import parse_store
from tests.cluster.kube import kubectl, raw
from tests.servers.seaweed import SECRET_KEY

_EVERY_S = 5.0


def _in_base64(text: str) -> Iterator[str]:
    """What the Base64 of anything holds that holds a text: it begins at one of three places within a group of bytes."""
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + text.encode()).decode().rstrip("=")
        whole = (before + len(text)) // 3 * 4  # further characters depend on what follows
        yield encoded[-(-before * 8 // 6) : whole]


SHAPES = (SECRET_KEY, *_in_base64(SECRET_KEY))
"""What may be found of the key."""


def shown(text: str) -> list[str]:
    """Lines of a text that hold the key, as it is or in Base64."""
    return [line for line in text.splitlines() if any(shape in line for shape in SHAPES)]


@contextmanager
def no_secret_shown(space: str, *others: str) -> Iterator[None]:
    """Look at a namespace while the block runs: at all its objects but Secrets, and the logs of all its pods; and at
    the end at the logs of other namespaces, since it began. Raises AssertionError if one held the secret key.
    """
    begun, ended = datetime.now(UTC), threading.Event()
    found: list[str] = []
    errors: list[BaseException] = []
    read: dict[str, int] = {"objects": 0, "logs": 0}

    def look() -> None:
        while True:
            last = ended.wait(_EVERY_S)
            for path in _listings():
                text = raw(path.format(space=space))
                read["objects"] += len(json.loads(text)["items"])
                found.extend(f"{path}: {line}" for line in shown(_by_lines(text)))
            said = _logs(space)
            read["logs"] += len(said)
            found.extend(shown(said))
            if last:
                return

    def watch() -> None:
        try:
            look()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=120)
    if errors:
        raise errors[0]
    assert not thread.is_alive()
    for other in others:
        found.extend(shown(_logs(other, f"--since-time={begun:%Y-%m-%dT%H:%M:%SZ}")))
    assert all(read.values()), read
    assert found == []


def check_store(url: str) -> None:
    """Raises AssertionError if an object of a store holds the secret key."""
    store = parse_store(url)
    shapes = [shape.encode() for shape in SHAPES]
    assert [key for key in store.list() if any(shape in store.get(key) for shape in shapes)] == []


def _logs(space: str, *argv: str) -> str:
    """Logs of all pods of a namespace, also of those that do not run yet or any more."""
    words = ("-l", "!eo-batch.io/none", "--all-containers", "--tail=-1", "--ignore-errors", "--prefix", *argv)
    return kubectl("logs", "-n", space, *words, "--max-log-requests=200")


@cache
def _listings() -> Sequence[str]:
    """Paths of the API that list all kinds that a namespace can have, but Secrets."""
    groups = [group["preferredVersion"]["groupVersion"] for group in _read("/apis")["groups"]]
    paths = ["/api/v1", *(f"/apis/{version}" for version in groups)]
    return [
        f"{path}/namespaces/{{space}}/{kind['name']}"
        for path in paths
        for kind in _read(path)["resources"]
        if kind["namespaced"] and "list" in kind["verbs"] and kind["name"] != "secrets"
    ]


def _read(path: str) -> Any:
    return json.loads(raw(path))


def _by_lines(text: str) -> str:
    return json.dumps(json.loads(text), indent=0)
