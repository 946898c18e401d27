"""Importing does nothing: no heavy packages in core and pixels, no environment, no connections."""

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {
    "torch",
    "zarr",
    "dask",
    "prefect",
    "kubernetes",
    "rasterio",
    "obstore",
    "boto3",
    "xarray",
    "pyarrow",
    "pandas",
}


def modules(package: str) -> list[str]:
    folder = ROOT.joinpath(*package.split("."))
    return [package, *(found.name for found in pkgutil.walk_packages([str(folder)], f"{package}."))]


def python(code: str, *argv: str) -> list[str]:
    """What `code` prints as JSON in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(found, list)
    return found


_LOADED = """
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""

_SPIED = """
import importlib, json, os, socket, sys

seen = []

def ours():
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.startswith("eo_batch"):
            return name
        if name not in ("os", "collections.abc"):  # through which the environment is read
            return None
        frame = frame.f_back

def spied(label, call):
    def wrapper(*args, **kwargs):
        who = ours()
        if who:
            seen.append(f"{who} {label} {args[1] if len(args) > 1 else ''}")
        return call(*args, **kwargs)
    return wrapper

environ = type(os.environ)
environ.__getitem__ = spied("reads the environment:", environ.__getitem__)
environ.__iter__ = spied("reads the environment", environ.__iter__)

def connect(self, address):
    seen.append(f"connects to {address}")

socket.socket.connect = connect
if sys.argv[1] == "--prove":
    exec("import os; os.environ.get('HOME'); os.getenv('PATH'); dict(os.environ)", {"__name__": "eo_batch.planted"})
else:
    for name in sys.argv[1:]:
        importlib.import_module(name)
print(json.dumps(seen))
"""


@pytest.mark.parametrize("package", ["eo_batch.core", "eo_batch.pixels"])
def test_core_and_pixels_stay_light(package: str) -> None:
    loaded = python(_LOADED, *modules(package))
    assert {"numpy", "shapely"} <= set(loaded)
    assert HEAVY.isdisjoint(loaded)


def test_the_face_of_core_alone_is_lighter_still() -> None:
    assert (HEAVY | {"numpy", "shapely", "pydantic"}).isdisjoint(python(_LOADED, "eo_batch.core"))


def test_no_module_reads_the_environment_or_connects_while_it_is_imported() -> None:
    assert python(_SPIED, *modules("eo_batch")) == []


def test_the_spy_sees_what_it_looks_for() -> None:
    seen = python(_SPIED, "--prove")
    assert [line.partition(" ")[2] for line in seen[:2]] == [
        "reads the environment: HOME",
        "reads the environment: PATH",
    ]
    assert len(seen) > 2
