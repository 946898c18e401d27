"""GPUs: stages that ask for them run where they are and nowhere else, the others never do; the pods of a gang train
what one process would, and wait for a queue that can't admit all of them.

The GPUs are a number that a node says it has: pods are scheduled by it, and compute on the processor.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

from eo_batch.core import layout
from eo_batch.entry.run import Run, open_run
from eo_batch.io.receipts import read_receipts
from eo_batch.io.store import parse_store
from eo_batch.io.tables import read_table
from eo_batch.runners.kube import JOBSET, QUEUES
from eo_batch.settings import Settings
from tests.cluster.chart import CHART, Installed, installed
from tests.cluster.disturbing import STAGE, Killer, disturbing
from tests.cluster.given import S3, Images
from tests.cluster.kube import get, kubectl, wait_for
from tests.cluster.runs import command, made_by, make_spec, objects, start
from tests.cluster.watching import NONE, Seen, watching
from tests.cluster.ways import ByCommand, profile_of

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

_SPACE = "eo-batch-test-gpu"
_GPUS = 4
"""More than a gang asks for: its pods may still be ending when the next stage's begin."""
_NODES = 2
"""Pods of a gang, each of which asks for one GPU."""
_STEPS, _FEW = 20, 6
_UNTIL_TRAINED = ("plan", "chips", "publish")
"""Stages that a gang has no part in."""


@dataclass(frozen=True)
class Trained:
    """The same spec, run on the cluster until there are embeddings, and here until there is an encoder."""

    spec: Path
    profile: Path
    store: str
    """Where the cluster ran it."""
    here: str
    """Where this machine did."""
    seen: Sequence[Seen]
    """What became of the pods."""


@pytest.fixture(scope="module")
def gpu_node(images: Images, adapter: list[str]) -> Iterator[str]:
    """A node with GPUs, tainted as clouds do it. Skips where there is no other node for what needs none."""
    nodes = json.loads(kubectl("get", "nodes", "-o", "json"))["items"]
    free = sorted(node["metadata"]["name"] for node in nodes if not node["spec"].get("taints"))
    if len(free) < 2:
        pytest.skip("the cluster needs two nodes without taints: one gets GPUs, and the other none")
    node = free[-1]
    try:
        _gpus(adapter, node, _GPUS)
        kubectl("taint", "node", node, "nvidia.com/gpu=present:NoSchedule")
        yield node
    finally:
        kubectl("taint", "node", node, "nvidia.com/gpu-", "--overwrite")
        _gpus(adapter, node, 0)


def _gpus(adapter: list[str], node: str, count: int) -> None:
    subprocess.run([*adapter, "gpu", node, str(count)], check=True, timeout=60)
    path = r"jsonpath={.status.allocatable.nvidia\.com/gpu}"
    wait_for(lambda: kubectl("get", "node", node, "-o", path) == str(count), f"{node} has {count} GPUs")


@pytest.fixture(scope="module")
def release(images: Images, s3: S3, gpu_node: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """The chart with GPUs and tolerations of its own default values."""
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())["pools"]
    pools = {name: {key: pool[key] for key in ("gpus", "tolerations")} for name, pool in defaults.items()}
    assert {name: pool["gpus"] for name, pool in pools.items()} == {"cpu-spot": 0, "gpu-train": 1, "gpu-spot": 1}
    served = kubectl("api-versions")
    if JOBSET.group not in served:
        pytest.skip("the cluster has no JobSet")
    more = {
        "pools": pools,
        "stages": {"pretrain": {"nodes": _NODES}},
        "jobset": {"enabled": True},
        "kueue": {"enabled": QUEUES[0].group in served},
    }
    with installed(_SPACE, images, s3, tmp_path_factory.mktemp("release"), more) as found:
        yield found


