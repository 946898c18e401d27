"""torchrun's exit code says how the processes ended, and the last line why."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from eo_batch.runners.base import DO_NOT_RETRY, POLITE_STOP
from tests.servers.shared import free_ports

_SAYS = "print('error: the store is down', file=sys.stderr); "


def start(program: str) -> subprocess.Popen[str]:
    """Two processes that run a program together."""
    (port,) = free_ports(1)
    meeting = ["--nnodes=1", "--nproc-per-node=2", "--node-rank=0", "--master-addr=127.0.0.1", f"--master-port={port}"]
    argv = [sys.executable, "-m", "eo_batch.runners.together", *meeting, "--no-python"]
    argv += [sys.executable, "-c", f"import os, sys, time; {program}"]
    return subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "code", "said"),
    [
        ("pass", 0, ""),
        (f"sys.exit({DO_NOT_RETRY})", 0, ""),
        (f"{_SAYS} sys.exit(4)", 4, "error: the store is down"),
        (f"{_SAYS} sys.exit(4 if os.environ['RANK'] == '0' else time.sleep(60))", 4, "error: the store is down"),
        ("os.kill(os.getpid(), 9)", 1, "was killed by signal 9"),
    ],
)
def test_how_the_processes_ended(program: str, code: int, said: str) -> None:
    process = start(program)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == code
    assert said in (stderr.splitlines() or [""])[-1], stderr


@pytest.mark.slow
def test_who_is_asked_to_end_ends_politely() -> None:
    process = start("print('up', file=sys.stderr, flush=True); time.sleep(600)")
    assert process.stderr is not None
    assert process.stderr.readline() == "up\n"
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == POLITE_STOP
