"""Steps of a workflow, in processes of their own where it matters how they end, over real stores."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from eo_batch.core import layout
from eo_batch.core.errors import StoreError, UsageError
from eo_batch.core.placement import Placement, dump_placement
from eo_batch.core.specfile import dump_spec
from eo_batch.entry import step
from eo_batch.entry.drive import state_of
from eo_batch.entry.run import Run
from eo_batch.entry.step import Step, clean, identity_of, open_step_run
from eo_batch.entry.work import Work, run_slice, troubles
from eo_batch.io.store import Store, parse_store
from eo_batch.runners.base import DO_NOT_RETRY, POLITE_STOP, SLICE
from eo_batch.runners.workflow import AFTER
from tests.core.samples import item
from tests.io.worlds import QUICK, planet, spec_of  # noqa: F401  # planet is a fixture

PLACEMENT = Placement.model_validate(
    {
        "runner": "argo",
        "cluster": {"image": "eo-batch:test"},
        "pools": {"small": {"cpu": "100m", "memory_mb": 256}},
        "stages": {"default": {"pool": "small", "shards_per_pod": 2, "parallelism": 4}},
    }
)
WORK = "11111111-2222-3333-4444-555555555555"
"""A workflow's uid."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return parse_store(str(tmp_path / "store"))


@pytest.fixture
def run(planet: Path, store: Store) -> Run:  # noqa: F811
    """A run that was submitted; nothing of it is done."""
    run = Run(spec_of(planet / "items.json"), store, QUICK)
    run.submit()
    return run


def at(run: Run, **changes: Any) -> Step:
    """A step of the run's workflow, in a process that knows nothing of the steps before."""
    return replace(Step(Run(run.spec, run.store, run.settings, run.refresh), PLACEMENT, WORK), **changes)


def hopeless(run: Run) -> Run:
    """The run at a time of which the catalogue has nothing."""
    before = run.spec.time.model_copy(update={"start": date(2019, 6, 1), "end": date(2019, 7, 1)})
    return Run(run.spec.model_copy(update={"time": before}), run.store, QUICK)


