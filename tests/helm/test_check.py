"""What `helm test` runs in a pod, run here against a real S3 server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from eo_batch.io.store import parse_store
from tests.helm.render import CHART, ROOT
from tests.servers.seaweed import READER

CHECK = CHART / "files" / "check.py"


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(CHECK), str(folder)],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def profiles(folder: Path, store: str, **changes: object) -> Path:
    text = yaml.safe_load((ROOT / "profiles" / "kubernetes.yaml").read_text())
    (folder / "kubernetes.yaml").write_text(yaml.safe_dump(text | {"store": store}))
    (folder / "argo.yaml").write_text(yaml.safe_dump(text | {"store": store, "runner": "argo"} | changes))
    return folder


def test_a_store_that_works_is_left_as_it_was(s3_url: str, tmp_path: Path) -> None:
    done = check(profiles(tmp_path, f"{s3_url}/runs"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "profiles: argo, kubernetes",
        f"store: {s3_url}/runs can be written, read, listed, and deleted from",
    ]
    assert list(parse_store(s3_url).list()) == []


def test_one_who_may_only_read_is_found_out(s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in READER.items():
        monkeypatch.setenv(name, value)
    done = check(profiles(tmp_path, s3_url))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {s3_url}: could not write helm-test/")


def test_a_profile_that_is_none_is_named(s3_url: str, tmp_path: Path) -> None:
    done = check(profiles(tmp_path, s3_url, stages={"default": {"pool": "gpu"}}))
    assert done.returncode == 1
    assert "error: argo.yaml: profile: stages.default.pool=gpu is not in pools" in done.stderr
