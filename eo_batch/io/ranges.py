"""An object as a file that Arrow reads, range by range."""

import io
from collections.abc import Sequence

import obstore
from obstore.store import ObjectStore

_TAIL_BYTES = 64 * 2**10
"""End of the object that is fetched first: a Parquet file is read from its end."""
_GAP_BYTES = 256 * 2**10
"""Ranges closer than this are one request: what lies between them costs less than another."""


class RangeFile(io.RawIOBase):
    """Reads an object of an obstore client. Not for several threads at once. Raises what obstore raises."""

    def __init__(self, client: ObjectStore, key: str) -> None:
        self._client, self._key = client, key
        self._size = int(obstore.head(client, key)["size"])
        self._at = 0
        self._held: list[tuple[int, bytes]] = []
        first = max(self._size - _TAIL_BYTES, 0)
        self.hold([first], [self._size])

    def hold(self, starts: Sequence[int], ends: Sequence[int]) -> None:
        """Fetch half-open ranges at once, and forget those that were held before."""
        if self._size:
            found = obstore.get_ranges(self._client, self._key, starts=starts, ends=ends, coalesce=_GAP_BYTES)
            self._held = [(start, bytes(data)) for start, data in zip(starts, found, strict=True)]

    def read(self, size: int = -1) -> bytes:
        """The next bytes, fewer at the end."""
        begin, end = self._at, self._size if size < 0 else min(self._at + size, self._size)
        if end <= begin:
            return b""
        self._at = end
        for start, data in self._held:
            if start <= begin and end <= start + len(data):
                return data[begin - start : end - start]
        return bytes(obstore.get_range(self._client, self._key, start=begin, end=end))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to an offset from the start, from here, or from the end."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        """Where the next byte is read from."""
        return self._at

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True