def work_off(run: Run, outputs: dict[str, str], stage: str) -> None:
    """What the pods of a fan-out do."""
    manifest = json.loads(outputs[f"{stage}-manifest"])
    args = manifest["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args[:2] == ["eo-batch", "slice"]
    assert args[3] == SLICE
    for number in range(manifest["spec"]["completions"]):
        assert run_slice(run.store, args[2], number, QUICK, lambda said: None)


def test_a_workflow_of_steps_and_slices_makes_the_run(run: Run) -> None:
    said: list[str] = []
    assert at(run).perform("plan", said.append)
    after_plan = at(run).following(AFTER["plan"])
    chips = state_of(Run(run.spec, run.store, QUICK), "chips")
    assert int(after_plan["chips-slices"]) == -(-len(chips.shards) // 2)
    assert after_plan["chips-success"] == "status.completionTime"
    work_off(run, after_plan, "chips")
    assert state_of(Run(run.spec, run.store, QUICK), "chips").missing == ()
    assert at(run).perform("publish", said.append)
    after_publish = at(run).following(AFTER["publish"])
    counts = {name: int(text) for name, text in after_publish.items() if name.endswith("-slices")}
    embed = state_of(Run(run.spec, run.store, QUICK), "embed")
    pods = -(-len(embed.shards) // 2)
    assert counts == {"pretrain-slices": 1, "embed-slices": pods, "probe-slices": 0, "report-slices": 1}
    assert json.loads(after_publish["embed-manifest"])["metadata"]["labels"]["eo-batch.io/stage"] == "embed"
    assert said == ["plan plan: done", "publish publish: done"]
    receipts = Run(run.spec, run.store, QUICK).receipts("publish")
    assert {receipt.runner for receipt in receipts.values()} == {"argo"}


def test_a_step_that_is_tried_again_says_the_same(run: Run) -> None:
    assert at(run).perform("plan", print)
    first = at(run).following(["chips"])
    finished = run.receipts("plan")["plan"].finished
    time.sleep(1.1)  # receipts tell whole seconds
    said: list[str] = []
    assert at(run).perform("plan", said.append)
    assert said == ["plan: nothing to do"]
    assert run.receipts("plan")["plan"].finished == finished
    assert at(run).following(["chips"]) == first


def test_a_list_that_pods_work_on_stays_as_it_is(run: Run) -> None:
    assert at(run).perform("plan", print)
    first = at(run).following(["chips"])
    key = json.loads(first["chips-manifest"])["spec"]["template"]["spec"]["containers"][0]["args"][2]
    assert run_slice(run.store, key, 0, QUICK, print)
    before = run.store.get(key)
    again = at(run).following(["chips"])
    assert run.store.get(key) == before
    assert again["chips-slices"] == first["chips-slices"], "slices keep their numbers"
    assert json.loads(again["chips-manifest"])["spec"]["completions"] == int(first["chips-slices"])


def test_two_workflows_of_a_run_share_no_list_and_no_name(run: Run) -> None:
    assert at(run).perform("plan", print)
    one, other = (json.loads(at(run, work=work).following(["chips"])["chips-manifest"]) for work in ("a", "b"))
    assert one["metadata"]["name"] != other["metadata"]["name"]
    keys = [work["spec"]["template"]["spec"]["containers"][0]["args"][2] for work in (one, other)]
    assert keys[0] != keys[1]


def test_what_is_done_takes_no_pods(run: Run) -> None:
    assert at(run).perform("plan", print)
    work_off(run, at(run).following(["chips"]), "chips")
    assert at(run, work="later").following(["chips"]) == {
        "chips-slices": "0",
        "chips-manifest": "",
        "chips-success": "",
    }


def test_only_the_missing_shards_are_listed(run: Run) -> None:
    assert at(run).perform("plan", print)
    work_off(run, at(run).following(["chips"]), "chips")
    shards = state_of(Run(run.spec, run.store, QUICK), "chips").shards
    for shard in shards[:3]:
        run.store.delete(layout.receipt_key(run.identity.prefix("chips"), shard))
    outputs = at(run, work="later").following(["chips"])
    assert outputs["chips-slices"] == "2"
    assert Work(run, "chips", "argo", "later").frozen().indices == (0, 1, 2)


def test_nothing_is_done_beyond_the_last_stage_that_is_wanted(run: Run) -> None:
    assert at(run, until="plan").perform("plan", print)
    assert at(run, until="plan").following(["chips"])["chips-slices"] == "0"
    said: list[str] = []
    assert at(run, until="plan").perform("publish", said.append)
    assert said == ["publish: nothing to do"]
    assert set(at(run, until="plan").following(AFTER["publish"]).values()) == {"0", ""}
    with pytest.raises(UsageError, match="until=plam is no stage of this run; its stages are plan, chips"):
        at(run, until="plam").perform("plan", print)


def test_the_lease_is_named_on_what_it_owns_in_the_end(run: Run) -> None:
    assert at(run).perform("plan", print)
    manifest = json.loads(at(run, lease="t-12345678").following(["chips"])["chips-manifest"])
    for labels in (manifest["metadata"]["labels"], manifest["spec"]["template"]["metadata"]["labels"]):
        assert labels["eo-batch.io/lease"] == "t-12345678"
        assert labels["eo-batch.io/run"] == "t"


def test_a_step_that_fails_for_good_leaves_a_note(run: Run) -> None:
    said: list[str] = []
    assert not at(hopeless(run)).perform("plan", said.append)
    (trouble,) = troubles(hopeless(run), "plan", ["plan"])
    assert trouble.failure is not None
    assert "has no item of sentinel-2-l2a" in trouble.failure
    assert said == [f"plan plan: failed: {trouble.failure}"]


def test_cleaning_up_leaves_nothing_but_the_run(run: Run) -> None:
    opened = open_step_run(run.store, "t", WORK, QUICK)
    assert at(opened).perform("plan", print)
    work_off(run, at(run).following(["chips"]), "chips")
    assert [key for key in run.store.list() if "/work/" in key]
    clean(run, WORK)
    assert [key for key in run.store.list() if "/work/" in key] == []


class TestSpec:
    """All steps of a workflow go by one spec."""

    def test_what_was_submitted_last_holds_from_the_first_step_on(self, run: Run) -> None:
        first = open_step_run(run.store, "t", WORK, QUICK)
        assert first.spec == run.spec
        other = run.spec.model_copy(update={"area": run.spec.area.model_copy(update={"bbox": (0.0, 0.0, 1.0, 1.0)})})
        Run(other, run.store, QUICK).submit()
        assert open_step_run(run.store, "t", WORK, QUICK).spec == run.spec
        assert open_step_run(run.store, "t", "another", QUICK).spec == other

    def test_one_that_is_given_is_submitted(self, run: Run) -> None:
        other = run.spec.model_copy(update={"name": "other"})
        assert open_step_run(run.store, "other", WORK, QUICK, spec=dump_spec(other)).spec == other
        assert open_step_run(run.store, "other", "later", QUICK).spec == other

    def test_one_in_the_store_is_what_counts(self, run: Run) -> None:
        other = run.spec.model_copy(update={"limits": run.spec.limits.model_copy(update={"max_missing": 0.5})})
        run.store.put("t/work/x/run.yaml", dump_spec(other).encode())
        assert open_step_run(run.store, "t", WORK, QUICK, spec_at="t/work/x/run.yaml").spec == other

    def test_a_name_that_is_not_the_specs_is_refused(self, run: Run) -> None:
        with pytest.raises(UsageError, match="run=other, and the spec's name is t"):
            open_step_run(run.store, "other", WORK, QUICK, spec=dump_spec(run.spec))

    def test_a_run_that_nobody_submitted_is_refused(self, run: Run) -> None:
        with pytest.raises(UsageError, match=r"nothing/run\.yaml is not there; give the workflow a spec"):
            open_step_run(run.store, "nothing", WORK, QUICK)

    def test_pods_of_another_version_refuse_the_run(self, run: Run) -> None:
        assert open_step_run(run.store, "t", WORK, QUICK, identity=identity_of(run)).spec == run.spec
        with pytest.raises(UsageError, match="makes other stages of t than the version that started it"):
            open_step_run(run.store, "t", WORK, QUICK, identity="0" * 12)


def test_slices_of_another_version_refuse_the_list(run: Run) -> None:
    assert at(run).perform("plan", print)
    state = state_of(run, "chips")
    key = Work(run, "chips", "argo", "w").freeze(state.missing, 2)[2]
    prefix = run.identity.prefix("chips")
    moved = key.replace(prefix, f"{prefix[:-1]}x")
    run.store.put(moved, run.store.get(key))
    with pytest.raises(UsageError, match="makes other stages of t than the version that started it"):
        run_slice(run.store, moved, 0, QUICK, print)


def argv(run: Run, stage: str, *more: str) -> list[str]:
    """A step as Argo starts it."""
    given = {
        "work": WORK,
        "run": run.spec.name,
        "store": run.store.url,
        "spec": "",
        "spec-at": "",
        "until": "",
        "refresh": "false",
        "profile": dump_placement(PLACEMENT),
        "lease": "",
        "identity": "",
    }
    code = "from eo_batch.cli import main; main()"
    return [sys.executable, "-c", code, "step", stage, *(f"--{name}={value}" for name, value in given.items()), *more]


def call(command: list[str]) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environ)


class TestCommand:
    """`eo-batch step` and `eo-batch slice` as pods run them: files in, files and an exit code out."""

    def test_a_step_writes_its_outputs(self, run: Run, tmp_path: Path) -> None:
        outputs = tmp_path / "deep" / "outputs"
        ended = call(argv(run, "plan", "--next=chips", f"--outputs={outputs}"))
        assert ended.returncode == 0, ended.stderr
        assert {path.name for path in outputs.iterdir()} == {"chips-slices", "chips-manifest", "chips-success"}
        assert json.loads((outputs / "chips-manifest").read_text())["kind"] == "Job"
        assert int((outputs / "chips-slices").read_text()) > 1

    def test_a_step_that_fails_for_good_asks_for_no_retry(self, run: Run) -> None:
        hopeless(run).submit()
        ended = call(argv(run, "plan"))
        assert ended.returncode == DO_NOT_RETRY, ended.stderr
        assert "has no item of sentinel-2-l2a" in ended.stderr

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ("--refresh=yes", "refresh='yes' is neither true nor false"),
            ("--run=nothing", "nothing/run.yaml is not there"),
            ("--profile=runner: argo", "cluster is missing"),
            ("--identity=000000000000", "than the version that started it"),
        ],
    )
    def test_wrong_input_is_said_in_a_line(self, run: Run, wrong: str, said: str) -> None:
        ended = call(argv(run, "plan", wrong))
        assert ended.returncode == UsageError.exit_code
        (line,) = ended.stderr.splitlines()
        assert line.startswith("error: ")
        assert said in line

    @pytest.mark.usefixtures("s3_url")
    def test_a_bucket_that_is_not_there_is_no_reason_to_try_again(self, run: Run) -> None:
        ended = call([*argv(run, "plan"), "--store=s3://no-such-bucket"])
        assert ended.returncode == UsageError.exit_code
        assert "no-such-bucket" in ended.stderr

    def test_a_store_that_is_down_is(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in {
            "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "EO_BATCH_RETRIES": "0",
        }.items():
            monkeypatch.setenv(name, value)
        ended = call([*argv(run, "plan"), "--store=s3://bucket"])
        assert ended.returncode == StoreError.exit_code, ended.stderr

    def test_a_step_that_is_asked_to_end_does_so_and_loses_no_try(self, run: Run) -> None:
        note = layout.work_try(run.identity.prefix("plan"), WORK, "plan")
        command = argv(run, "plan")
        slow = "import time, eo_batch.entry.door as door; door.perform = lambda *of: time.sleep(60); "
        command[2] = slow + command[2]
        pod = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            wait_for(lambda: run.store.exists(note), pod)
            assert json.loads(run.store.get(note))["tries"] == 1
            pod.send_signal(signal.SIGTERM)
            pod.send_signal(signal.SIGTERM)
            _, said = pod.communicate(timeout=20)
        finally:
            pod.kill()
        assert pod.returncode == POLITE_STOP
        assert "asked to end" in said
        assert json.loads(run.store.get(note))["tries"] == 0

    def test_a_list_that_is_gone_is_no_reason_to_try_again(self, run: Run) -> None:
        code = "from eo_batch.cli import main; main()"
        ended = call([sys.executable, "-c", code, "slice", "t/plan-0/work/w/list.json", "0", "-s", run.store.url])
        assert ended.returncode == UsageError.exit_code
        assert "whoever started this job has ended it" in ended.stderr


def wait_for(condition: Any, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)


@pytest.fixture
def large(tmp_path: Path, store: Store) -> Run:
    """A run of ten thousand shards: a chip each."""
    corners = [[15.0, 45.06], [16.4, 45.06], [16.4, 46.06], [15.0, 46.06], [15.0, 45.06]]
    found = item() | {"geometry": {"type": "Polygon", "coordinates": [corners]}}
    path = tmp_path / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [found]}))
    overrides = ["grid.block_chips=1", "time.start=2023-08-01", "time.end=2023-09-01", "sensors={s2: {kind: s2-l2a}}"]
    spec = spec_of(path, (15.2, 45.3, 15.61, 45.588), *overrides, "sensors.s2.bands=[B04]")
    return Run(spec, store, QUICK)


@pytest.mark.slow
def test_ten_thousand_shards_are_one_small_object_within_seconds(large: Run) -> None:
    one_each = PLACEMENT.stages["default"].model_copy(update={"shards_per_pod": 1, "parallelism": 500})
    placement = PLACEMENT.model_copy(update={"stages": {"default": one_each}})
    assert at(large).perform("plan", print)
    shards = len(large.plan.shards)
    assert shards >= 10_000
    begun = time.monotonic()
    outputs = at(large, placement=placement).following(["chips"])
    assert time.monotonic() - begun < 30
    manifest = json.loads(outputs["chips-manifest"])
    assert manifest["spec"]["completions"] == int(outputs["chips-slices"]) == shards
    assert manifest["spec"]["parallelism"] == 500
    assert len(outputs["chips-manifest"]) < 5000


def test_stages_are_asked_once_how_far_they_are(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert at(run).perform("plan", print)
    asked: list[str] = []

    def counted(run: Run, stage: str) -> Any:
        asked.append(stage)
        return state_of(run, stage)

    monkeypatch.setattr(step, "state_of", counted)
    at(run).following(["chips"])
    assert asked == ["chips"], "a look at a large stage reads all of its receipts"
