"""Runs as Argo workflows: with the rights that `runners.workflow` lists and no others, in a namespace that admits
restricted pods only, whatever happens to Argo meanwhile.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from functools import partial
from typing import Any

import pytest

from eo_batch.core import layout
from eo_batch.core.errors import ClusterDown, ClusterRefused, ShardFailed, UsageError
from eo_batch.core.placement import Placement
from eo_batch.core.specfile import parse_spec
from eo_batch.entry.drive import StageState, state_of
from eo_batch.entry.follow import detach_run, follow_run
from eo_batch.entry.run import Run
from eo_batch.io.store import parse_store
from eo_batch.runners import watch
from eo_batch.runners.argo import ArgoRunner
from eo_batch.runners.base import Event, Runner
from eo_batch.runners.lease import Lease, held_lease
from eo_batch.runners.nudge import LOOK
from eo_batch.runners.sweep import sweep
from eo_batch.runners.workflow import WATCH_SUFFIX, workflow_template
from eo_batch.settings import Settings
from tests.cluster.argo import argo_here
from tests.cluster.contract import PodContract
from tests.cluster.given import S3, Images
from tests.cluster.kube import Manifest, apply, get, kubectl, names, namespace, wait_for
from tests.cluster.pods import InPods
from tests.cluster.runs import ASSETS_SIGNED, Reference, done, made_by, nearly_done, nothing_done_twice, objects
from tests.cluster.s3 import secret
from tests.runners.calls import Shelf

pytestmark = pytest.mark.cluster

_SPACE = "eo-batch-test-argo"
_ACCOUNTS: dict[str, list[tuple[str, str, list[str]]]] = {
    "eo-batch-runner": [],
    "eo-batch-workflow": [
        ("argoproj.io", "workflowtaskresults", ["create", "patch"]),
        ("batch", "jobs", ["get", "create", "patch"]),
    ],
    "eo-batch-driver": [("argoproj.io", "workflows", ["get", "create", "update", "patch", "delete"])],
}
"""What each account may do: API group, resources, verbs. The first are the pods that run shards, the second Argo's own,
the third is who speaks to Argo's server."""


@pytest.fixture(scope="module")
def argo(images: Images) -> Iterator[dict[str, Any]]:
    """The section `argo` of a placement, for this process."""
    with argo_here().outside() as url:
        yield {"url": url, "verify_tls": False}


@pytest.fixture(scope="module")
def space(argo: dict[str, Any]) -> Iterator[str]:
    """A namespace that admits restricted pods only, with accounts that may do what they need and nothing else."""
    with namespace(_SPACE) as found:
        apply(found, secret("store-keys"), *(manifest for name in _ACCOUNTS for manifest in account(found, name)))
        yield found


def account(space: str, name: str) -> list[Manifest]:
    rules = [{"apiGroups": [group], "resources": [kind], "verbs": verbs} for group, kind, verbs in _ACCOUNTS[name]]
    rbac = "rbac.authorization.k8s.io"
    subject = {"kind": "ServiceAccount", "name": name, "namespace": space}
    role = {"apiGroup": rbac, "kind": "Role", "name": name}
    metadata = {"metadata": {"name": name}}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", **metadata},
        {"apiVersion": f"{rbac}/v1", "kind": "Role", **metadata, "rules": rules},
        {"apiVersion": f"{rbac}/v1", "kind": "RoleBinding", **metadata, "roleRef": role, "subjects": [subject]},
    ]


@pytest.fixture
def placement(space: str, images: Images, s3_here: S3, argo: dict[str, Any]) -> Placement:
    env = {"AWS_ENDPOINT_URL": s3_here.inside, "AWS_REGION": "us-east-1", **ASSETS_SIGNED}
    cluster = {"namespace": space, "image": images.cpu, "gpu_image": images.gpu, "secrets": ["store-keys"], "env": env}
    return Placement.model_validate(
        {
            "runner": "argo",
            "cluster": cluster,
            "argo": argo,
            "pools": {"small": {"cpu": "20m", "memory_mb": 700}},
            "stages": {
                "default": {"pool": "small", "parallelism": 4},
                "chips": {"pool": "small", "shards_per_pod": 8, "parallelism": 4},
                "embed": {"pool": "small", "shards_per_pod": 7, "parallelism": 4},
            },
        }
    )


