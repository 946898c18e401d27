"""Gives fake-gcs-server the part of the XML API it lacks: `gcs_front.py PORT EMULATOR_PORT`.

obstore talks to GCS through its XML API. fake-gcs-server reads, lists and deletes by XML but uploads by JSON only, so
the front turns XML uploads (whole, conditional, multipart) into JSON ones and passes all else on unchanged. Whether a
conditional upload wins is decided by the emulator. It also words "no such bucket" as GCS does.
"""

from __future__ import annotations

import http.client
import itertools
import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

EMULATOR_PORT = int(sys.argv[2]) if len(sys.argv) > 2 else 0
_uploads: dict[str, dict[int, bytes]] = {}
_upload_ids = itertools.count(1)
_NO_BUCKET = b"<Error><Code>NoSuchBucket</Code><Message>The specified bucket does not exist.</Message></Error>"


class Front(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_PUT(self) -> None:
        bucket, key, query = self._target()
        body = self._body()
        if "uploadId" in query:
            part = int(query["partNumber"][0])
            _uploads[query["uploadId"][0]][part] = body
            return self._answer(200, b"", {"ETag": f'"part-{part}"'})
        self._store(bucket, key, body, self.headers.get("x-goog-if-generation-match"))

    def do_POST(self) -> None:
        bucket, key, query = self._target()
        if "uploads" in query:
            upload_id = f"upload-{next(_upload_ids)}"
            _uploads[upload_id] = {}
            names = f"<Bucket>{bucket}</Bucket><Key>{key}</Key><UploadId>{upload_id}</UploadId>"
            xml = f"<InitiateMultipartUploadResult>{names}</InitiateMultipartUploadResult>"
            return self._answer(200, xml.encode(), {})
        if "uploadId" in query:
            self._body()
            parts = _uploads.pop(query["uploadId"][0])
            whole = b"".join(parts[number] for number in sorted(parts))
            return self._store(bucket, key, whole, None, multipart=True)
        self._pass_on()

    def do_GET(self) -> None:
        self._pass_on()

    do_HEAD = do_DELETE = do_PATCH = do_GET

    def _store(self, bucket: str, key: str, body: bytes, generation: str | None, *, multipart: bool = False) -> None:
        """Upload by the JSON API's multipart/related form, the only one whose condition the emulator honours."""
        boundary = "eo-batch-front-boundary"
        lines = [f"--{boundary}", "Content-Type: application/json", "", json.dumps({"name": key})]
        lines += [f"--{boundary}", "Content-Type: application/octet-stream", "", ""]
        form = "\r\n".join(lines).encode() + body + f"\r\n--{boundary}--\r\n".encode()
        path = f"/upload/storage/v1/b/{bucket}/o?uploadType=multipart&name={quote(key, safe='')}"
        if generation is not None:
            path += f"&ifGenerationMatch={generation}"
        headers = {"Content-Type": f"multipart/related; boundary={boundary}"}
        status, data, _ = _ask("POST", path, form, headers)
        if status != 200:
            return self._answer(status, _NO_BUCKET if status == 404 else data, {})
        stored = json.loads(data)
        given = {"ETag": f'"{stored["etag"]}"', "x-goog-generation": stored["generation"]}
        done = f"<CompleteMultipartUploadResult><ETag>{given['ETag']}</ETag></CompleteMultipartUploadResult>"
        self._answer(200, done.encode() if multipart else b"", given)

    def _pass_on(self) -> None:
        headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
        status, data, given = _ask(self.command, self.path, self._body(), headers)
        if status == 500 and b"no bucket named" in data:
            status, data = 404, _NO_BUCKET
        keep = ("content-type", "content-range", "etag", "last-modified", "x-goog-generation", "accept-ranges")
        passed = {name: value for name, value in given.items() if name.lower() in keep}
        if self.command == "HEAD":
            passed["Content-Length"] = given.get("Content-Length", "0")
        self._answer(status, data, passed)

    def _target(self) -> tuple[str, str, dict[str, list[str]]]:
        parts = urlsplit(self.path)
        bucket, _, key = parts.path.lstrip("/").partition("/")
        return bucket, unquote(key), parse_qs(parts.query, keep_blank_values=True)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        if re.match(r"[45]", str(args[1]) if len(args) > 1 else ""):
            super().log_message(format, *args)


def _ask(method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", EMULATOR_PORT, timeout=30)
    try:
        connection.request(method, path, body or None, headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.headers.items())
    finally:
        connection.close()


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Front).serve_forever()
