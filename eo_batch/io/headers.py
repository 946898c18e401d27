"""Headers of TIFFs, looked at before a library trusts them: one damaged count asks for more memory than a machine has,
and such a request ends the whole process, not only the read.

TIFF 6.0, section 2; BigTIFF has the same with longer numbers.
"""

import struct
from dataclasses import dataclass

from eo_batch.io.fetch import Fetcher

HEAD_BYTES = 32_768
"""What is fetched first; the headers of most Cloud-Optimised GeoTIFFs lie within."""
_MOST_DIRECTORIES = 256
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value by its type."""


@dataclass(frozen=True)
class _Layout:
    """Where numbers stand in one of the two kinds of file."""

    first: tuple[int, str]
    """Position of the first directory's address, and how an address is written."""
    entries: str
    """How the number of a directory's entries is written."""
    entry: str
    """Tag, type, count and value of an entry."""


_CLASSIC, _BIG = _Layout((4, "I"), "H", "HHII"), _Layout((8, "Q"), "Q", "HHQQ")


async def check_header(fetcher: Fetcher, key: str) -> None:
    """Raise ValueError if a directory of a TIFF has more values than the file has bytes, or there is no end of them.

    Says nothing about what is no TIFF, or ends within its header. Raises what the fetcher raises.
    """
    head = bytes(await fetcher.get_range_async(key, start=0, end=HEAD_BYTES))
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    layout = {42: _CLASSIC, 43: _BIG}.get(struct.unpack_from(f"{order}H", head, 2)[0]) if order and head[4:] else None
    if layout is None or len(head) < 16:
        return
    where, address = layout.first
    seen: set[int] = set()
    (at,) = struct.unpack_from(f"{order}{address}", head, where)
    while at:
        if at in seen or len(seen) == _MOST_DIRECTORIES:
            raise ValueError("its directories have no end")
        seen.add(at)
        at = await _next(fetcher, key, at, f"{order}{layout.entries}", f"{order}{layout.entry}", f"{order}{address}")


async def _next(fetcher: Fetcher, key: str, at: int, entries: str, entry: str, address: str) -> int:
    """Address of the directory after the one at `at`; 0 for none, and where the file ends before."""
    start, size = at + struct.calcsize(entries), fetcher.size or 0
    if start > size:
        return 0
    (count,) = struct.unpack(entries, await fetcher.get_range_async(key, start=at, end=start))
    each, stop = struct.calcsize(entry), min(start + count * struct.calcsize(entry), size)
    data = bytes(await fetcher.get_range_async(key, start=start, end=stop + struct.calcsize(address))) if count else b""
    whole = min(count, (stop - start) // each)
    for tag, kind, values, _ in struct.iter_unpack(entry, data[: whole * each]):
        if values * _SIZES.get(kind, 1) > size:
            raise ValueError(f"tag {tag} has {values} values, in a file of {size} bytes")
    if len(data) < count * each + struct.calcsize(address):
        return 0
    (after,) = struct.unpack_from(address, data, count * each)
    return int(after)
