"""`checkov` finds nothing but what is argued beside the block, and all of that."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

INFRA = Path(__file__).resolve().parents[2] / "infra"
_SKIP = re.compile(r"^\s*#checkov:skip=(\w+): (.+)$")
_CHECKOV = os.environ.get("EO_BATCH_CHECKOV")
"""The program; read here because tests see no EO_BATCH_ variables."""

Finding = tuple[str, str, str]
"""File, resource (without the key of an instance), id of the check."""


def _scan(folder: Path) -> dict[str, Any]:
    """What checkov says about a folder, without asking anyone over the network."""
    checkov = _CHECKOV or shutil.which("checkov")
    if checkov is None:
        pytest.skip("checkov is not installed; it wants a virtual environment of its own: EO_BATCH_CHECKOV may name it")
    command = [checkov, "--framework", "terraform", "--skip-download", "--output", "json", "--directory", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _findings(scan: dict[str, Any], key: str) -> set[Finding]:
    return {
        (check["file_path"].lstrip("/"), check["resource"].split("[")[0], check["check_id"])
        for check in scan["results"][key]
    }


def _exceptions(folder: Path) -> dict[Finding, str]:
    """Every argued exception with its reason; `resource` is written as checkov does."""
    found: dict[Finding, str] = {}
    for path in sorted(folder.rglob("*.tf")):
        block = ""
        for line in path.read_text(encoding="utf-8").splitlines():
            if opened := re.match(r'^(resource|data) "(\w+)" "(\w+)"', line):
                block = f"{opened[2]}.{opened[3]}"
            if skip := _SKIP.match(line):
                found[str(path.relative_to(folder)), block, skip[1]] = skip[2]
    return found


def test_nothing_is_found_beside_the_argued_exceptions() -> None:
    scan = _scan(INFRA)
    assert scan["summary"]["passed"] > 200
    assert scan["summary"]["parsing_errors"] == 0
    assert _findings(scan, "failed_checks") == set()


def test_every_exception_is_needed(tmp_path: Path) -> None:
    """Without the comments, what checkov finds is what they argue: none has become needless, and checkov does look."""
    bare = tmp_path / "infra"
    shutil.copytree(INFRA, bare)
    for path in bare.rglob("*.tf"):
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        path.write_text("".join(line for line in lines if not _SKIP.match(line)), encoding="utf-8")
    assert _findings(_scan(bare), "failed_checks") == set(_exceptions(INFRA))


def test_every_exception_has_a_reason() -> None:
    reasons = _exceptions(INFRA)
    assert len(reasons) > 20
    assert {finding: reason for finding, reason in reasons.items() if len(reason.split()) < 3} == {}
