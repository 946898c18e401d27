"""The layers hold, the contracts can fail, and importing stays light."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
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
        ("stages/chips.py", "import eo_batch.stages.simulate", "Stages do not know one another"),
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
