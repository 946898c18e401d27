"""What gives out tokens that expire: Planetary Computer's protocol for Azure blobs, NASA Earthdata's for S3.

The tokens for Azure are signed as Azure documents it, and Azurite checks them. No S3 server here knows keys that
expire, so `S3Gate` stands in front of one: it checks signature, session token and expiry, then signs anew.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, urlencode

Ask = Callable[[str, dict[str, str]], tuple[int, dict[str, str]]]
"""Path and headers of a request to status and JSON of its answer."""


@contextmanager
def answering(ask: Ask) -> Iterator[str]:
    """A server that answers as `ask` says; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, answer = ask(self.path, {name.lower(): value for name, value in self.headers.items()})
            body = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class SasGiver:
    """Answers `/<account>/<container>` as Planetary Computer does."""

    def __init__(self, account: str, key: str, life_s: float) -> None:
        self._account, self.key, self.life_s = account, key, life_s
        self.claimed_s: float | None = None
        """Life that the answer claims, if it is another."""
        self.status = 200
        self.given: list[str] = []
        """Every token."""
        self.asked: list[str] = []

    def __call__(self, path: str, headers: dict[str, str]) -> tuple[int, dict[str, str]]:
        self.asked.append(path)
        if self.status != 200:
            return self.status, {"detail": "no"}
        account, container = path.strip("/").split("/")
        assert account == self._account
        now = datetime.now(UTC)
        end = (now + timedelta(seconds=self.life_s)).replace(microsecond=0)  # Azure counts whole seconds
        token = self.sign(container, end)
        self.given.append(token)
        claimed = end if self.claimed_s is None else now + timedelta(seconds=self.claimed_s)
        return 200, {"msft:expiry": claimed.isoformat(timespec="milliseconds"), "token": token}

    def sign(self, container: str, end: datetime) -> str:
        """A token to read a container (service SAS, version 2021-08-06; Azure's "Create a service SAS")."""
        expiry, version = end.strftime("%Y-%m-%dT%H:%M:%SZ"), "2021-08-06"
        resource = f"/blob/{self._account}/{container}"
        fields = ["r", "", expiry, resource, "", "", "", version, "c", *[""] * 7]
        made = hmac.new(base64.b64decode(self.key), "\n".join(fields).encode(), hashlib.sha256).digest()
        return urlencode({"sp": "r", "se": expiry, "sv": version, "sr": "c", "sig": base64.b64encode(made).decode()})


class EarthdataGiver:
    """Answers `/s3credentials` as NASA's archives do, to whoever brings the right token."""

    def __init__(self, bearer: str, life_s: float) -> None:
        self._bearer, self.life_s = bearer, life_s
        self.claimed_s: float | None = None
        """Life that the answer claims, if it is another."""
        self.given: dict[str, tuple[str, str, datetime]] = {}
        """Access key to secret, session token and end."""

    def __call__(self, path: str, headers: dict[str, str]) -> tuple[int, dict[str, str]]:
        if headers.get("authorization") != f"Bearer {self._bearer}":
            return 401, {"error": "no such token"}
        now = datetime.now(UTC)
        end = now + timedelta(seconds=self.life_s)
        key, secret, token = f"ASIA{secrets.token_hex(8).upper()}", secrets.token_hex(20), secrets.token_hex(30)
        self.given[key] = (secret, token, end)
        claimed = end if self.claimed_s is None else now + timedelta(seconds=self.claimed_s)
        expiration = claimed.isoformat(timespec="milliseconds")
        return 200, {"accessKeyId": key, "secretAccessKey": secret, "sessionToken": token, "expiration": expiration}


class S3Gate:
    """Lets requests through that are signed with keys that were given out and live, and signs them for the server."""

    def __init__(self, giver: EarthdataGiver, access_key: str, secret_key: str) -> None:
        self._giver, self._own = giver, (access_key, secret_key)
        self.refused: list[str] = []

    def check(self, method: str, path: str, headers: dict[str, str]) -> dict[str, str] | None:
        """Headers of the request as the server takes it; None if it is refused. Names of headers are lower case."""
        why = self._wrong(method, path, headers)
        if why:
            self.refused.append(why)
            return None
        kept = {name: value for name, value in headers.items() if name in ("host", "range", "user-agent")}
        request = _request(method, path, kept)
        _auth(*self._own).add_auth(request)
        return {name: str(value) for name, value in request.headers.items()}

    def _wrong(self, method: str, path: str, headers: dict[str, str]) -> str:
        given = dict(
            part.strip().split("=", 1) for part in headers.get("authorization", "").split(" ", 1)[-1].split(",")
        )
        key = given.get("Credential", "").split("/")[0]
        if key not in self._giver.given:
            return "unknown key"
        secret, token, end = self._giver.given[key]
        if headers.get("x-amz-security-token") != token:
            return "wrong token"
        if datetime.now(UTC) >= end:
            return "expired"
        request = _request(method, path, {name: headers[name] for name in given["SignedHeaders"].split(";")})
        request.context["timestamp"] = headers["x-amz-date"]
        auth = _auth(key, secret)
        wanted = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
        return "" if hmac.compare_digest(wanted, given["Signature"]) else "wrong signature"


def _request(method: str, path: str, headers: dict[str, str]) -> Any:
    from botocore.awsrequest import AWSRequest

    return AWSRequest(method=method, url=f"http://{headers['host']}{quote(path, safe='/%')}", headers=headers)


def _auth(access_key: str, secret_key: str) -> Any:
    from botocore.auth import S3SigV4Auth
    from botocore.credentials import Credentials

    return S3SigV4Auth(Credentials(access_key, secret_key), "s3", "us-east-1")
