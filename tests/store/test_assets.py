"""`open_asset` finds the client and the key for whatever a catalogue names."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import obstore
import pytest

from eo_batch.core.errors import StoreMissing, UsageError
from eo_batch.io.store import open_asset, parse_store
from eo_batch.settings import Settings

SETTINGS = Settings(assets=replace(Settings().assets, retries=0))


def _read(href: str, settings: Settings = SETTINGS) -> bytes:
    client, key = open_asset(href, settings)
    return bytes(obstore.get(client, key).bytes())


class _Answer(http.server.BaseHTTPRequestHandler):
    """Answers with the path and query that it was asked for, and with the range where one is wanted."""

    def do_GET(self) -> None:
        body = self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize(
    ("asked", "requested"),
    [
        ("/a/b.tif", "/a/b.tif"),
        ("/a%20b/c.tif", "/a%20b/c.tif"),
        ("/a/b.tif?se=2024-01-01T00%3A00%3A00Z&sig=a%2Bb%3D", "/a/b.tif?se=2024-01-01T00%3A00%3A00Z&sig=a%2Bb%3D"),
        ("/tiles/33/T/WN/B04.tif", "/tiles/33/T/WN/B04.tif"),
    ],
)
def test_web_addresses_reach_the_server_as_they_were(web: str, asked: str, requested: str) -> None:
    assert _read(web + asked).decode() == requested


def test_one_origin_is_one_client_and_one_token_is_another(web: str) -> None:
    first, second = open_asset(f"{web}/a", SETTINGS)[0], open_asset(f"{web}/b", SETTINGS)[0]
    signed = open_asset(f"{web}/a?sig=1", SETTINGS)[0]
    assert first is second
    assert signed is not first


def test_files_by_path_and_by_url(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "B04 10m.tif").write_bytes(b"pixels")
    assert _read(str(folder / "B04 10m.tif")) == b"pixels"
    assert _read((folder / "B04 10m.tif").as_uri()) == b"pixels"
    with pytest.raises(StoreMissing, match="gone"):
        open_asset(str(tmp_path / "gone" / "x.tif"), SETTINGS)
    with pytest.raises(FileNotFoundError):
        _read(str(folder / "missing.tif"))


def test_an_object_of_a_bucket(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EO_BATCH_ASSETS_ANONYMOUS", "0")
    parse_store(s3_url).put("tiles/B04.tif", b"pixels")
    assert _read(f"{s3_url}/tiles/B04.tif", Settings.from_env()) == b"pixels"


def test_assets_are_read_unsigned_unless_asked(s3_url: str) -> None:
    parse_store(s3_url).put("tiles/B04.tif", b"pixels")
    with pytest.raises((PermissionError, obstore.exceptions.BaseError)):
        _read(f"{s3_url}/tiles/B04.tif", Settings.from_env())


def test_other_schemes_are_refused() -> None:
    with pytest.raises(UsageError, match="ftp:// can't be read"):
        open_asset("ftp://host/a.tif", SETTINGS)
