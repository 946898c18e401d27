"""Servers that tests share: each starts on first use, once per pytest session, and ends with it.

Under pytest-xdist the workers are separate processes. The first one that needs a server starts it while it holds a
file lock and leaves a note in a folder that all of them know; the others read the note. A guard process owns each
server and stops it once pytest itself is gone, however it went.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

READY_S = 60.0
"""Seconds a server may take until it answers."""


class Unavailable(Exception):
    """A part of the system that a server needs is missing; its message is the reason of the skip."""


@dataclass(frozen=True)
class Note:
    """What a running server tells to those who use it."""

    url: str = ""
    """Its address."""
    env: dict[str, str] = field(default_factory=dict)
    """Environment variables with which clients reach it."""
    missing: str = ""
    """Why there is no server, because a part is missing; empty if there is one."""
    failed: str = ""
    """Why there is no server, though all parts are there."""


@dataclass(frozen=True)
class Home:
    """Where notes, logs and data of the session's servers live."""

    folder: Path
    owner_pid: int
    """The pytest process whose end ends the servers."""

    def spawn(self, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start `argv` under a guard; its output goes to `<name>.log`."""
        guard = [sys.executable, str(Path(__file__).with_name("guard.py")), str(self.owner_pid), *argv]
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                guard,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **(env or {})},
            )
        with (self.folder / "guards").open("a") as guards:
            guards.write(f"{process.pid}\n")
        return process

    def wait(self, name: str, process: subprocess.Popen[bytes], answers: Callable[[], bool]) -> None:
        """Wait until `answers` is true. Raises RuntimeError with the end of the log if that does not happen."""
        deadline_s = time.monotonic() + READY_S
        while time.monotonic() < deadline_s:
            with suppress(OSError):
                if answers():
                    return
            if process.poll() is not None:
                break
            time.sleep(0.1)
        tail = (self.folder / f"{name}.log").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{name} did not become ready in {READY_S:.0f} s; the end of its log:\n{tail}")

    def stop(self) -> None:
        """End every server of the session."""
        guards = self.folder / "guards"
        if not guards.exists():
            return
        pids = [int(line) for line in guards.read_text().split()]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        deadline_s = time.monotonic() + 10
        while any(_alive(pid) for pid in pids) and time.monotonic() < deadline_s:
            time.sleep(0.05)


def shared(home: Home, name: str, start: Callable[[Home, Path], Note]) -> Note:
    """The session's server `name`, started by `start(home, data folder)` unless it runs; skips where it can't."""
    with (home.folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = home.folder / f"{name}.json"
        if path.exists():
            note = Note(**json.loads(path.read_text()))
        else:
            data = home.folder / name
            data.mkdir()
            try:
                note = start(home, data)
            except Unavailable as reason:
                note = Note(missing=str(reason))
            except RuntimeError as reason:
                note = Note(failed=str(reason))
            path.write_text(json.dumps(asdict(note)))
    if note.missing:
        pytest.skip(note.missing)
    if note.failed:
        pytest.fail(note.failed, pytrace=False)
    return note


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, below the range that the system hands out by itself."""
    held = [socket.socket() for _ in range(count)]
    try:
        for sock in held:
            sock.bind(("127.0.0.1", 0))
        return [int(sock.getsockname()[1]) for sock in held]
    finally:
        for sock in held:
            sock.close()


def listening(port: int) -> bool:
    """Whether something accepts connections on `port` of this machine."""
    with socket.socket() as sock:
        sock.settimeout(1)
        return sock.connect_ex(("127.0.0.1", port)) == 0


def _alive(pid: int) -> bool:
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
