"""`python -m benchmarks [URL] [--json FILE]`: run every benchmark and print its figures."""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.store import measure
from eo_batch.io.store import parse_store


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("url", nargs="?", help="store to measure; a temporary folder if left out")
    parser.add_argument("--json", type=Path, help="file for the figures")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(parse_store(asked.url or folder).at("eo-batch-benchmark"))
    print(f"{'object':>10} {'threads':>8} {'put/s':>9} {'put MB/s':>9} {'get/s':>9} {'get MB/s':>9}")
    for figure in figures:
        size = f"{figure.object_bytes / 2**10:.0f} KiB"
        put, get = figure.puts_per_s, figure.gets_per_s
        megabytes = figure.object_bytes / 1e6
        print(f"{size:>10} {figure.threads:>8} {put:>9.1f} {put * megabytes:>9.1f} {get:>9.1f} {get * megabytes:>9.1f}")
    if asked.json:
        asked.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=2))


if __name__ == "__main__":
    main()