class Told:
    """Keeps what a watcher is told."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.events: list[tuple[str, Event]] = []

    def begin(self, state: StageState) -> None:
        self.begun.append(state.stage)

    def event(self, state: StageState, event: Event) -> None:
        print(state.stage, event)
        self.events.append((state.stage, event))

    def end(self, state: StageState) -> None:
        self.ended.append(state.stage)

    def done(self, stage: str) -> set[int | None]:
        return {event.index for name, event in self.events if name == stage and event.kind == "done"}


@pytest.fixture
def run(reference: Reference, s3_here: S3) -> Run:
    """The reference's run in a store of its own, where nothing is done."""
    return Run(parse_spec(reference.spec.read_text()), parse_store(s3_here.server.new_bucket()), Settings.from_env())


def check_nothing_left(space: str) -> None:
    for kind in ("workflows.argoproj.io", "jobs", "leases", "pods"):
        left = get(space, kind, "-l", "eo-batch.io/run")
        assert left == [], f"{kind}: {[thing['metadata']['name'] for thing in left]}"


class Observer:
    """Looks at a namespace's workflows while a run goes on, and once at each of some moments does something to it."""

    def __init__(self, space: str, moments: Mapping[str, Callable[[], None]]) -> None:
        self._space, self._left, self._ended = space, dict(moments), threading.Event()
        self.largest = 0
        """Bytes of the largest workflow seen."""
        self.nodes = 0
        self.objects: set[str] = set()
        """Objects of the run that were seen, but pods."""
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._ended.wait(1.0):
                self._look()
        except BaseException as error:
            self.error = error

    def _look(self) -> None:
        for workflow in get(self._space, "workflows.argoproj.io", "--show-managed-fields"):
            self.largest = max(self.largest, len(json.dumps(workflow, separators=(",", ":"))))
            self.nodes = max(self.nodes, len(workflow.get("status", {}).get("nodes") or {}))
        kinds = "workflows.argoproj.io,workflowtaskresults.argoproj.io,jobs,leases,configmaps,secrets"
        found = kubectl("get", kinds, "-n", self._space, "-o", "name", "--ignore-not-found").split()
        self.objects |= {name for name in found if "kube-root-ca" not in name and "store-keys" not in name}
        for pod in get(self._space, "pods", "--field-selector", "status.phase=Running"):
            part = pod["metadata"]["labels"].get("app.kubernetes.io/component", "")
            if part in self._left:
                self._left.pop(part)()

    @property
    def missed(self) -> list[str]:
        """Moments that have not come."""
        return list(self._left)


@contextmanager
def observed(space: str, moments: Mapping[str, Callable[[], None]]) -> Iterator[Observer]:
    """`moments` are by the component of a pod that runs. Raises what went wrong with it."""
    observer = Observer(space, moments)
    thread = threading.Thread(target=observer.run, daemon=True)
    thread.start()
    try:
        yield observer
    finally:
        observer._ended.set()
        thread.join(timeout=60)
    if observer.error is not None:
        raise observer.error


def kill_pods(space: str, component: str) -> None:
    """End pods at once, without asking them to."""
    labels = f"app.kubernetes.io/component={component}"
    kubectl("delete", "pod", "-n", space, "-l", labels, "--grace-period=0", "--force", "--wait=false")


_MISSING = {"chips": 3, "pretrain": 1, "embed": 2, "report": 1}
"""Shards that are missing of a run that goes on."""


@pytest.fixture
def begun(run: Run, reference: Reference, s3_here: S3) -> tuple[Run, dict[str, set[str]]]:
    """A run of which little is missing, and that by stage. Whole runs are those of test_whole_runs.py."""
    url, missing = nearly_done(reference, s3_here.server, _MISSING)
    return Run(run.spec, parse_store(url), run.settings), missing


