"""`hclfmt` and `tflint` have nothing to say about any module."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

INFRA = Path(__file__).resolve().parents[2] / "infra"
FILES = sorted(INFRA.rglob("*.tf")) + sorted(INFRA.rglob("*.tfvars.example")) + [INFRA / ".tflint.hcl"]


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def _is_formatted(path: Path) -> bool:
    """Whether `hclfmt`, which writes what `tofu fmt` writes, would leave a file as it is."""
    command = [_tool("hclfmt"), "-require-no-change", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1) or (done.returncode == 1 and not done.stdout):
        raise RuntimeError(f"hclfmt can't read {path}: {done.stderr}")
    return done.returncode == 0


def test_files_are_formatted() -> None:
    assert [str(path.relative_to(INFRA)) for path in FILES if not _is_formatted(path)] == []


def test_a_file_that_is_not_formatted_is_found(tmp_path: Path) -> None:
    (tmp_path / "x.tf").write_text('variable   "x" {\ntype=string\n}\n')
    assert not _is_formatted(tmp_path / "x.tf")


def _lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [_tool("tflint"), "--recursive", "--format=compact", f"--config={INFRA / '.tflint.hcl'}"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_tflint_is_content() -> None:
    done = _lint(INFRA)
    assert done.returncode == 0, done.stdout + done.stderr


def test_tflint_finds_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "main.tf").write_text('variable "never_used" {\n  type = string\n}\n')
    done = _lint(tmp_path)
    assert done.returncode == 2
    assert "terraform_unused_declarations" in done.stdout
    assert "terraform_required_version" in done.stdout
