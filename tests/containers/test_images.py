"""The images do, in restricted pods on a cluster, what they are made for."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tests.cluster.kube import kubectl, wait_for
from tests.containers import programs
from tests.containers.conftest import image
from tests.containers.pods import ended, inside, pod, running

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
CPU, GPU = "EO_BATCH_IMAGE", "EO_BATCH_GPU_IMAGE"
LIGHT = (
    "argo_workflows",
    "dask",
    "dask_kubernetes.operator",
    "distributed",
    "eo_batch.cli.app",
    "kubernetes",
    "prefect",
    "prefect_kubernetes",
    "rasterio",
    "stac_geoparquet",
    "xarray",
    "zarr",
)
CEILINGS_MB = {CPU: 1230, GPU: 2150}
"""Most that the images may be, unpacked or not: some tenth more than they were (containers/README.md)."""
HEAVY = ("safetensors.torch", "scipy.stats", "sklearn.linear_model", "torch", "torch.distributed.run")


@pytest.fixture(scope="module")
def cpu(space: str) -> Iterator[str]:
    """A pod of the CPU image that waits."""
    with pod(space, "cpu", image(CPU), main=["sleep", "3600"]) as name:
        running(space, name)
        yield name


@pytest.fixture(scope="module")
def gpu(space: str) -> Iterator[str]:
    """A pod of the GPU image that waits."""
    with pod(space, "gpu", image(GPU), main=["sleep", "3600"]) as name:
        running(space, name)
        yield name


@pytest.fixture(params=["cpu", "gpu"])
def either(request: pytest.FixtureRequest) -> str:
    """A pod of each image in turn."""
    name: str = request.getfixturevalue(request.param)
    return name


@pytest.mark.parametrize("variable", [CPU, GPU])
def test_args_name_the_program(space: str, variable: str) -> None:
    version, dask, worker = ["eo-batch", "version"], ["dask", "scheduler", "--help"], ["prefect", "worker", "--help"]
    with pod(space, "args", image(variable), version=version, dask=dask, worker=worker) as name:
        ends = ended(space, name)
        printed = {container: kubectl("logs", "-n", space, name, "-c", container) for container in ends}
    assert {container: end["exitCode"] for container, end in ends.items()} == dict.fromkeys(ends, 0), printed
    assert printed["version"].strip() == VERSION
    assert "Usage: dask scheduler" in printed["dask"]
    assert "prefect worker" in printed["worker"]


def test_the_cpu_image_has_what_it_is_for(space: str, cpu: str) -> None:
    assert inside(space, cpu, "python", "-c", programs.IMPORTS, *LIGHT).split() == list(LIGHT)


def test_the_cpu_image_has_no_torch(space: str, cpu: str) -> None:
    found = "import importlib.util; print([importlib.util.find_spec(name) for name in ('torch', 'sklearn')])"
    assert inside(space, cpu, "python", "-c", found).strip() == "[None, None]"


def test_the_gpu_image_has_what_it_is_for(space: str, gpu: str) -> None:
    assert inside(space, gpu, "python", "-c", programs.IMPORTS, *LIGHT, *HEAVY).split() == [*LIGHT, *HEAVY]


def test_an_encoder_learns_in_the_gpu_image(space: str, gpu: str) -> None:
    assert inside(space, gpu, "python", "-c", programs.ENCODER).strip() == "(4, 16)"


def test_torchrun_starts_a_group_in_the_gpu_image(space: str, gpu: str) -> None:
    inside(space, gpu, "sh", "-c", 'printf %s "$0" > /tmp/group.py', programs.GROUP)
    group = ("torchrun", "--standalone", "--nproc-per-node=2", "/tmp/group.py")
    assert inside(space, gpu, *group).strip() == "3.0"


def test_rasters_are_written_and_projected(space: str, cpu: str) -> None:
    assert inside(space, cpu, "python", "-c", programs.RASTERS).strip() == "same pixels"


@pytest.mark.parametrize(
    ("program", "result"), [(programs.DASK, "45"), (programs.PREFECT, "42")], ids=["dask", "prefect"]
)
def test_dask_and_prefect_need_no_disk_but_tmp(space: str, cpu: str, program: str, result: str) -> None:
    inside(space, cpu, "sh", "-c", 'printf %s "$0" > /tmp/program.py', program)
    assert inside(space, cpu, "python", "/tmp/program.py").split()[-1] == result


def test_flows_profiles_and_recipes_lie_where_programs_start(space: str, either: str) -> None:
    patterns = ("flows/*.py", "prefect.yaml", "profiles/*.yaml", "recipes/*.yaml")
    listed = inside(space, either, "sh", "-c", f"pwd; ls {' '.join(patterns)}").split()
    wanted = {str(path.relative_to(ROOT)) for pattern in patterns for path in ROOT.glob(pattern)}
    assert set(listed) == {"/opt/eo-batch", *wanted}


def test_the_image_has_neither_pip_nor_compilers_nor_files_of_its_user(space: str, either: str) -> None:
    tools = "for name in pip gcc cc git curl; do command -v $name; done; true"
    assert inside(space, either, "sh", "-c", tools) == ""
    assert inside(space, either, "sh", "-c", "find / -xdev -user 10001 2>/dev/null; true") == ""
    assert inside(space, either, "id", "-u").strip() == "10001"


def test_no_program_keeps_the_rights_of_its_owner(space: str, either: str) -> None:
    assert inside(space, either, "sh", "-c", "find / -xdev -type f -perm /6000 2>/dev/null; true") == ""


@pytest.mark.parametrize("name", CEILINGS_MB)
def test_images_are_no_larger_than_they_have_to_be(request: pytest.FixtureRequest, name: str) -> None:
    request.getfixturevalue("cpu" if name == CPU else "gpu")  # then a node has it
    nodes = json.loads(kubectl("get", "nodes", "-o", "json"))["items"]
    held = [held for node in nodes for held in node["status"].get("images", [])]
    sizes = [one["sizeBytes"] for one in held if any(tag.endswith(image(name)) for tag in one["names"])]
    assert sizes, "no node says what it has"
    print(f"{name}: {max(sizes) / 1e6:.0f} MB")
    assert max(sizes) <= CEILINGS_MB[name] * 1e6


def test_what_ends_is_reaped(space: str, either: str) -> None:
    assert inside(space, either, "python", "-c", programs.ORPHAN).strip() == "0 zombies"


def test_eo_batch_ends_within_a_second_of_sigterm(space: str) -> None:
    command = ["eo-batch", "simulate", "/tmp/planet", "width_km=32", "height_km=24"]
    with pod(space, "polite", image(CPU), main=command) as name:
        running(space, name)
        wait_for(lambda: inside(space, name, "sh", "-c", "ls /tmp").strip() != "", "the first file")
        asked = float(inside(space, name, "python", "-c", programs.TERMINATE).strip())
        end = ended(space, name)["main"]
    assert end["exitCode"] == 128 + 15
    # The time of the end has no fractions of a second.
    assert datetime.fromisoformat(end["finishedAt"]).timestamp() - int(asked) <= 1


def test_both_images_have_the_same_wheel(space: str, cpu: str, gpu: str) -> None:
    files = "import importlib.metadata as m; print(m.distribution('eo-batch').read_text('RECORD'))"
    records = [inside(space, name, "python", "-c", files) for name in (cpu, gpu)]
    assert "eo_batch/cli/app.py,sha256=" in records[0]
    assert records[0] == records[1]


def test_no_package_is_there_that_constraints_do_not_name(space: str, gpu: str) -> None:
    listing = (
        "import importlib.metadata as m, json;"
        "print(json.dumps({d.metadata['Name'].lower().replace('_', '-').replace('.', '-'): d.version.partition('+')[0]"
        " for d in m.distributions()}))"
    )
    there = json.loads(inside(space, gpu, "python", "-c", listing))
    lines = [line for name in ("constraints.txt", "containers/pins.txt") for line in (ROOT / name).read_text().split()]
    pins = dict(line.split("==") for line in lines if "==" in line)
    unpinned = {name: version for name, version in there.items() if pins.get(name) != version}
    assert unpinned == {"eo-batch": VERSION}
