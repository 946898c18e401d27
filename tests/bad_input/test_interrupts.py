"""A run that is stopped, politely or not, leaves nothing running and goes on where it was, to the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from eo_batch.cli.stopping import stoppable
from eo_batch.core.errors import Interrupted
from eo_batch.entry.run import Run
from eo_batch.io.store import parse_store
from tests.bad_input.test_commands import EO_BATCH, environment
from tests.io.web import Web, slow
from tests.io.worlds import SPEC, WEST, cube_objects, go, spec_of


@pytest.fixture(scope="module")
def undisturbed(planet: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return go(spec_of(planet / "items.json", WEST), parse_store(str(tmp_path_factory.mktemp("undisturbed"))))[0]


def receipts(folder: Path) -> list[Path]:
    """Receipts of chips so far."""
    return list(folder.glob("runs/t/chips-*/receipts/**/*.json"))


def members(group: int) -> dict[int, str]:
    """Processes of a process group that are not mere zombies, with their state."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found[int(entry.parent.name)] = fields[0]
    return found


def wait_for(what: str, holds: Callable[[], bool], limit_s: float = 60.0) -> None:
    deadline_s = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline_s, f"{what} did not happen in {limit_s:g} s"
        time.sleep(0.02)


def started(folder: Path, web: Web, workers: int) -> subprocess.Popen[str]:
    """A run in a process group of its own, in the middle of its chips."""
    (folder / "spec.yaml").write_text(f"catalog: {web.url}/items.json\narea: {{bbox: {list(WEST)}}}\n{SPEC}")
    web.fault(r"\.tif", slow(0.3))
    process = subprocess.Popen(
        [*EO_BATCH, "run", "spec.yaml", "--until", "publish", "--workers", str(workers)],
        cwd=folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for("a first receipt", lambda: bool(receipts(folder)) or process.poll() is not None)
    assert process.poll() is None, process.communicate()[1]
    return process


def finished(folder: Path, catalog: str, undisturbed: Run) -> None:
    """Go on; what was done is not done again, and the cube is that of an undisturbed run."""
    before = {path: path.read_bytes() for path in receipts(folder)}
    assert 0 < len(before) < 8, "the run was to be stopped in the middle"
    run, watching = go(spec_of(catalog, WEST), parse_store(str(folder / "runs")))
    assert watching.ran("chips") == 8 - len(before)
    assert {path: path.read_bytes() for path in before} == before
    assert cube_objects(run) == cube_objects(undisturbed)


def press_ctrl_c(process: subprocess.Popen[str]) -> None:
    """A terminal tells all processes."""
    os.killpg(process.pid, signal.SIGINT)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [press_ctrl_c, subprocess.Popen.terminate])
def test_it_stops_at_once_and_says_how_to_go_on(
    web: Web, tmp_path: Path, undisturbed: Run, workers: int, stop: Callable[[subprocess.Popen[str]], None]
) -> None:
    process = started(tmp_path, web, workers)
    try:
        stop(process)
        _, told = process.communicate(timeout=30)
        assert process.returncode == Interrupted.exit_code
        assert "Traceback" not in told
        last = told.splitlines()[-1]
        assert last == "error: stopped; what is done stays done. Go on with: eo-batch run spec.yaml"
        wait_for("the end of all workers", lambda: not members(process.pid), 5.0)
    finally:
        end(process)
    web.mend()
    finished(tmp_path, f"{web.url}/items.json", undisturbed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_import_that_is_stopped_stops_the_run(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Modules in C make an error of their own of whatever is raised while they are made; what was left is told."""
    (tmp_path / "half_made.py").write_text(
        f"import signal\ntry:\n    signal.raise_signal({int(number)})\nfinally:\n    import_of.nothing\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    before = signal.getsignal(number)

    def run() -> None:
        with stoppable("eo-batch run x"):
            try:
                __import__("half_made")
            except NameError as error:
                error.add_note("a lease is left behind")
                raise

    with pytest.raises(Interrupted, match="Go on with: eo-batch run x") as caught:
        run()
    assert caught.value.__notes__ == ["a lease is left behind"]
    assert signal.getsignal(number) == before


def test_what_is_wrong_by_itself_is_told_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError), stoppable("eo-batch run x"):
        raise ZeroDivisionError


def test_no_worker_outlives_its_parent(web: Web, tmp_path: Path, undisturbed: Run) -> None:
    process = started(tmp_path, web, workers=2)
    try:
        assert len(members(process.pid)) >= 3, "a parent and two workers"
        process.kill()
        process.wait(10)
        wait_for("the end of all workers", lambda: not members(process.pid), 5.0)
    finally:
        end(process)
    web.mend()
    finished(tmp_path, f"{web.url}/items.json", undisturbed)


def end(process: subprocess.Popen[str]) -> None:
    """Whatever went wrong, leave nothing of this test's process group behind."""
    if members(process.pid):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)