@pytest.fixture(scope="module")
def trained(release: Installed, s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    folder, server = tmp_path_factory.mktemp("trained"), s3.server
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.env.items():
            patch.setenv(name, value)
        spec, profile = make_spec(server, folder), release.profile("kubernetes")
        store, here = server.new_bucket(), server.new_bucket()
        with watching(release.namespace, folder / "pods", STAGE) as seen:
            command(run_argv(spec, store, _STEPS, "embed", "--on", str(profile)))
        command(run_argv(spec, here, _STEPS, "pretrain", "--workers", "2"))
        yield Trained(spec, profile, store, here, seen)


def run_argv(spec: Path, store: str, steps: int, until: str, *more: str) -> list[str]:
    overrides = ["pretrain.seeds=[0]", f"pretrain.steps={steps}"]
    return ["run", str(spec), *overrides, "--store", store, "--until", until, *more]


def run_in(store: str) -> Run:
    return open_run(parse_store(store), "same", Settings.from_env())


def test_stages_that_ask_for_gpus_run_on_the_node_that_has_them(trained: Trained, gpu_node: str) -> None:
    for stage, least in (("pretrain", _NODES), ("embed", 1)):
        pods = [pod for pod in trained.seen if pod.stage == stage]
        assert {pod.gpus for pod in pods} == {"1"}
        assert {pod.node for pod in pods} - {NONE} == {gpu_node}
        ran = {pod.name for pod in pods if pod.phase == "Running"}
        assert len(ran) >= least, stage


def test_stages_that_need_no_gpu_neither_ask_for_one_nor_run_where_they_are(trained: Trained, gpu_node: str) -> None:
    for stage in _UNTIL_TRAINED:
        pods = [pod for pod in trained.seen if pod.stage == stage]
        assert {pod.gpus for pod in pods} == {NONE}
        nodes = {pod.node for pod in pods} - {NONE}
        assert nodes, f"no pod of {stage} was on any node"
        assert gpu_node not in nodes


def test_two_pods_train_to_the_losses_of_one_process(trained: Trained, s3_here: S3) -> None:
    there, here = run_in(trained.store), run_in(trained.here)
    made_there, made_here = objects(trained.store), objects(trained.here)
    for stage in _UNTIL_TRAINED:
        prefix = f"{here.identity.prefix(stage)}/"
        mine = {key: value for key, value in made_here.items() if key.startswith(prefix)}
        assert mine
        assert {key: value for key, value in made_there.items() if key.startswith(prefix)} == mine, stage
    check_losses(there, here)
    losses = read_table(here.store, layout.losses(here.identity.prefix("pretrain"), 0))
    assert losses["train"][-1].as_py() < losses["train"][0].as_py(), "nothing was learnt that could differ"


def check_losses(there: Run, here: Run) -> None:
    """The curve that a gang made is that of one process."""
    prefix = here.identity.prefix("pretrain")
    assert there.identity.prefix("pretrain") == prefix
    for run, size in ((there, _NODES), (here, 1)):
        (receipt,) = read_receipts(run.store, prefix).values()
        assert receipt.software["processes"] == str(size)
    losses, expected = (read_table(run.store, layout.losses(prefix, 0)) for run in (there, here))
    assert losses.column_names == expected.column_names
    assert expected["step"].to_pylist() == list(range(1, _STEPS + 1))
    for name in expected.column_names:
        mine, wanted = (table[name].to_numpy().astype(float) for table in (losses, expected))
        np.testing.assert_allclose(mine, wanted, rtol=1e-4, err_msg=name)


@pytest.mark.matrix
def test_a_workflow_fans_out_to_gpus(
    trained: Trained, release: Installed, gpu_node: str, s3_here: S3, tmp_path: Path
) -> None:
    """A JobSet and an Indexed Job that Argo creates, over a store in which all that comes before them is done."""
    store = s3_here.server.new_bucket()
    there, here = parse_store(trained.here), parse_store(store)
    for key in there.list():
        if "/pretrain-" not in key:
            here.put(key, there.get(key))
    with profile_of("argo", release) as profile, watching(release.namespace, tmp_path / "pods") as seen:
        said = command(run_argv(trained.spec, store, _STEPS, "embed", "--on", str(profile)))
    for stage, least in (("pretrain", _NODES), ("embed", 1)):
        pods = [pod for pod in seen if pod.stage == stage]
        assert {pod.gpus for pod in pods} == {"1"}, said
        assert {pod.node for pod in pods} - {NONE} == {gpu_node}
        assert len({pod.name for pod in pods if pod.phase == "Running"}) >= least, stage
    others = [pod for pod in seen if pod.stage in (NONE, *_UNTIL_TRAINED)]
    assert others, "nobody waited for the JobSet"
    assert gpu_node not in {pod.node for pod in others}
    assert {pod.gpus for pod in others} == {NONE}
    check_losses(run_in(store), run_in(trained.here))
    assert set(run_in(store).receipts("embed")) == set(run_in(trained.store).receipts("embed"))
    assert made_by(run_in(store), "argo").keys() == {"pretrain", "embed"}


@pytest.mark.matrix
def test_a_gang_that_loses_pods_trains_to_the_same_losses(trained: Trained, release: Installed, s3_here: S3) -> None:
    store = s3_here.server.new_bucket()
    way = ByCommand(release, "kubernetes", trained.profile)
    killer = Killer(release.namespace, way.at_work, {"pretrain": 2}, seed=3)
    with disturbing(killer):
        command(run_argv(trained.spec, store, _STEPS, "pretrain", "--on", str(trained.profile)))
    assert killer.by_stage["pretrain"] >= 2
    check_losses(run_in(store), run_in(trained.here))


def test_status_tells_that_a_gang_waits_for_its_queue(trained: Trained, release: Installed, s3_here: S3) -> None:
    """It starts as soon as all of it is admitted, and not before."""
    if QUEUES[0].group not in kubectl("api-versions"):
        pytest.skip("the cluster has no Kueue")
    argv = run_argv(trained.spec, trained.store, _FEW, "pretrain", "--on", str(trained.profile))
    asked = ["status", "--store", trained.store, "--on", str(trained.profile)]
    _quota(release.namespace, _NODES - 1)
    running = start(argv)

    def waits() -> bool:
        assert running.poll() is None, running.communicate()[0]
        return "waiting: " in command(asked)

    try:
        wait_for(waits, "status tells what the gang waits for", 90, every_s=1)
        said = command(asked)
        lines = [line for line in said.splitlines() if line.startswith("waiting: ")]
        assert len(lines) == 1, said
        assert lines[0].startswith("waiting: queue gpu-train has not admitted the pods: "), said
        assert "insufficient quota for nvidia.com/gpu" in lines[0]
        assert f"({_NODES}) > maximum capacity ({_NODES - 1})" in lines[0]
        time.sleep(5)
        assert get(release.namespace, "pods", "-l", "eo-batch.io/stage") == [], "one of two pods would have fitted"
        _quota(release.namespace, _NODES)
        told, _ = running.communicate(timeout=240)
        assert running.returncode == 0, told
        assert "queue gpu-train has not admitted the pods" in told
    finally:
        running.kill()
        running.wait()
        _quota(release.namespace, 32)
    assert "waiting" not in command(asked)


def _quota(space: str, gpus: int) -> None:
    """Let the queue of the pool gpu-train admit so many GPUs."""
    name = f"{space}-gpu-train"
    (group,) = json.loads(kubectl("get", "clusterqueue", name, "-o", "json"))["spec"]["resourceGroups"]
    for resource in group["flavors"][0]["resources"]:
        if resource["name"] == "nvidia.com/gpu":
            resource["nominalQuota"] = str(gpus)
    patch = json.dumps({"spec": {"resourceGroups": [group]}})
    kubectl("patch", "clusterqueue", name, "--type=merge", "-p", patch)