@pytest.mark.slow
def test_a_run_goes_on_while_argo_is_killed(
    begun: tuple[Run, dict[str, set[str]]], placement: Placement, reference: Reference, space: str
) -> None:
    run, missing = begun
    told, urls = Told(), list[str]()
    moments = {
        "chips": argo_here().restart,
        "pretrain-watch": partial(kill_pods, space, "pretrain-watch"),
        "embed-watch": argo_here().restart,
    }
    with observed(space, moments) as observer, nothing_done_twice(run.store.url):
        follow_run(run, placement, told, on_submitted=urls.append)
    assert observer.missed == []
    assert told.begun == told.ended == list(layout.STAGES)
    assert [event for _, event in told.events if event.kind == "failed"] == []
    (name,) = (url.rpartition("/")[2] for url in urls)
    assert urls == [f"{placement.argo.url}/workflows/{space}/{name}"]
    assert done(run) == reference.shards
    assert made_by(run, "argo") == missing
    assert [key for key in run.store.list() if "/work/" in key] == []
    assert observer.largest < 100_000
    assert observer.nodes < 25
    assert len(observer.objects) <= 50, sorted(observer.objects)
    check_nothing_left(space)
    again = Told()
    follow_run(run, placement, again, on_submitted=urls.append)
    assert (again.ended, again.events, len(urls)) == (list(layout.STAGES), [], 1), "what is done takes no workflow"
    assert objects(run.store.url) == reference.objects


@pytest.mark.slow
def test_the_template_makes_the_same_run(run: Run, placement: Placement, reference: Reference, space: str) -> None:
    if shutil.which("argo") is None:
        pytest.skip("argo is not on the PATH")
    apply(space, workflow_template(placement))
    given = {"run": "same", "store": run.store.url, "spec": reference.spec.read_text(), "until": "publish"}
    argv = ["argo", "submit", "-n", space, "--from", "workflowtemplate/eo-batch", "--wait", "-o", "name"]
    for name, value in given.items():
        argv += ["-p", f"{name}={value}"]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=600)
    (workflow,) = get(space, "workflows.argoproj.io")
    try:
        assert ended.returncode == 0, ended.stdout + ended.stderr + json.dumps(workflow["status"])
        assert workflow["status"]["phase"] == "Succeeded"
        for stage in ("plan", "chips", "publish"):
            assert state_of(run, stage).missing == (), stage
            assert set(run.receipts(stage)) == reference.shards[stage]
        assert run.receipts("pretrain") == {}
        assert len(json.dumps(workflow)) < 100_000
        labels = get(space, "jobs")[0]["metadata"]["labels"]
        assert (labels["eo-batch.io/run"], labels["eo-batch.io/stage"]) == ("same", "chips")
    finally:
        kubectl("delete", "workflow", "-n", space, workflow["metadata"]["name"])
    wait_for(lambda: get(space, "jobs") == [] and get(space, "pods") == [], "the workflow takes its Jobs with it")


