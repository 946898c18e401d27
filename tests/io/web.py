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
        self.met: Counter[str] = Counter()
        """Of these, requests that met a fault."""
        self.answers: Counter[int] = Counter()
        """Answers by status."""
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
        self.met.clear()
        self.answers.clear()
        self.queries.clear()

    def wrong_answer(self, path: str) -> Answer | None:
        """Counts a request; the fault that it meets."""
        parts = urlsplit(path)
        with self._lock:
            self.asked[unquote(parts.path)] += 1
            self.queries.append(parts.query)
            hits = [fault.answer for fault in self._faults if re.search(fault.pattern, parts.path) and fault.due()]
            self.met[unquote(parts.path)] += bool(hits)
        return hits[0] if hits else None


_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    web: Web
    folder: Path | None = None
    upstream = ""
    change: Callable[[bytes], bytes]
    """What a fault makes of the right body."""
    headers_instead: dict[str, str]
    send_body: Callable[[bytes], None]

    def do_GET(self) -> None:
        self.change, self.headers_instead, self.send_body = bytes, {}, self.wfile.write
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
        self.web.answers[status] += 1
        body = self.change(body)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {}), **self.headers_instead}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.send_body(body)

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
        with suppress(BrokenPipeError, ConnectionResetError), _closing(connection):
            # The host stays the one that was asked for, so that the server's links lead through here again, and
            # signatures, which cover it, stay right.
            headers = {name: value for name, value in self.headers.items() if name.lower() != "accept-encoding"}
            connection.request(self.command, self.path, self.body_of_request() or None, headers)
            answer = connection.getresponse()
            passed = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
            if self.command == "HEAD" and "Content-Length" in answer.headers:
                passed["Content-Length"] = answer.headers["Content-Length"]
            self.reply(answer.status, answer.read(), passed)

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


def status(code: int, body: bytes = b"no", headers: dict[str, str] | None = None) -> Answer:
    """An error status."""

    def answer(handler: _Handler) -> bool:
        handler.body_of_request()
        handler.reply(code, body, {"Connection": "close", **(headers or {})})
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


def changed(change: Callable[[bytes], bytes], headers: dict[str, str] | None = None) -> Answer:
    """The right answer with another body, whose length is announced as it is, and with other headers."""

    def answer(handler: _Handler) -> bool:
        handler.change, handler.headers_instead = change, headers or {}
        return False

    return answer


def reset_in_body(handler: _Handler) -> bool:
    """The right answer, of which half comes before the connection is reset."""

    def send(body: bytes) -> None:
        handler.wfile.write(body[: len(body) // 2])
        handler.wfile.flush()
        reset(handler)

    handler.send_body = send
    return False


def trickle(pause_s: float) -> Answer:
    """The right answer, a byte at a time: slow loris."""

    def answer(handler: _Handler) -> bool:
        def send(body: bytes) -> None:
            with suppress(OSError):
                for byte in body:
                    handler.wfile.write(bytes([byte]))
                    handler.wfile.flush()
                    time.sleep(pause_s)
            handler.close_connection = True

        handler.send_body = send
        return False

    return answer
