"""Azurite: Microsoft's emulator of Azure Blob Storage, from the npm package `azurite`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.servers.shared import Home, Note, Unavailable, free_ports, listening

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The account and key that Azurite documents; they open nothing else."""


def start(home: Home, data: Path) -> Note:
    """Start the blob service, with its data in memory."""
    node, script = shutil.which("node"), _script()
    if node is None or script is None:
        raise Unavailable("Azurite is missing: install Node.js, then `make servers`")
    (port,) = free_ports(1)
    argv = [node, str(script), "--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence"]
    argv += ["--skipApiVersionCheck", "--silent", "--disableTelemetry"]
    home.wait("azurite", home.spawn("azurite", argv), lambda: listening(port))
    url = f"http://127.0.0.1:{port}/{ACCOUNT}"
    connection = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={url};"
    return Note(url, {"AZURE_STORAGE_CONNECTION_STRING": connection})


def _script() -> Path | None:
    """Azurite's entry point in the folder that `make servers` installs into, or in EO_BATCH_NODE_MODULES."""
    here = Path(__file__).parent / "node_modules"
    for folder in (Path(os.environ.get("EO_BATCH_NODE_MODULES", here)), here):
        script = folder / "azurite" / "dist" / "src" / "blob" / "main.js"
        if script.is_file():
            return script
    return None
