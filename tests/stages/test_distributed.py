"""One seed trained by several processes, as torchrun starts them: the same losses, one receipt, no hang."""

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from eo_batch.core import layout
from eo_batch.core.errors import UsageError
from eo_batch.core.receipts import Receipt
from eo_batch.core.specfile import parse_spec
from eo_batch.entry.door import Door
from eo_batch.entry.drive import drive
from eo_batch.entry.run import Run
from eo_batch.io.store import parse_store
from eo_batch.io.tables import read_table
from eo_batch.models.checkpoints import dump_checkpoint, load_checkpoint
from eo_batch.runners.local import LocalRunner
from eo_batch.settings import Ranks, Settings
from eo_batch.stages import pretrain
from eo_batch.stages.simulate import simulate
from tests.models.test_world import LOOPBACK, ROOT, free_port
from tests.stages.test_learning import PLANET, SPEC, Silent, copy_of

TRAINING = ("steps=20", "batch=15", "checkpoint_every_steps=5", "seeds=[3, 4]", "memory_gb=0")
"""Two processes can't share 15 samples evenly. Half of them are under cloud, where they have one sensor. With no memory
to keep them in, samples are read at every step, which leaves time to kill somebody."""
TORCHRUN = (sys.executable, "-m", "torch.distributed.run")
SHARD = ("-m", "eo_batch.cli", "shard", "pretrain", "0", "--store")
STANDALONE = (*TORCHRUN, "--standalone", "--nproc-per-node=2", *SHARD)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose chips are published; not written to afterwards."""
    folder = tmp_path_factory.mktemp("distributed")
    catalog = simulate(PLANET, parse_store(str(folder / "planet")))
    sections = [f"catalog={catalog}", f"area.bbox={list(PLANET.area_bbox)}", *(f"pretrain.{word}" for word in TRAINING)]
    run = Run(parse_spec(SPEC, sections, "test"), parse_store(str(folder / "store")), Settings())
    run.submit()
    drive(run, LocalRunner(), Silent(), until="publish")
    return run


@pytest.fixture(scope="module")
def alone(published: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run, its first seed trained by one process."""
    run = copy_of(published, tmp_path_factory.mktemp("alone"))
    Door(run, "pretrain", "test")(0)
    return run


