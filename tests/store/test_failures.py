"""What goes wrong with a store says what, where and what to do, in bounded time and without secrets."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from eo_batch.core.errors import StoreDenied, StoreError, StoreMissing
from eo_batch.io.store import Store, parse_store
from tests.servers.seaweed import READER
from tests.store.backends import REMOTE, store_url

ROOT = Path(__file__).resolve().parents[2]
SECRET = "WrongSecretThatMustNotShow"
AZURE_SECRET = "V3JvbmdTZWNyZXRUaGF0TXVzdE5vdFNob3c="
EVERY_CALL: tuple[Callable[[Store], object], ...] = (
    lambda store: store.get("key"),
    lambda store: store.get_range("key", 0, 1),
    lambda store: store.put("key", b"x"),
    lambda store: store.put_if_absent("other", b"x"),
    lambda store: store.exists("key"),
    lambda store: store.size("key"),
    lambda store: list(store.list()),
)


@pytest.mark.parametrize("backend", ["moto", "az", "gs"])
def test_a_missing_bucket_names_the_remedy(backend: str, request: pytest.FixtureRequest) -> None:
    """On moto instead of SeaweedFS, which makes missing buckets by itself when an administrator writes."""
    url = store_url(backend, request) + "-gone"
    store = parse_store(url).at("run")
    for call in EVERY_CALL[2:4] + EVERY_CALL[6:]:
        with pytest.raises(StoreMissing) as caught:
            call(store)
        assert f"`eo-batch store init {url}`" in str(caught.value)
    with pytest.raises(StoreMissing):
        store.get("key")


def test_listing_a_missing_bucket_on_seaweed(s3_url: str) -> None:
    with pytest.raises(StoreMissing, match=f"`eo-batch store init {s3_url}-gone`"):
        list(parse_store(f"{s3_url}-gone").list())


def test_a_missing_folder_is_missing_and_reading_does_not_make_it(tmp_path: Path) -> None:
    store = parse_store(str(tmp_path / "gone"))
    with pytest.raises(StoreMissing, match="gone"):
        store.get("key")
    assert not store.exists("key")
    assert list(store.list()) == []
    with pytest.raises(StoreMissing, match="gone"):
        store.zarr("cube.zarr", read_only=True)
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("call", EVERY_CALL)
def test_wrong_s3_credentials_are_denied(s3_url: str, monkeypatch: pytest.MonkeyPatch, call: Callable) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with pytest.raises(StoreDenied, match="AWS_PROFILE") as caught:
        call(parse_store(s3_url))
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_s3_user_who_may_only_read(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parse_store(s3_url).put("key", b"x")
    for name, value in READER.items():
        monkeypatch.setenv(name, value)
    store = parse_store(s3_url)
    assert store.get("key") == b"x"
    with pytest.raises(StoreDenied, match="could not write key"):
        store.put("key", b"y")


def test_no_aws_credentials_at_all(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StoreDenied, match="no AWS credentials found"):
        parse_store(s3_url).get("key")


def test_half_of_the_credentials_are_refused(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StoreDenied, match=r"AWS credentials are incomplete: .*AWS_SECRET_ACCESS_KEY"):
        parse_store(s3_url).get("a")


def test_an_unknown_profile_is_named(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody-here")
    with pytest.raises(StoreDenied, match="nobody-here"):
        parse_store(s3_url).get("key")


@pytest.mark.parametrize("call", EVERY_CALL)
def test_wrong_azure_credentials_are_denied(az_url: str, monkeypatch: pytest.MonkeyPatch, call: Callable) -> None:
    text = os.environ["AZURE_STORAGE_CONNECTION_STRING"]
    parts = [f"AccountKey={AZURE_SECRET}" if p.startswith("AccountKey") else p for p in text.split(";")]
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", ";".join(parts))
    with pytest.raises(StoreDenied, match="AZURE_STORAGE_CONNECTION_STRING") as caught:
        call(parse_store(az_url))
    assert AZURE_SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_sas_token_never_shows(az_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = dict(p.split("=", 1) for p in os.environ["AZURE_STORAGE_CONNECTION_STRING"].split(";") if p)[
        "BlobEndpoint"
    ]
    token = f"sv=2021-08-06&se=2099-01-01&sr=c&sp=r&sig={SECRET}"
    monkeypatch.setenv(
        "AZURE_STORAGE_CONNECTION_STRING",
        f"AccountName=devstoreaccount1;BlobEndpoint={endpoint};SharedAccessSignature={token}",
    )
    store = parse_store(az_url)
    with pytest.raises(StoreError) as caught:
        store.get("key")
    shown = "".join(traceback.format_exception(caught.value)) + repr(store) + str(store.options)
    assert SECRET not in shown
    assert SECRET.encode() not in pickle.dumps(store)


@pytest.mark.parametrize("backend", REMOTE)
def test_secrets_stay_out_of_names_and_pickles(backend: str, request: pytest.FixtureRequest) -> None:
    store = parse_store(store_url(backend, request))
    store.put("key", b"x")
    secrets = [os.environ.get("AWS_SECRET_ACCESS_KEY"), os.environ.get("AWS_ACCESS_KEY_ID")]
    connection = os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "")
    secrets += [part.split("=", 1)[1] for part in connection.split(";") if part.startswith("AccountKey")]
    zarr_store = store.zarr("cube.zarr")
    for secret in filter(None, secrets):
        assert secret.encode() not in pickle.dumps(store) + pickle.dumps(zarr_store)
        for named in (store, store.options, store.obs, zarr_store):
            assert secret not in repr(named) + str(named)


def _dead_environment(backend: str, port: int) -> dict[str, str]:
    """With five attempts; tests/io/test_catalogs.py takes as many as people get."""
    url = f"http://127.0.0.1:{port}"
    few = {"EO_BATCH_RETRIES": "4"}
    match backend:
        case "s3":
            keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": SECRET}
            return {"AWS_ENDPOINT_URL": url, "AWS_REGION": "us-east-1", **keys, **few}
        case "gs":
            return {"STORAGE_EMULATOR_HOST": url, **few}
        case _:
            parts = ["AccountName=a", f"AccountKey={AZURE_SECRET}", f"BlobEndpoint={url}/a"]
            return {"AZURE_STORAGE_CONNECTION_STRING": ";".join(parts), **few}


@pytest.mark.parametrize("backend", REMOTE)
@pytest.mark.parametrize("call", [EVERY_CALL[0], EVERY_CALL[2], EVERY_CALL[6]], ids=["get", "put", "list"])
def test_a_dead_endpoint_fails_soon(backend: str, call: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        for name, value in _dead_environment(backend, unused.getsockname()[1]).items():
            monkeypatch.setenv(name, value)
        began_s = time.monotonic()
        with pytest.raises(StoreError, match="endpoint does not answer") as caught:
            call(parse_store(f"{backend}://bucket"))
    assert time.monotonic() - began_s < 15
    assert caught.value.retryable
    assert type(caught.value) is StoreError


def test_an_endpoint_that_swallows_packets_fails_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as full:
        # With a full backlog the kernel drops further connection attempts, as a firewall would.
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        for name, value in _dead_environment("s3", full.getsockname()[1]).items():
            monkeypatch.setenv(name, value)
        options = replace(parse_store("s3://bucket").options, connect_timeout_s=0.5)
        began_s = time.monotonic()
        with pytest.raises(StoreError, match="endpoint does not answer"):
            Store("s3://bucket", options).get("key")
        took_s = time.monotonic() - began_s
        for sock in waiting:
            sock.close()
    # Five attempts, and pauses of at most 0.6 + 1.8 + 2 + 2 seconds between them.
    assert 5 * 0.5 < took_s < 5 * 0.5 + 6.4 + 1


def _env() -> dict[str, str]:
    """An environment in which eo_batch imports, installed or not."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"a full disk can't be made here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(small_disk: Path) -> None:
    store = parse_store(str(small_disk / "store"))
    store.put("key", b"whole")
    with pytest.raises(StoreError, match="disk is full") as caught:
        store.put("key", bytes(2**20))
    assert caught.value.retryable
    assert store.get("key") == b"whole", "the earlier object is untouched"
    with pytest.raises(StoreError, match="disk is full"):
        store.put_if_absent("new", bytes(2**20))
    assert list(store.list()) == ["key"], "nothing cut short is left behind"


