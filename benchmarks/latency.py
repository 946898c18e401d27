"""`python -m benchmarks.latency`: the median cube of `cube.py` by eo-batch, its store 50 ms away and none.

A proxy between eo-batch and the S3 server keeps back all that eo-batch sends for that time; it is there without latency
as well, so that only the latency differs. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from urllib.parse import urlsplit

from benchmarks import cube, scenes

LATENCY_MS = 50
_PIECE = 2**18
"""Bytes that are passed on at a time."""


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    """Pass on all that comes, each piece `delay_s` after it came."""
    clock = asyncio.get_running_loop().time
    pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)

    async def receive() -> None:
        data = b"-"
        while data:
            data = await reader.read(_PIECE)
            await pieces.put((clock() + delay_s, data))

    receiving = asyncio.ensure_future(receive())
    try:
        while True:
            due, data = await pieces.get()
            await asyncio.sleep(due - clock())
            if not data:
                return
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass  # one side has gone: the other notices as well
    finally:
        receiving.cancel()
        writer.close()


async def _serve(target: str, delay_s: float) -> None:
    address = urlsplit(target)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(address.hostname, address.port)
        await asyncio.gather(_relay(reader, there_writer, delay_s), _relay(there_reader, writer, 0.0))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def proxy(target: str, latency_ms: int) -> Iterator[str]:
    """Address of a proxy in front of `target`, in a process of its own."""
    argv = [sys.executable, "-m", "benchmarks.latency", "--proxy", target, str(latency_ms)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.latency", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each")
    parser.add_argument("--proxy", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.proxy:
        asyncio.run(_serve(asked.proxy[0], int(asked.proxy[1]) / 1000))
        return
    from eo_batch.io.store import parse_store

    with cube.server() as s3:
        source = s3.new_bucket()
        store = parse_store(source)
        store.put("items.json", scenes.catalog(scenes.write(store, source)))
        walls: dict[int, list[float]] = {0: [], LATENCY_MS: []}
        for _ in range(asked.repeats):
            for latency_ms, found in walls.items():
                target = s3.new_bucket()
                with proxy(s3.url, latency_ms) as url:
                    os.environ["AWS_ENDPOINT_URL"] = url
                    figures = cube.measured("eo-batch", {}, source, target)
                os.environ["AWS_ENDPOINT_URL"] = s3.url
                found.append(figures["wall_s"])
                print(latency_ms, "ms", {key: round(value, 2) for key, value in figures.items()}, file=sys.stderr)
                s3.empty(target)
    near, far = (median(found) for found in walls.values())
    print(
        json.dumps({"wall_s": round(near, 2), f"wall_{LATENCY_MS}ms_s": round(far, 2), "ratio": round(far / near, 2)})
    )


if __name__ == "__main__":
    main()