@pytest.fixture(scope="module")
def two(published: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run, its first seed trained by two processes."""
    run = copy_of(published, tmp_path_factory.mktemp("two"))
    trained_by_two(run)
    return run


def start(run: Run, argv: tuple[str, ...], **environ: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*argv, run.store.url], cwd=ROOT, env=os.environ | LOOPBACK | environ, stderr=subprocess.PIPE, text=True
    )


def trained_by_two(run: Run) -> None:
    process = start(run, STANDALONE)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said


def prefix(run: Run) -> str:
    return run.identity.prefix("pretrain")


def objects(run: Run) -> dict[str, bytes]:
    """Everything that training wrote."""
    return {key: run.store.get(key) for key in run.store.list(prefix(run))}


def made(run: Run) -> dict[str, bytes]:
    """The same without receipts, which tell of times."""
    return {key: data for key, data in objects(run).items() if "/receipts/" not in key}


def receipt(run: Run) -> Receipt:
    found = run.receipt("pretrain", "seed-3")
    assert found is not None
    return found


def curve(run: Run) -> pd.DataFrame:
    return read_table(run.store, layout.losses(prefix(run), 3)).to_pandas()


def assert_same_losses(found: pd.DataFrame, wanted: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(found, wanted, rtol=1e-4, atol=0.0)


def checkpoints(run: Run) -> list[str]:
    """Keys of the checkpoints that are there, old to new."""
    return sorted(run.store.list(f"{prefix(run)}/checkpoints/"))


def unfinished(run: Run, folder: Path) -> Run:
    """The same run in a store of its own, as it was before the last checkpoint: the newest is that of step 15."""
    copy = copy_of(run, folder)
    newest = checkpoints(copy)[-1]
    for key in made(copy):
        if "/checkpoints/" not in key or key == newest:
            copy.store.delete(key)
    copy.store.delete(layout.receipt_key(prefix(copy), "seed-3"))
    assert [key[-7:] for key in checkpoints(copy)] == ["15.ckpt"]
    return copy


def test_two_processes_train_what_one_would(alone: Run, two: Run) -> None:
    assert_same_losses(curve(two), curve(alone))
    assert len(curve(two)) == 20
    assert objects(two).keys() == objects(alone).keys()
    assert [key for key in objects(two) if "/receipts/" in key] == [layout.receipt_key(prefix(two), "seed-3")]
    written = {key.removeprefix(f"{prefix(two)}/"): data for key, data in made(two).items()}
    assert receipt(two).outputs == {key: len(data) for key, data in written.items() if "checkpoints" not in key}
    assert (receipt(alone).software["processes"], receipt(two).software["processes"]) == ("1", "2")
    assert receipt(alone).inputs == receipt(two).inputs


def test_what_has_a_receipt_is_skipped_by_all(two: Run) -> None:
    before = objects(two)
    trained_by_two(two)
    assert objects(two) == before


def test_two_processes_go_on_from_what_one_left(alone: Run, tmp_path: Path) -> None:
    """And refuse together a checkpoint that is damaged. Marks in the older one show who went on from it."""
    run = unfinished(alone, tmp_path)
    (older,) = checkpoints(run)
    kept = load_checkpoint(run.store.get(older), older)
    marked = dataclasses.replace(kept, curve=tuple({**row, "train": 7.0} for row in kept.curve))
    run.store.put(older, dump_checkpoint(marked))
    newest = older.replace("15.ckpt", "16.ckpt")
    run.store.put(newest, dump_checkpoint(kept)[:-100])
    trained_by_two(run)
    assert curve(run).train[:15].tolist() == [7.0] * 15
    assert_same_losses(curve(run)[15:], curve(alone)[15:])
    (note,) = receipt(run).notes
    assert note.subject == newest
    assert "cut short" in note.text


def test_one_process_goes_on_from_what_two_left(alone: Run, two: Run, tmp_path: Path) -> None:
    run = unfinished(two, tmp_path)
    steps: list[int] = []
    pretrain.run(run.spec, 3, run.plan.cells, run.axes, run.store, steps.append)
    assert steps == [16, 17, 18, 19, 20]
    assert curve(run)[:15].equals(curve(two)[:15])
    assert_same_losses(curve(run), curve(alone))


def kill_pod(agent: "subprocess.Popen[str]") -> None:
    """SIGKILL for torchrun and its workers at once, as when a spot node goes."""
    children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    assert children, "torchrun has no worker"
    agent.send_signal(signal.SIGSTOP)  # it must not see its workers die before it does
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGKILL)
    agent.kill()
    agent.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers of torchrun in /proc")
def test_a_lost_pod_ends_the_other_and_the_next_try_goes_on(published: Run, two: Run, tmp_path: Path) -> None:
    run = copy_of(published, tmp_path)
    gang = (*TORCHRUN, "--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={free_port()}")
    pods = [start(run, (*gang, f"--node-rank={rank}", *SHARD)) for rank in (0, 1)]
    try:
        deadline = time.monotonic() + 120
        while not checkpoints(run):
            assert pods[0].poll() is None, pods[0].communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        kill_pod(pods[1])
        _, said = pods[0].communicate(timeout=120)
    finally:
        for pod in pods:
            pod.kill()
            pod.wait()
    assert pods[0].returncode == 1
    assert re.search(r"error: process 0 of 2 lost the others.*training goes on from the last checkpoint", said)
    assert run.receipt("pretrain", "seed-3") is None
    assert checkpoints(run)
    trained_by_two(run)
    assert made(run) == made(two)


def by_hand(runs: tuple[Run, Run], indices: tuple[int, int] = (0, 0)) -> list[tuple[int, str]]:
    """Exit code and words of two processes that were started without torchrun, each on a store of its own."""
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    argvs = [(sys.executable, *SHARD[:4], str(index), "--store") for index in indices]
    processes = [start(runs[rank], argvs[rank], RANK=str(rank), **shared) for rank in (0, 1)]
    try:
        said = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [(process.returncode, words) for process, words in zip(processes, said, strict=True)]


def test_the_first_process_alone_looks_for_the_receipt_and_writes(published: Run, two: Run, tmp_path: Path) -> None:
    """The second has a store of its own, in which everything is done: whoever asked it would wait for ever."""
    first, second = copy_of(published, tmp_path / "first"), copy_of(two, tmp_path / "second")
    before = objects(second)
    assert [code for code, _ in by_hand((first, second))] == [0, 0]
    assert made(first) == made(two)
    assert objects(second) == before


def test_processes_that_were_started_for_different_shards_refuse(published: Run, tmp_path: Path) -> None:
    run = copy_of(published, tmp_path)
    for code, said in by_hand((run, run), indices=(0, 1)):
        assert code == UsageError.exit_code, said
        assert re.search(
            r"need the same shard: process 0 has 'pretrain seed-3 of .*, process 1 has 'pretrain seed-4", said
        )
    assert objects(run) == {}


def test_stages_of_one_process_refuse_to_run_in_several(published: Run) -> None:
    several = Run(published.spec, published.store, Settings(ranks=Ranks(0, 2, 0, "127.0.0.1", 1)))
    with pytest.raises(UsageError, match=r"publish was started in 2 processes.*torchrun, which is for pretrain only"):
        Door(several, "publish", "test")(0)
