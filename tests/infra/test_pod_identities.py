"""A `Store` in a pod finds the identity that each cloud hands out, with nothing but the variables that the cloud sets.

The clouds' ends are played by a server on the loopback that speaks the documented protocols; eo-batch's end is real.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from eo_batch.core.errors import EoBatchError
from eo_batch.io.store import EXPIRES_TAG, parse_store
from eo_batch.settings import Settings


@dataclass
class Cloud:
    """What was asked of the server, in order."""

    url: str = ""
    seen: list[tuple[str, str, dict[str, str], str]] = field(default_factory=list)
    """Method, path with query, headers in small letters, body."""

    def answer(self, path: str) -> tuple[int, str]:
        """Credentials for whoever asks for them, and yes to all else."""
        if "/oauth2/v2.0/token" in path:
            return 200, json.dumps({"access_token": "entra-token", "expires_in": 3600, "token_type": "Bearer"})
        if path.startswith("/v1/credentials"):
            keys = {"AccessKeyId": "AKIDPOD", "SecretAccessKey": "s", "Token": "session-token"}
            return 200, json.dumps({**keys, "Expiration": "2999-01-01T00:00:00Z"})
        if path.startswith("/computeMetadata/"):
            return 200, json.dumps({"access_token": "metadata-token", "expires_in": 3600, "token_type": "Bearer"})
        return 201, ""


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    record = Cloud()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
            record.seen.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            status, text = record.answer(self.path)
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("metadata-flavor", "Google")
            self.send_header("etag", '"0"')
            self.send_header("last-modified", "Mon, 01 Jan 2024 00:00:00 GMT")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_PUT = do_POST = _serve  # noqa: N815 (what http.server calls)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    record.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield record
    server.shutdown()
    thread.join()
    server.server_close()


def test_azure_workload_identity(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The webhook's four variables, and the account's name from the chart's values: no key, no SAS."""
    (tmp_path / "token").write_text("service-account-token")
    monkeypatch.setenv("AZURE_CLIENT_ID", "client")
    monkeypatch.setenv("AZURE_TENANT_ID", "tenant")
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", cloud.url)
    endpoint = f"AccountName=account;BlobEndpoint={cloud.url}"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", endpoint)

    parse_store("az://runs/r", Settings.from_env()).put("checkpoints/x.ckpt", b"data", expires=True)

    asked, written = cloud.seen
    assert asked[:2] == ("POST", "/tenant/oauth2/v2.0/token")
    form = parse_qs(asked[3])
    assert form["client_assertion"] == ["service-account-token"]
    assert form["client_id"] == ["client"]
    assert written[0] == "PUT"
    assert written[2]["authorization"] == "Bearer entra-token"
    # Needs blobs/tags/write, which infra/azure's own role has and Storage Blob Data Contributor lacks.
    assert written[2]["x-ms-tags"] == "=".join(EXPIRES_TAG)


def test_eks_pod_identity(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The agent's two variables: no role in an annotation, no token exchange of our own."""
    (tmp_path / "token").write_text("service-account-token")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{cloud.url}/v1/credentials")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", cloud.url)
    monkeypatch.setenv("AWS_REGION", "us-west-2")

    parse_store("s3://bucket/r", Settings.from_env()).put("checkpoints/x.ckpt", b"data", expires=True)

    asked, *_, written = cloud.seen
    assert asked[:2] == ("GET", "/v1/credentials")
    assert asked[2]["authorization"] == "service-account-token"
    assert written[0] == "PUT"
    assert "Credential=AKIDPOD/" in written[2]["authorization"]
    assert written[2]["x-amz-security-token"] == "session-token"
    # Needs s3:PutObjectTagging.
    assert written[2]["x-amz-tagging"] == "=".join(EXPIRES_TAG)


def test_gke_metadata_server(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable at all: the metadata server, whose address Google's clients let tests change."""
    monkeypatch.setenv("GCE_METADATA_HOST", cloud.url.removeprefix("http://"))
    monkeypatch.setenv("HOME", str(tmp_path))
    # The token goes to Google's own address, which is out of reach here: a proxy that is not there says so at once.
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    store = parse_store("gs://bucket/r", Settings.from_env({"EO_BATCH_RETRIES": "0"}))

    with pytest.raises(EoBatchError):
        store.put("checkpoints/x.ckpt", b"data", expires=True)

    asked = cloud.seen[0]
    assert asked[0] == "GET"
    assert asked[1].startswith("/computeMetadata/v1/instance/service-accounts/default/token")
    assert asked[2]["metadata-flavor"] == "Google"