def test_a_run_that_is_left_to_itself(
    run: Run, placement: Placement, space: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run.submit()
    detach_run(run, placement, "plan")
    (workflow,) = get(space, "workflows.argoproj.io", "-l", "eo-batch.io/run=same")
    name = workflow["metadata"]["name"]
    said = capsys.readouterr().out
    assert f"{placement.argo.url}/workflows/{space}/{name}" in said
    assert f"kubectl delete workflow -n {space} {name}" in said
    assert "ownerReferences" not in workflow["metadata"]
    assert workflow["spec"]["ttlStrategy"]["secondsAfterCompletion"] == 3600
    wait_for(lambda: run.receipt("plan", "plan") is not None, "the plan is done", 240)
    kubectl("delete", "workflow", "-n", space, name)
    wait_for(lambda: get(space, "pods") == [], "its pods go with it")


def lose_watcher(space: str) -> None:
    """Take away the pod that waits for the Job of `chips`. As when its node is lost, it can't report: for that time it
    has no right to."""
    of_it = f"eo-batch.io/run=same,app.kubernetes.io/component=chips{WATCH_SUFFIX}"

    def runs() -> bool:
        found = get(space, "workflows.argoproj.io", "-l", "eo-batch.io/run=same")
        nodes = [node for workflow in found for node in workflow.get("status", {}).get("nodes", {}).values()]
        return any((node["displayName"], node["phase"]) == ("chips(0)", "Running") for node in nodes)

    wait_for(runs, "Argo has seen it run", 240)
    kubectl("delete", "rolebinding", "-n", space, "eo-batch-workflow")
    try:
        (name,) = (pod["metadata"]["name"] for pod in get(space, "pods", "-l", of_it))
        kubectl("delete", "pod", "-n", space, name, "--force", "--grace-period=0")
        time.sleep(5)  # until its containers have ended on the node
    finally:
        apply(space, *account(space, "eo-batch-workflow"))


def test_a_pod_that_is_lost_is_replaced_at_once(run: Run, placement: Placement, space: str) -> None:
    told, lost = Told(), []

    def lose() -> None:
        lose_watcher(space)
        lost.append(time.monotonic())

    losing = threading.Thread(target=lose)
    losing.start()
    follow_run(run, placement, told, "chips")
    losing.join()
    assert told.ended == ["plan", "chips"]
    assert time.monotonic() - lost[0] < 180, "Argo by itself takes up to twenty minutes"


def test_the_sweeper_reminds_argo_of_lost_pods(placement: Placement, space: str) -> None:
    """Whether Argo overlooks one is a matter of milliseconds. So here are two workflows as Argo leaves them, at which
    no controller looks."""
    lost = {"id": "a", "name": "a", "displayName": "a", "type": "Pod", "phase": "Error", "taskResultSynced": False}
    labels = {"eo-batch.io/run": "same", "workflows.argoproj.io/controller-instanceid": "none"}
    for name, synced in (("overlooked", False), ("seen", True)):
        node = lost | {"taskResultSynced": synced}
        workflow = {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Workflow",
            "metadata": {"name": name, "labels": labels},
            "spec": {"entrypoint": "main", "templates": [{"name": "main", "suspend": {}}]},
            "status": {"phase": "Running", "nodes": {"a": node}},
        }
        apply(space, workflow)

    def annotated() -> list[str]:
        found = get(space, "workflows.argoproj.io", "-l", "eo-batch.io/run=same")
        return [one["metadata"]["name"] for one in found if LOOK in one["metadata"].get("annotations", {})]

    try:
        assert sweep(placement, dry_run=True) == ["would remind Argo of a lost pod of workflow overlooked"]
        assert annotated() == []
        assert sweep(placement) == ["reminded Argo of a lost pod of workflow overlooked"]
        assert annotated() == ["overlooked"]
    finally:
        kubectl("delete", "workflow", "-n", space, "overlooked", "seen")


def test_ctrl_c_leaves_nothing(run: Run, placement: Placement, space: str) -> None:
    class Pressing(Told):
        def begin(self, state: StageState) -> None:
            super().begin(state)
            if state.stage == "chips":
                threading.Timer(3.0, os.kill, (os.getpid(), signal.SIGINT)).start()

    told = Pressing()
    with pytest.raises(KeyboardInterrupt):
        follow_run(run, placement, told, "chips")
    assert told.ended == ["plan"]
    check_nothing_left(space)
    assert [key for key in run.store.list() if key.endswith(("/list.json", "/work/run.yaml"))] == []


def test_a_shard_that_fails_for_good_is_told_as_it_is(run: Run, placement: Placement, space: str) -> None:
    before = run.spec.time.model_copy(update={"start": date(2019, 6, 1), "end": date(2019, 7, 1)})
    hopeless = Run(run.spec.model_copy(update={"time": before}), run.store, run.settings)
    told = Told()
    with pytest.raises(ShardFailed, match=r"plan: .*has no item of .* over the area from 2019-06-01") as caught:
        follow_run(hopeless, placement, told)
    assert caught.value.exit_code == UsageError.exit_code
    assert [event.kind for _, event in told.events] == ["failed"]
    check_nothing_left(space)


class TestBroken:
    """What nobody but a person can mend ends with one line that names it, soon."""

    def refused(self, run: Run, placement: Placement, kind: type[Exception]) -> str:
        begun = time.monotonic()
        with pytest.raises(kind) as caught:
            follow_run(run, placement, Told(), "plan")
        assert time.monotonic() - begun < 90
        (line,) = str(caught.value).splitlines()
        check_nothing_left(placement.cluster.namespace if placement.cluster else "")
        return line

    def test_a_server_that_does_not_answer(self, run: Run, placement: Placement) -> None:
        nowhere = placement.argo.model_copy(update={"url": "https://127.0.0.1:1"})
        said = self.refused(run, placement.model_copy(update={"argo": nowhere}), ClusterDown)
        assert said.startswith("Argo's server at https://127.0.0.1:1 does not answer")
        assert "kubectl -n argo port-forward" in said

    def test_a_certificate_that_is_not_valid(self, run: Run, placement: Placement) -> None:
        if not placement.argo.url.startswith("https:"):
            pytest.skip("Argo's server has no certificate")
        strict = placement.argo.model_copy(update={"verify_tls": True})
        said = self.refused(run, placement.model_copy(update={"argo": strict}), ClusterRefused)
        assert "is not valid" in said
        assert "argo.verify_tls: false" in said

    def test_a_server_that_wants_tls(self, run: Run, placement: Placement) -> None:
        if not placement.argo.url.startswith("https:"):
            pytest.skip("Argo's server has no certificate")
        plain = placement.argo.model_copy(update={"url": placement.argo.url.replace("https:", "http:")})
        assert "use https:// in argo.url" in self.refused(
            run, placement.model_copy(update={"argo": plain}), ClusterRefused
        )

    def test_an_account_that_may_not_submit(self, run: Run, placement: Placement) -> None:
        weak = placement.argo.model_copy(update={"client_account": "eo-batch-runner"})
        said = self.refused(run, placement.model_copy(update={"argo": weak}), ClusterRefused)
        assert 'cannot create resource "workflows"' in said

    def test_an_account_that_is_not_there(self, run: Run, placement: Placement) -> None:
        gone = placement.argo.model_copy(update={"service_account": "nobody"})
        said = self.refused(run, placement.model_copy(update={"argo": gone}), ClusterRefused)
        assert said.startswith("service account nobody (argo.service_account) is not there")

    def test_an_image_that_does_not_exist(
        self, run: Run, placement: Placement, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(watch, "BROKEN_S", 6.0)
        assert placement.cluster is not None
        cluster = placement.cluster.model_copy(update={"image": "registry.invalid/no-such:1"})
        said = self.refused(run, placement.model_copy(update={"cluster": cluster}), ClusterRefused)
        assert said.startswith("image registry.invalid/no-such:1 can't be pulled (")

    def test_keys_that_are_not_there(self, run: Run, placement: Placement, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(watch, "BROKEN_S", 6.0)
        assert placement.cluster is not None
        cluster = placement.cluster.model_copy(update={"secrets": ("nowhere",)})
        said = self.refused(run, placement.model_copy(update={"cluster": cluster}), ClusterRefused)
        assert 'secret "nowhere" not found' in said

    def test_a_store_that_pods_do_not_reach(self, run: Run, placement: Placement) -> None:
        assert placement.cluster is not None
        env = placement.cluster.env | {"AWS_ACCESS_KEY_ID": "wrong"}
        cluster = placement.cluster.model_copy(update={"env": env, "secrets": ()})
        said = self.refused(run, placement.model_copy(update={"cluster": cluster}), ShardFailed)
        assert said.startswith("plan: its pod ended with exit code 2: error: ")

    def test_pods_of_another_version(self, run: Run, placement: Placement, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("eo_batch.entry.follow.identity_of", lambda run: "0" * 12)
        said = self.refused(run, placement, ShardFailed)
        assert "makes other stages of same than the version that started it: use an image of that version" in said


@pytest.mark.slow
@pytest.mark.matrix  # what runs in its pods are the Jobs of the runner `kubernetes`, whose contract always runs
class TestContract(PodContract):
    runner_name = "argo"
    tells_retries = False
    at_once = 3

    @pytest.fixture
    def lease(self, placement: Placement) -> Iterator[Lease]:
        with held_lease(placement, f"contract-{uuid.uuid4().hex[:4]}") as lease:
            yield lease

    @pytest.fixture
    def runner(self, placement: Placement, lease: Lease, s3: S3) -> Runner:
        return InPods(ArgoRunner(placement, lease), s3.server.new_bucket())

    @pytest.fixture
    def notes(self, s3: S3) -> Shelf:
        return Shelf(s3.server.new_bucket(), "notes")

    @pytest.fixture
    def left(self, space: str) -> Callable[[], list[str]]:
        return lambda: names(space, "workflows.argoproj.io", "jobs", "pods")