def test_a_full_disk_under_zarr(small_disk: Path) -> None:
    import numpy as np
    import zarr

    store = parse_store(str(small_disk / "store"))
    noise = np.random.default_rng(0).integers(0, 2**16, (512, 512), dtype="uint16")
    with pytest.raises(StoreError, match="could not write cube: the disk is full"), store.errors("write cube"):
        zarr.create_array(store.zarr("cube.zarr"), data=noise)


def test_a_folder_that_is_not_writable(tmp_path: Path) -> None:
    """In a process without root's power to ignore permissions."""
    folder = tmp_path / "sealed"
    folder.mkdir()
    (folder / "key").write_bytes(b"x")
    folder.chmod(0o555)
    code = f"""
import os, sys
from eo_batch.io.store import parse_store
store = parse_store({str(folder)!r})
if os.geteuid() == 0:
    for parent in {[str(p) for p in folder.parents]!r}:
        if parent.startswith("/tmp/"): os.chmod(parent, 0o755)
    os.setgid(65534); os.setuid(65534)
assert store.get("key") == b"x"
for call in (store.put, store.put_if_absent):
    try:
        call("new", b"y")
    except Exception as error:
        print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=_env())
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("StoreDenied")
        assert "make the folder writable or choose another store" in line


def test_a_killed_writer_leaves_no_object(tmp_path: Path) -> None:
    """Killed at many moments, a writer of large objects never leaves a key that is not whole."""
    code = f"""
from eo_batch.io.store import parse_store
store = parse_store({str(tmp_path / "store")!r})
print("ready", flush=True)
for number in range(10**6):
    store.put(f"key-{{number}}", bytes([number % 256]) * 30_000_000)
"""
    store = parse_store(str(tmp_path / "store"))
    leftovers = 0
    for attempt in range(60):
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=_env()) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            time.sleep(0.003 * attempt)
            writer.kill()
        for key in store.list():
            data = store.get(key)
            assert data == bytes([int(key.split("-")[1]) % 256]) * 30_000_000
            store.delete(key)
        leftovers += sum(1 for path in (tmp_path / "store").glob("*") if path.name not in set(store.list()))
        if leftovers >= 3 and attempt >= 4:
            break
    assert list(store.list()) == []
    assert leftovers > 0, "no kill fell into a write, so this showed nothing; make the objects larger"
