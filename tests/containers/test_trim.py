"""What `containers/trim.py` takes out of an installed tree, and what it leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import cache_from_source
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "containers" / "trim.py"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    for name in (
        "pandas/__init__.py",
        "pandas/tests/test_frame.py",
        "pyarrow/_flight.so",
        "pyarrow/libarrow_flight.so.2600",
        "pyarrow/parquet.py",
        "pyogrio/__init__.py",
        "pyogrio.libs/libgdal.so",
        "box/box.c",
        "box/box.so",
        "numpy/_core/tests/_natype.py",
        "scipy/__init__.py",
        "scipy/stats/tests/test_stats.py",
        "torch/bin/test_api",
        "torch/bin/torch_shm_manager",
        "torch/include/torch/torch.h",
        "torch/testing/_internal/py314_syntax.py",
    ):
        path = packages / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("print('imported')\n" if "syntax" not in name else "this is not Python 3.11\n")
    return packages


def _trim(prefix: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), str(prefix)], capture_output=True, text=True, check=False)


def test_tests_headers_and_test_programs_go_and_the_rest_stays(tree: Path, tmp_path: Path) -> None:
    done = _trim(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(
        str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file() and path.suffix != ".pyc"
    ) == [
        "box/box.so",
        "numpy/_core/tests/_natype.py",
        "pandas/__init__.py",
        "pyarrow/parquet.py",
        "scipy/__init__.py",
        "torch/bin/torch_shm_manager",
        "torch/testing/_internal/py314_syntax.py",
    ]


def test_byte_code_is_used_whatever_the_times_of_files_are(tree: Path, tmp_path: Path) -> None:
    assert _trim(tmp_path).returncode == 0
    source = tree / "scipy" / "__init__.py"
    os.utime(source, (0, 0))
    source.write_text("raise SystemExit('compiled again')\n")
    done = subprocess.run(
        [sys.executable, "-c", "import scipy"],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(tree), "PATH": os.environ["PATH"]},
    )
    assert done.stdout == "imported\n", done.stderr


def test_what_is_compiled_is_left_alone(tree: Path, tmp_path: Path) -> None:
    assert _trim(tmp_path).returncode == 0
    compiled = Path(cache_from_source(str(tree / "scipy" / "__init__.py")))
    os.utime(compiled, (1, 1))
    (tree / "late.py").write_text("late = True\n")
    assert _trim(tmp_path).returncode == 0
    assert compiled.stat().st_mtime == 1
    assert Path(cache_from_source(str(tree / "late.py"))).exists()


def test_a_module_that_does_not_compile_fails_the_build(tree: Path, tmp_path: Path) -> None:
    broken = tree / "pandas" / "broken.py"
    broken.write_text("def (:\n")
    done = _trim(tmp_path)
    assert done.returncode == 1
    assert str(broken) in done.stderr
