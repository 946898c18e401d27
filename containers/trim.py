"""Drops from an installed tree what only compilers and tests of other projects read, and compiles the rest.

`python3 trim.py /opt/venv`, with the Python that will import them. Byte code that is never checked against its source
needs no writable disk, and stays valid on file systems that lose times.
"""

from __future__ import annotations

import re
import shutil
import sys
from compileall import compile_file
from concurrent.futures import ProcessPoolExecutor
from importlib.util import cache_from_source
from pathlib import Path
from py_compile import PycInvalidationMode

UNREAD = (
    "box/*.c",
    "kubernetes/aio",
    "networkx/**/tests",
    "pandas/tests",
    "pyarrow/*flight*",
    "pyarrow/include",
    "pyarrow/tests",
    "pyogrio",
    "pyogrio.libs",
    "scipy/**/tests",
    "sklearn/**/tests",
    "sympy/**/tests",
    "torch/bin/*Test",
    "torch/bin/protoc*",
    "torch/bin/test_*",
    "torch/include",
)
"""Patterns below site-packages: tests, headers, C sources, and what nothing here imports: a client of Kubernetes for
asyncio (Prefect and Dask bring their own), Arrow's RPC, and vector formats, for which pyogrio has a GDAL of its own
(geopandas imports it when a file is read; items and tables are Parquet). Other tests are small, or imported by their
package itself (numpy, xarray)."""

NOT_FOR_THIS_PYTHON = re.compile(r"/torch/testing/_internal/py3\d+_")
"""Modules with syntax of one Python, which torch imports on that one only."""


def trim(prefix: Path) -> int:
    """Delete what UNREAD names in every site-packages below `prefix`; returns the bytes of what went."""
    gone_bytes = 0
    for packages in sorted(prefix.glob("lib/python3*/site-packages")):
        for path in [match for pattern in UNREAD for match in packages.glob(pattern)]:
            files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
            gone_bytes += sum(file.lstat().st_size for file in files)
            if path.is_file():
                path.unlink()
            else:
                shutil.rmtree(path)
    return gone_bytes


def compile_missing(prefix: Path) -> list[Path]:
    """Compile every module below `prefix` that has no byte code yet; returns those that could not be.

    What an earlier layer compiled is left alone: written again, it would be in the image twice.
    """
    sources = [
        source
        for source in sorted(prefix.rglob("*.py"))
        if not NOT_FOR_THIS_PYTHON.search(source.as_posix()) and not Path(cache_from_source(str(source))).exists()
    ]
    with ProcessPoolExecutor() as pool:
        done = pool.map(_compile, sources, chunksize=64)
        return [source for source, good in zip(sources, done, strict=True) if not good]


def _compile(source: Path) -> bool:
    return bool(compile_file(source, quiet=1, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH))


if __name__ == "__main__":
    root = Path(sys.argv[1])
    print(f"{trim(root) / 1e6:.0f} MB dropped from {root}")
    sys.exit(", ".join(map(str, compile_missing(root))) or None)
