"""A web server with ranges and fault switches, on a folder or in front of another server.

web.fault("B04.tif", status(500), times=2)     the next two requests for it are answered with 500
web.fault("/search", status(503), after=1)     from the second request on
"""

from __future__ import annotations

import http.client
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

Answer = Callable[["_Handler"], bool]
"""Answers a request wrongly; False lets the right answer follow."""


@dataclass
class _Fault:
    pattern: str
    answer: Answer
    after: int
    times: int | None

    def due(self) -> bool:
        """Whether this request is hit."""
        if self.after:
            self.after -= 1
            return False
        if self.times is None:
            return True
        self.times -= 1
        return self.times >= 0


class Web:
    """A running server."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.asked: Counter[str] = Counter()
        """Requests by path, those that were answered wrongly included."""
        self.queries: list[str] = []
        """Queries of the requests, in order."""
        self._faults: list[_Fault] = []
        self._lock = threading.Lock()

    def fault(self, pattern: str, answer: Answer, *, after: int = 0, times: int | None = None) -> None:
        """Answer requests whose path matches `pattern` with `answer`: after the first `after`, for `times` requests."""
        self._faults.append(_Fault(pattern, answer, after, times))

    def mend(self) -> None:
        """Take all faults back and forget what was asked."""
        self._faults.clear()
        self.asked.clear()
        self.queries.clear()

    def wrong_answer(self, path: str) -> Answer | None:
        """Counts a request; the fault that it meets."""
        parts = urlsplit(path)
        with self._lock:
            self.asked[unquote(parts.path)] += 1
            self.queries.append(parts.query)
            hits = [fault.answer for fault in self._faults if re.search(fault.pattern, parts.path) and fault.due()]
        return hits[0] if hits else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    web: Web
    folder: Path | None = None
    upstream = ""

    def do_GET(self) -> None:
        wrong = self.web.wrong_answer(self.path)
        if wrong is not None and wrong(self):
            self.close_connection = True
            return
        if self.folder is None:
            self._pass_on()
        else:
            self._from_folder(self.folder)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.do_GET()

    def body_of_request(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _from_folder(self, folder: Path) -> None:
        path = folder / unquote(urlsplit(self.path).path).lstrip("/")
        if not path.is_file():
            return self.reply(404, b"not here")
        data = path.read_bytes()
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not wanted:
            return self.reply(200, data)
        start, end = int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)
        if start > end:
            return self.reply(416, b"", {"Content-Range": f"bytes */{len(data)}"})
        self.reply(206, data[start : end + 1], {"Content-Range": f"bytes {start}-{end}/{len(data)}"})

    def _pass_on(self) -> None:
        parts = urlsplit(self.upstream)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        with suppress(BrokenPipeError), _closing(connection):
            # The host stays the one that was asked for, so that the server's links lead through here again.
            headers = {name: value for name, value in self.headers.items() if name.lower() != "accept-encoding"}
            connection.request(self.command, self.path, self.body_of_request() or None, headers)
            answer = connection.getresponse()
            kind = answer.headers.get("Content-Type", "application/json")
            self.reply(answer.status, answer.read(), {"Content-Type": kind})

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def _closing(connection: http.client.HTTPConnection) -> Iterator[None]:
    try:
        yield
    finally:
        connection.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # clients that hang up are part of the tests


@contextmanager
def serving(folder: Path | None = None, upstream: str = "") -> Iterator[Web]:
    """Serve a folder, or stand in front of another server."""
    handler = type("Handler", (_Handler,), {"folder": folder, "upstream": upstream})
    server = _Server(("127.0.0.1", 0), handler)
    web = handler.web = Web(server.server_port)  # type: ignore[attr-defined]  # a class made here
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()


def status(code: int, body: bytes = b"no") -> Answer:
    """An error status."""

    def answer(handler: _Handler) -> bool:
        handler.body_of_request()
        handler.reply(code, body, {"Connection": "close"})
        return True

    return answer


def page(body: bytes, kind: str = "text/html") -> Answer:
    """Status 200 with another body, whatever range was asked for."""

    def answer(handler: _Handler) -> bool:
        handler.body_of_request()
        handler.reply(200, body, {"Content-Type": kind, "Connection": "close"})
        return True

    return answer


def cut_body(handler: _Handler) -> bool:
    """Announce more bytes than are sent, then hang up."""
    handler.send_response(206 if "Range" in handler.headers else 200)
    handler.send_header("Content-Length", "5000")
    if "Range" in handler.headers:
        start = int(handler.headers["Range"][6:].split("-")[0])
        handler.send_header("Content-Range", f"bytes {start}-{start + 4999}/100000")
    handler.end_headers()
    handler.wfile.write(b"x" * 100)
    return True


def reset(handler: _Handler) -> bool:
    """Reset the connection."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    return True


def slow(delay_s: float) -> Answer:
    """The right answer, late."""

    def answer(handler: _Handler) -> bool:
        time.sleep(delay_s)
        return False

    return answer
