"""`python -m benchmarks.codecs`: how chips are compressed and written, by numbers: size, and GB/s of one core.

One shard of 256 chips of 256 x 256 pixels of 4 bands, as uint16 of a smooth landscape with sensor noise (the scenes of
`cube.py`), to a folder and back. GB are those of the pixels, seconds are CPU seconds of the process with its threads,
the best of three. Prints a table in Markdown. Needs `zarrs` and `tensorstore` beside the packages of the tests.
"""

from __future__ import annotations

import resource
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, ZstdCodec

from benchmarks import scenes
from eo_batch.io.shards import inner_codec, shard_bytes

SIDE, PX = 16, 256
_PYTHON = "zarr.core.codec_pipeline.BatchedCodecPipeline"
_RUST = "zarrs.ZarrsCodecPipeline"
CODECS: dict[str, Any] = {
    "blosc zstd-1 bitshuffle": BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle"),
    "blosc zstd-1 shuffle": BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"),
    "blosc zstd-3 bitshuffle": BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"),
    "blosc zstd-3 shuffle": BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),
    "blosc zstd-5 bitshuffle": BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle"),
    "blosc lz4-5 bitshuffle": BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"),
    "zstd-1": ZstdCodec(level=1),
    "zstd-3": ZstdCodec(level=3),
}
Io = tuple[Callable[[], Any], Callable[[], Any]]


def chips() -> Any:
    """(chip, b, y, x)."""
    rng = np.random.default_rng(0)
    image = np.stack([scenes._ground(rng, (SIDE * PX, SIDE * PX)) for _ in range(4)])
    return image.reshape(4, SIDE, PX, SIDE, PX).transpose(1, 3, 0, 2, 4).reshape(-1, 4, PX, PX).copy()


def by_zarr(pipeline: str, codec: Any, pixels: Any, folder: Path) -> Io:
    zarr.config.set({"codec_pipeline.path": pipeline})
    array = _array(pixels, folder, codec)
    return lambda: array.__setitem__(..., pixels), lambda: array[...]


def by_tensorstore(codec: Any, pixels: Any, folder: Path) -> Io:
    import tensorstore

    _array(pixels, folder, codec)
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(folder)}}
    array = tensorstore.open(spec).result()
    return lambda: array.write(pixels).result(), lambda: array.read().result()


def by_us(codec: Any, pixels: Any, folder: Path) -> Io:
    """eo-batch's own writer; zarr-python reads."""
    zarr.config.set({"codec_pipeline.path": _PYTHON})
    array = _array(pixels, folder, codec)
    key = folder / "c/0/0/0/0"
    key.parent.mkdir(parents=True)
    return lambda: key.write_bytes(shard_bytes(list(pixels), 0) or b""), lambda: array[...]


def _array(pixels: Any, folder: Path, codec: Any) -> Any:
    shape = pixels.shape
    return zarr.create_array(
        folder, shape=shape, chunks=(1, *shape[1:]), shards=shape, dtype=pixels.dtype, fill_value=0, compressors=codec
    )


def _cpu_s(job: Callable[[], Any]) -> float:
    before = resource.getrusage(resource.RUSAGE_SELF)
    job()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    pixels = chips()
    gb = pixels.nbytes / 1e9
    print("| writer | codec | share of the size | encode GB/s | decode GB/s |\n|---|---|---|---|---|")
    ways: list[tuple[str, str, Callable[[Path], Io]]] = [
        ("eo-batch", "blosc zstd-1 shuffle", lambda folder: by_us(inner_codec(), pixels, folder))
    ]
    for name, codec in CODECS.items():
        ways += [
            ("zarr-python", name, lambda folder, codec=codec: by_zarr(_PYTHON, codec, pixels, folder)),
            ("zarrs", name, lambda folder, codec=codec: by_zarr(_RUST, codec, pixels, folder)),
            ("tensorstore", name, lambda folder, codec=codec: by_tensorstore(codec, pixels, folder)),
        ]
    for writer, name, way in ways:
        taken = []
        for _ in range(3):
            folder = Path(tempfile.mkdtemp(prefix="eo-batch-codec-"))
            try:
                write, read = way(folder / "a.zarr")
                spent = _cpu_s(write)
                size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
                taken.append((spent, _cpu_s(read), size))
                assert np.array_equal(read(), pixels)
            except ImportError as error:
                print(f"{writer} is skipped: {error}")
                break
            finally:
                shutil.rmtree(folder)
        if taken:
            encode, decode, size = (min(each[i] for each in taken) for i in range(3))
            share = size / pixels.nbytes
            print(f"| {writer} | {name} | {share:.3f} | {gb / encode:.2f} | {gb / decode:.2f} |", flush=True)


if __name__ == "__main__":
    main()
