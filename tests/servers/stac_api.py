"""A real STAC API: stac-fastapi over pgstac, in a PostgreSQL of its own (Debian: postgresql, postgis)."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers.shared import Home, Note, Unavailable, free_ports

_DATABASE = "pgstac"


@dataclass(frozen=True)
class StacServer:
    """A running STAC API."""

    url: str
    """Root of the API; it answers `/search` in pages that `next` links join."""
    dsn: str
    """Its database."""

    def load(self, collection: Mapping[str, Any], items: Iterable[Mapping[str, Any]]) -> None:
        """Store a collection and its items, over earlier ones of the same ids."""
        from pypgstac.db import PgstacDB
        from pypgstac.load import Loader, Methods

        with PgstacDB(dsn=self.dsn) as database:
            loader = Loader(db=database)
            loader.load_collections(iter([dict(collection)]), Methods.upsert)
            loader.load_items(iter([{**item, "collection": collection["id"]} for item in items]), Methods.upsert)


def start(home: Home, data: Path) -> Note:
    """Start PostgreSQL, lay out pgstac in it, and start the API."""
    binaries = _postgres()
    for module in ("stac_fastapi.pgstac", "pypgstac", "uvicorn"):
        if _missing(module):
            raise Unavailable(f"the STAC API server is missing: pip install {module.replace('_', '-')}")
    as_user = _without_root()
    # PostgreSQL's user can't enter pytest's folders.
    folder = Path(tempfile.mkdtemp(prefix="eo-batch-pg-", dir="/tmp"))
    with (home.folder / "folders").open("a") as folders:
        folders.write(f"{folder}\n")
    if as_user:
        shutil.chown(folder, "postgres", "postgres")
    cluster = folder / "data"
    layout = ["-D", str(cluster), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
    _run(*as_user, str(binaries / "initdb"), *layout)
    port, api_port = free_ports(2)
    server = [*as_user, str(binaries / "postgres"), "-D", str(cluster), "-p", str(port), "-k", str(folder)]
    # Speed over safety: the database lives as long as the tests.
    server += ["-h", "127.0.0.1", "-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"]
    process = home.spawn("postgres", server)
    address = ["-h", "127.0.0.1", "-p", str(port), "-U", "postgres"]
    ready = [str(binaries / "pg_isready"), "-q", *address]
    home.wait("postgres", process, lambda: subprocess.run(ready, check=False).returncode == 0)
    _run(str(binaries / "createdb"), *address, _DATABASE)
    dsn = f"postgresql://postgres@127.0.0.1:{port}/{_DATABASE}"
    _run(sys.executable, "-m", "pypgstac.pypgstac", "migrate", "--dsn", dsn)
    env = {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(port),
        "PGUSER": "postgres",
        "PGPASSWORD": "none",
        "PGDATABASE": _DATABASE,
        "ENABLE_TRANSACTIONS_EXTENSIONS": "FALSE",
    }
    api = [sys.executable, "-m", "uvicorn", "stac_fastapi.pgstac.app:create_app", "--factory"]
    api += ["--host", "127.0.0.1", "--port", str(api_port), "--log-level", "warning"]
    url = f"http://127.0.0.1:{api_port}"
    home.wait("stac_api", home.spawn("stac_api", api, env), lambda: _answers(url))
    return Note(url, {"dsn": dsn})


def remove_folders(home: Home) -> None:
    """Delete what `start` wrote outside of the session's folder."""
    folders = home.folder / "folders"
    for line in folders.read_text().splitlines() if folders.exists() else ():
        shutil.rmtree(line, ignore_errors=True)


def _postgres() -> Path:
    """The folder of PostgreSQL's programs, with PostGIS beside it."""
    roots = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -float(path.parent.name))
    for binaries in roots:
        control = Path("/usr/share/postgresql") / binaries.parent.name / "extension" / "postgis.control"
        if (binaries / "postgres").exists() and control.exists():
            return binaries
    raise Unavailable("PostgreSQL with PostGIS is missing: apt-get install postgresql postgis postgresql-15-postgis-3")


def _without_root() -> list[str]:
    """What to put before a command so that it does not run as root, which PostgreSQL refuses."""
    if os.geteuid() != 0:
        return []
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        raise Unavailable("PostgreSQL refuses to run as root and there is no user `postgres`") from None
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]


def _missing(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is None
    except ModuleNotFoundError:
        return True


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd="/tmp")
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)} failed:\n{done.stdout[-1000:]}{done.stderr[-2000:]}")


def _answers(url: str) -> bool:
    with urllib.request.urlopen(f"{url}/collections", timeout=5) as answer:
        return bool(answer.status == 200)
