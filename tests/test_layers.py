"""The layers hold, the contracts can fail, and importing stays light."""

from __future__ import annotations

import ast
import functools
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "zarr", "dask", "prefect", "kubernetes", "rasterio", "obstore", "boto3", "xarray", "sklearn")


def _run(*argv: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(cwd)}
    return subprocess.run(argv, capture_output=True, text=True, check=False, cwd=cwd, env=env)


def _contracts(root: Path) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).with_name("lint-imports")
    if not command.exists():
        pytest.skip("import-linter is missing: pip install import-linter")
    return _run(str(command), "--no-cache", cwd=root)


@pytest.mark.parametrize(
    ("planted_in", "line", "contract"),
    [
        ("core/grid.py", "import zarr", "core and pixels stay pure"),
        ("pixels/composite.py", "import torch", "core and pixels stay pure"),
        ("pixels/composite.py", "import eo_batch.io.store", "Layers: imports point downwards only"),
        ("io/store.py", "import eo_batch.models.encoder", "Layers: imports point downwards only"),
        ("io/store.py", "import eo_batch.stages.chips", "Layers: imports point downwards only"),
        ("stages/chips/stage.py", "import eo_batch.stages.simulate", "Stages do not know one another"),
        ("runners/__init__.py", "import eo_batch.io.store", "Runners know nothing about bytes"),
        ("models/encoder.py", "import eo_batch.settings", "Models read no settings"),
    ],
)
def test_a_planted_violation_breaks_its_contract(tmp_path: Path, planted_in: str, line: str, contract: str) -> None:
    shutil.copytree(ROOT / "eo_batch", tmp_path / "eo_batch", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    target = tmp_path / "eo_batch" / planted_in
    target.write_text(f"{target.read_text()}\n{line}\n")
    done = _contracts(tmp_path)
    assert done.returncode != 0
    broken = [text for text in done.stdout.splitlines() if text.endswith("BROKEN")]
    assert any(text.startswith(contract) for text in broken), done.stdout + done.stderr


def test_importing_core_and_settings_is_light() -> None:
    code = f"""
import sys, pkgutil, importlib, eo_batch.core, eo_batch.settings
for module in pkgutil.iter_modules(eo_batch.core.__path__, "eo_batch.core."):
    importlib.import_module(module.name)
print(sorted(set(sys.modules) & set({HEAVY!r})))
"""
    done = _run(sys.executable, "-c", code)
    assert done.stdout.strip() == "[]", done.stderr


def test_importing_the_store_does_not_load_what_it_may_not_need() -> None:
    code = "import sys, eo_batch.io.store; print(sorted({'boto3', 'zarr', 'torch', 'rasterio'} & set(sys.modules)))"
    done = _run(sys.executable, "-c", code)
    assert done.stdout.strip() == "[]", done.stderr


def test_only_settings_reads_the_environment() -> None:
    reading = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "eo_batch").rglob("*.py")
        if any(name in path.read_text() for name in ("os.environ", "os.getenv", "getenv("))
    ]
    assert reading == ["eo_batch/settings.py"]


def _imported(folder: Path) -> dict[str, str]:
    """Top-level names of other people's modules that the files below `folder` import, with one file each."""
    found = {}
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Import():
                    names = [alias.name for alias in node.names]
                case ast.ImportFrom(level=0, module=str(name)):
                    names = [name]
                case _:
                    continue
            for name in names:
                found[name.split(".")[0]] = str(path.relative_to(ROOT))
    return {name: path for name, path in found.items() if name not in sys.stdlib_module_names | {"eo_batch"}}


def _declared(*extras: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + [line for extra in extras for line in project["optional-dependencies"][extra]]
    return {_normal(re.split(r"[\[<>=~! ]", line)[0]) for line in lines}


@functools.cache
def _providers() -> dict[str, list[str]]:
    """Top-level module to the packages that bring it; botocore is boto3's own core, and comes with it."""
    return {**packages_distributions(), "botocore": ["boto3"]}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_import_is_a_declared_dependency_and_every_core_dependency_is_imported() -> None:
    imported = _imported(ROOT / "eo_batch")
    given = {name: {_normal(dist) for dist in _providers().get(name, [name])} for name in imported}
    declared = _declared("train", "flows", "kubernetes", "serve")
    undeclared = {name: imported[name] for name, dists in given.items() if not dists & declared}
    assert undeclared == {}
    # dask is what xarray.open_zarr makes lazy arrays of, and is imported by it.
    unused = _declared() - {dist for dists in given.values() for dist in dists} - {"dask"}
    assert unused == set()


def test_what_the_core_imports_needs_no_extra() -> None:
    core = _declared()
    for package in ("core", "pixels", "io"):
        for name, path in _imported(ROOT / "eo_batch" / package).items():
            assert {_normal(dist) for dist in _providers().get(name, [name])} & core, f"{path} imports {name}"
