"""README.md works as it is printed: its files are written, its commands and Python run, its output is what comes.

Blocks run in order in one folder, as a reader would run them. What stands in ELSEWHERE is not run there; it is tested
below. A ```yaml NAME block is a file. A ```text block holds lines (in a table: beginnings of rows) that the commands
or the Python just before it print.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from eo_batch.core.specfile import parse_spec
from tests.servers.objects import ObjectServer

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
BUCKET = "s3://my-bucket"
ELSEWHERE = {
    "make demo": "takes minutes and an installation; `.ci/run` runs it",
    "make test": "would run this test; `.ci/run` runs it",
    "pip install '.[train]'": "would install into the environment of the tests",
    "eo-batch serve": "does not end by itself: tests/serve",
    "eo-batch plan public.yaml": "asks a public catalogue, which tests must not depend on",
    f"eo-batch store init {BUCKET}/eo": "needs a bucket: runs on SeaweedFS",
    f"eo-batch run first.yaml --store {BUCKET}/eo --until publish": "needs a bucket: runs on SeaweedFS",
    "helm install eo-batch helm/eo-batch --namespace eo-batch --values values.yaml": "needs a cluster: tests/cluster",
    f"eo-batch run first.yaml --store {BUCKET}/eo --on profiles/kubernetes.yaml": "needs a cluster: tests/cluster",
    f"eo-batch status --run first --store {BUCKET}/eo --on profiles/kubernetes.yaml": "needs a cluster: tests/cluster",
}
"""Commands that do not run with the others, and why."""


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    kind: str
    name: str
    text: str

    @property
    def commands(self) -> list[str]:
        return [line for line in self.text.replace("\\\n", " ").splitlines() if line.strip()]


def blocks(kind: str = "") -> list[Block]:
    found = re.findall(r"^```(\w*) ?(\S*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [Block(*parts) for parts in found if not kind or parts[0] == kind]


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which `eo-batch` is the command of this checkout, as `pip install` would make it."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, function = scripts["eo-batch"].split(":")
    folder = tmp_path_factory.mktemp("bin")
    command = folder / "eo-batch"
    code = f"from {module} import {function}; {function}()"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c "{code}" "$@"\n')
    command.chmod(0o755)
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "EO_BATCH_"))}
    path = os.pathsep.join([str(folder), str(Path(sys.executable).parent), ours["PATH"]])
    return ours | {"PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}


@pytest.fixture(scope="module")
def ran(env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[Block, str]]]:
    """The folder after everything has run, and each ```text block with what was printed before it."""
    folder = tmp_path_factory.mktemp("readme")
    printed, expected = "", []
    for block in blocks():
        match block.kind:
            case "yaml":
                (folder / block.name).write_text(block.text)
            case "sh":
                here = [line for line in block.commands if line not in ELSEWHERE]
                printed = "".join(_run(["sh", "-c", line], folder, env) for line in here)
            case "python":
                printed = _run([sys.executable, "-c", block.text], folder, env)
            case "text":
                expected.append((block, printed))
    return folder, expected


def _run(argv: list[str], folder: Path, env: dict[str, str]) -> str:
    done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{argv[-1]}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_every_command_and_every_line_of_python_runs(ran: tuple[Path, list[tuple[Block, str]]]) -> None:
    folder, expected = ran
    assert list(folder.glob("runs/first/report-*/index.html"))
    assert (folder / "eo-batch.schema.json").stat().st_size > 1000
    assert len(expected) >= 4
    for block, printed in expected:
        said = [_row(line) for line in printed.splitlines()]
        for line in block.text.splitlines():
            assert any(other.startswith(_row(line)) for other in said), f"{line}\nis not among\n{printed}"


def _row(line: str) -> str:
    """A line without spaces that depend on the width of the terminal, and without the end of a table's row."""
    return " ".join(line.replace("┃", "│").split()).removesuffix("│").strip()


def test_files_in_the_store_are_as_the_readme_draws_them(ran: tuple[Path, list[tuple[Block, str]]]) -> None:
    folder, _ = ran
    (drawn,) = [block.text for block in blocks() if block.text.startswith("<store>")]
    run = folder / "runs" / "first"
    below = {re.sub(r"-[0-9a-f]{12}$", "", path.name) for path in run.iterdir()}
    assert below == set(re.findall(r"^  ([a-z.]+?)(?:-<digest>\S*)?(?: .*)?$", drawn, re.MULTILINE))
    for stage, names in _drawn_names(drawn):
        for name in names:
            assert list(run.glob(f"{stage}-*/**/{name}")), f"{stage}: {name}"


def _drawn_names(drawn: str) -> Iterator[tuple[str, set[str]]]:
    """Names of files and folders that the drawing shows for each stage."""
    for stage, text in re.findall(r"^  ([a-z]+)-<digest>(.*?)(?=^  \S|\Z)", drawn, re.MULTILINE | re.DOTALL):
        yield stage, set(re.findall(r"\b[\w]+\.(?:parquet|json|html|zarr)\b", text))
        yield (
            stage,
            set(re.findall(r"(?<=[ /])(axes|scenes|shards|summaries|checkpoints|models|metrics|chips)(?=/)", text)),
        )


def test_nothing_is_left_out_without_a_reason() -> None:
    commands = {line for block in blocks("sh") for line in block.commands}
    assert set(ELSEWHERE) <= commands, "a command that the README no longer has"
    for line in commands - set(ELSEWHERE):
        assert shlex.split(line)[0] == "eo-batch", f"{line}: say in ELSEWHERE how it is tested"
    kinds = {block.kind for block in blocks()}
    assert kinds <= {"sh", "yaml", "python", "text", ""}, "a block that nobody tests"
    assert all(block.name for block in blocks("yaml"))


@pytest.mark.parametrize("target", ["demo", "test"])
def test_make_knows_the_targets(target: str) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert {"demo": "eo-batch demo", "test": "pytest"}[target] in done.stdout


def test_pip_finds_the_extra() -> None:
    (command,) = [line for line in ELSEWHERE if line.startswith("pip")]
    (extra,) = re.findall(r"\[(\w+)\]", command)
    assert extra in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_the_public_spec_is_a_spec() -> None:
    (public,) = [block for block in blocks("yaml") if block.name == "public.yaml"]
    spec = parse_spec(public.text)
    assert spec.catalog is not None
    assert spec.catalog.startswith("https://")
    assert [array.name for array in spec.arrays()] == ["s2_10m"]
    assert "# B02, B03, B04, B08" in public.text
    assert spec.arrays()[0].band_names == ("B02", "B03", "B04", "B08")
    assert (spec.arrays()[0].chip_px, spec.arrays()[0].pixel_m) == (256, 10)


@pytest.mark.slow
def test_a_bucket_as_the_store(
    ran: tuple[Path, list[tuple[Block, str]]], env: dict[str, str], seaweed: ObjectServer
) -> None:
    folder, _ = ran
    bucket = f"{seaweed.new_bucket()}-readme"  # not there yet
    init, run = [line.replace(BUCKET, bucket) for line in ELSEWHERE if BUCKET in line and "--on" not in line]
    done = subprocess.run(
        shlex.split(init), cwd=folder, env=env | seaweed.env, capture_output=True, text=True, timeout=120
    )
    assert "bucket: done" in done.stdout, done.stderr
    # SeaweedFS lacks some settings: they are named, and the exit code says that not all hold.
    assert done.returncode in (0, 4)
    _run(["sh", "-c", run], folder, env | seaweed.env)
    store = shlex.split(run)[shlex.split(run).index("--store") + 1]
    assert "publish" in _run(["eo-batch", "status", "--run", "first", "--store", store], folder, env | seaweed.env)


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        path, _, anchor = target.partition("#")
        if path.startswith("http"):
            continue
        assert not path or (ROOT / path).exists(), target
        if not path:
            anchors = {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in _titles()}
            assert anchor in anchors, target


def _titles() -> list[str]:
    return re.findall(r"^#+ (.+)$", README, re.MULTILINE)
