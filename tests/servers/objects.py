"""What tests get from an object server: its environment, and fresh buckets."""

from __future__ import annotations

import base64
import email.utils
import hashlib
import hmac
import json
import urllib.request
import uuid
from dataclasses import dataclass
from typing import Literal

from tests.servers.shared import Note


@dataclass(frozen=True)
class ObjectServer:
    """A running object server."""

    scheme: Literal["s3", "gs", "az"]
    url: str
    """Endpoint."""
    env: dict[str, str]
    """Environment with which eo-batch reaches it."""

    @classmethod
    def of(cls, scheme: Literal["s3", "gs", "az"], note: Note) -> ObjectServer:
        return cls(scheme, note.url, note.env)

    def new_bucket(self) -> str:
        """Create an empty bucket and return its URL, as in `s3://test-1a2b3c`."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        match self.scheme:
            case "s3":
                region = self.env["AWS_REGION"]
                elsewhere = {"CreateBucketConfiguration": {"LocationConstraint": region}}
                self.boto().create_bucket(Bucket=name, **({} if region == "us-east-1" else elsewhere))
            case "gs":
                body = json.dumps({"name": name}).encode()
                headers = {"content-type": "application/json"}
                _send(urllib.request.Request(f"{self.url}/storage/v1/b", body, headers, method="POST"))
            case "az":
                _send(self._azure_create(name))
        return f"{self.scheme}://{name}"

    def empty(self, url: str) -> None:
        """Delete all objects of an S3 bucket."""
        client, name = self.boto(), url.removeprefix("s3://")
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=name):
            for found in page.get("Contents", ()):
                client.delete_object(Bucket=name, Key=found["Key"])

    def boto(self, config=None):  # type: ignore[no-untyped-def]  # boto3 has no types
        """A boto3 client of this server."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=self.env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.env["AWS_SECRET_ACCESS_KEY"],
            region_name=self.env["AWS_REGION"],
            config=config,
        )

    def _azure_create(self, container: str) -> urllib.request.Request:
        """The signed request that creates a container (Azure's "Shared Key" scheme, version 2015-02-21 and later)."""
        text = self.env["AZURE_STORAGE_CONNECTION_STRING"]
        parts = dict(part.split("=", 1) for part in text.split(";") if part)
        account, now, version = parts["AccountName"], email.utils.formatdate(usegmt=True), "2021-08-06"
        canonical = [f"x-ms-date:{now}", f"x-ms-version:{version}", f"/{account}/{account}/{container}"]
        to_sign = "\n".join(["PUT", *[""] * 11, *canonical, "restype:container"]).encode()
        digest = hmac.new(base64.b64decode(parts["AccountKey"]), to_sign, hashlib.sha256).digest()
        return urllib.request.Request(
            f"{self.url}/{container}?restype=container",
            method="PUT",
            headers={
                "x-ms-date": now,
                "x-ms-version": version,
                "Authorization": f"SharedKey {account}:{base64.b64encode(digest).decode()}",
                "Content-Length": "0",
            },
        )


def _send(request: urllib.request.Request) -> None:
    with urllib.request.urlopen(request, timeout=10) as answer:
        answer.read()
