"""A store that refuses or is full in the middle of a run: one clear line, nothing lost, and a rerun completes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from eo_batch.core.errors import ShardFailed, StoreDenied, StoreError
from eo_batch.core.receipts import Receipt
from eo_batch.entry.run import Run
from eo_batch.io.store import Store, parse_store
from tests.io.worlds import WEST, cube_objects, go, spec_of
from tests.servers.seaweed import READER


@pytest.fixture(scope="module")
def undisturbed(planet: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return go(spec_of(planet / "items.json", WEST), parse_store(str(tmp_path_factory.mktemp("undisturbed"))))[0]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for a plan, but not for a cube."""
    folder = tmp_path / "small"
    folder.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a small disk can't be made here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


def one_line(error: Exception) -> str:
    assert "\n" not in str(error)
    return str(error)


def whole(store: Store) -> None:
    """Every receipt reads, and tells of objects that are there at full length."""
    for key in store.list():
        prefix, found, _ = key.partition("/receipts/")
        if found:
            receipt = Receipt.from_bytes(store.get(key), key)
            for name, size in receipt.outputs.items():
                assert store.size(f"{prefix}/{name}") == size


def test_a_disk_that_fills_up_loses_nothing(planet: Path, small_disk: Path, undisturbed: Run) -> None:
    store = parse_store(str(small_disk / "store"))
    spec = spec_of(planet / "items.json", WEST)
    go(spec, store, until="plan")
    filler = small_disk / "filler"
    room = os.statvfs(small_disk)
    filler.write_bytes(bytes(max(room.f_bavail * room.f_frsize - 270_000, 0)))
    with pytest.raises((ShardFailed, StoreError), match="disk is full; free some space") as told:
        go(spec, store)
    one_line(told.value)
    whole(store)
    before = {key for key in store.list() if "/receipts/s2/" in key or "/receipts/labels/" in key}
    assert 0 < len(before) < 8, "the disk was to fill up in the middle of the chips"
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    run, watching = go(spec, store)
    assert watching.ran("chips") == 8 - len(before), "what was done stays done"
    assert cube_objects(run) == cube_objects(undisturbed)
    whole(store)


def test_a_bucket_that_may_only_be_read(
    planet: Path, s3_url: str, undisturbed: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(planet / "items.json", WEST)
    writable = {name: os.environ[name] for name in READER}
    for name, value in READER.items():
        monkeypatch.setenv(name, value)
    with pytest.raises((ShardFailed, StoreDenied), match="lack the permission; check AWS_PROFILE") as told:
        go(spec, parse_store(s3_url))
    one_line(told.value)
    for name, value in writable.items():
        monkeypatch.setenv(name, value)
    store = parse_store(s3_url)
    assert list(store.list()) == []
    # The permission goes away in the middle of a run, too.
    go(spec, store, until="plan")
    for name, value in READER.items():
        monkeypatch.setenv(name, value)
    with pytest.raises((ShardFailed, StoreDenied), match="lack the permission"):
        go(spec, parse_store(s3_url))
    for name, value in writable.items():
        monkeypatch.setenv(name, value)
    run, _ = go(spec, parse_store(s3_url))
    assert cube_objects(run) == cube_objects(undisturbed)
    whole(run.store)


@pytest.mark.parametrize("name", ["file/inside", "/proc/nowhere", "/dev/null"])
def test_places_that_take_no_files(planet: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    place = name if name.startswith("/") else str(tmp_path / name)
    with pytest.raises((ShardFailed, StoreError)) as told:
        go(spec_of(planet / "items.json", WEST), parse_store(place))
    assert place in one_line(told.value)


def test_a_bucket_that_is_not_there(planet: Path, s3_url: str) -> None:
    with pytest.raises((ShardFailed, StoreError), match="eo-batch store init s3://no-such-bucket-at-all"):
        go(spec_of(planet / "items.json", WEST), parse_store("s3://no-such-bucket-at-all/prefix"))
