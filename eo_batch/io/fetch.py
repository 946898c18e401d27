"""Range requests to source data: classed failures, counted bytes, a bound on what is in flight."""

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import (
    BaseError,
    NotFoundError,
    NotSupportedError,
    PermissionDeniedError,
    UnauthenticatedError,
)

from eo_batch.core.errors import FailureKind, ReadError, StoreDenied, StoreMissing
from eo_batch.core.telling import one_line
from eo_batch.io.tokens import TokenUnavailable

if TYPE_CHECKING:
    from obstore import Bytes
    from obstore.store import ObjectStore

_MISSING = (NotFoundError, FileNotFoundError, NotADirectoryError, StoreMissing)
_FORBIDDEN = (PermissionDeniedError, UnauthenticatedError, PermissionError, StoreDenied)
_STATUS = re.compile(r"status code: (\d{3})")
"""Where the client's words hold the HTTP status; bare numbers also occur in addresses and durations."""
_BEYOND_END = re.compile(r"InvalidRange|InvalidGetRange|range (started at|was invalid|starting at)", re.IGNORECASE)
_LEAST_RATE = 2**20
"""Bytes a second that a line brings at least while it is shared by all that is in flight; below, a request has
stalled."""
_COALESCE_GAP = 64 * 1024
"""Ranges closer than this are fetched as one: cheaper than another request (bytes)."""


def classify(error: Exception) -> FailureKind:
    """The failure class of what an object store client raised, after its own retries."""
    if isinstance(error, _MISSING):
        return "missing"
    if TokenUnavailable.__name__ in str(error):
        return "transient"
    if isinstance(error, _FORBIDDEN):
        return "forbidden"
    text = str(error)
    status = _STATUS.search(text)
    match int(status[1]) if status else None:
        case 404 | 410:
            return "missing"
        case 416:
            return "truncated"
        case int(code) if 400 <= code < 500 and code not in (408, 425, 429):
            return "forbidden"
        case int():
            return "transient"
    return "truncated" if _BEYOND_END.search(text) else "transient"


class ByteBudget:
    """Bytes that may be in flight at once; waiting takes turns, and one request over the limit goes alone."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def in_flight(self) -> int:
        """Bytes that are held now."""
        return self._used

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Hold `size` bytes of the budget while the block runs."""
        if self._waiting or (self._used and self._used + size > self._limit):
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((size, turn))
            await turn
        else:
            self._used += size
        try:
            yield
        finally:
            self._used -= size
            while self._waiting and (not self._used or self._used + self._waiting[0][0] <= self._limit):
                waiting_size, turn = self._waiting.popleft()
                if not turn.cancelled():
                    self._used += waiting_size
                    turn.set_result(None)


class Fetcher:
    """The range requests of one object, as async-tiff asks for them.

    Keeps what the TIFF library would swallow: the class of the first failure. Counts bytes and requests.
    """

    def __init__(self, client: "ObjectStore", href: str, budget: ByteBudget, stall_s: float) -> None:
        """stall_s: seconds that a request may take, besides what the line needs for all that is in flight."""
        self._client = client
        self._href = href
        self._budget = budget
        self._stall_s = stall_s
        self.size: int | None = None
        """Bytes of the object, known after the first request."""
        self.bytes_in = 0
        self.requests = 0
        self.failure: ReadError | None = None
        """The first failure."""
        self._all: bytes | None = None
        """The whole object, where its server knows no ranges."""
        self._head = b""
        """Its first bytes, once they were asked for: they are looked at more than once."""

    async def get_range_async(
        self, path: str, *, start: int, end: int | None = None, length: int | None = None
    ) -> "Bytes | bytes":
        """One range; cut at the end of the object."""
        stop = end if end is not None else start + (length or 0)
        if self._all is not None:
            return self._all[start:stop]
        if self.size is not None and start < min(stop, self.size) <= len(self._head):
            return self._head[start:stop]
        try:
            async with self._budget.hold(stop - start), self._deadline():
                if self.size is None:
                    answer = await obstore.get_async(self._client, path, options={"range": (start, stop)})
                    self.size = answer.meta["size"]
                    data = await answer.bytes_async()
                elif start >= self.size:
                    raise self._short(stop)
                else:
                    data = await obstore.get_range_async(self._client, path, start=start, end=min(stop, self.size))
            self._check_whole(len(data), min(stop, self.size) - start)
        except NotSupportedError:
            return (await self._entire(path))[start:stop]
        except (BaseError, OSError) as error:
            raise self._failed(error) from error
        self.bytes_in += len(data)
        self.requests += 1
        if start == 0:
            self._head = bytes(data)
        return data

    async def get_ranges_async(
        self,
        path: str,
        *,
        starts: Sequence[int],
        ends: Sequence[int] | None = None,
        lengths: Sequence[int] | None = None,
    ) -> "Sequence[Bytes | bytes]":
        """Several ranges, every one of them whole."""
        if ends is None:
            ends = [s + n for s, n in zip(starts, lengths or [], strict=True)]
        if self.size is not None and max(ends) > self.size:
            raise self._short(max(ends))
        if self._all is not None:
            whole = self._all
            return [whole[start:end] for start, end in zip(starts, ends, strict=True)]
        try:
            async with self._budget.hold(sum(ends) - sum(starts)), self._deadline():
                data = await obstore.get_ranges_async(
                    self._client, path, starts=starts, ends=ends, coalesce=_COALESCE_GAP
                )
            self._check_whole(sum(map(len, data)), sum(ends) - sum(starts))
        except (BaseError, OSError) as error:
            raise self._failed(error) from error
        self.bytes_in += sum(len(part) for part in data)
        self.requests += _merged(starts, ends)
        return data

    async def whole(self, path: str) -> bytes:
        """The whole object."""
        return self._all if self._all is not None else await self._entire(path)

    async def _entire(self, path: str) -> bytes:
        try:
            async with asyncio.timeout(self._stall_s):
                answer = await obstore.get_async(self._client, path)
            self.size = int(answer.meta["size"])
            async with self._budget.hold(self.size), self._deadline():
                data = bytes(await answer.bytes_async())
            self._check_whole(len(data), self.size)
            self._all = data
        except (BaseError, OSError) as error:
            raise self._failed(error) from error
        self.bytes_in += len(self._all)
        self.requests += 1
        return self._all

    def _deadline(self) -> asyncio.Timeout:
        """Ends what trickles: the client sees no stall in a line that brings a byte now and then."""
        return asyncio.timeout(self._stall_s + self._budget.in_flight / _LEAST_RATE)

    def _check_whole(self, got: int, wanted: int) -> None:
        """The client passes on a body that its server cut short and announced so."""
        if got != wanted:
            raise self._remember(ReadError(self._href, "transient", f"{got} bytes came where {wanted} were asked for"))

    def _short(self, wanted: int) -> ReadError:
        return self._remember(ReadError(self._href, "truncated", f"{self.size} bytes where {wanted} were announced"))

    def _failed(self, error: Exception) -> ReadError:
        kind = classify(error)
        stalled = isinstance(error, TimeoutError) and not str(error)  # asyncio's own time-outs say nothing
        detail = "stalled: the bytes come too slowly" if stalled else one_line(error)
        return self._remember(ReadError(self._href, kind, detail))

    def _remember(self, failure: ReadError) -> ReadError:
        self.failure = self.failure or failure
        return failure


def _merged(starts: Sequence[int], ends: Sequence[int]) -> int:
    """Requests left after ranges closer than the gap are joined."""
    count, reach = 0, -_COALESCE_GAP - 1
    for start, end in sorted(zip(starts, ends, strict=True)):
        if start - reach > _COALESCE_GAP:
            count += 1
        reach = max(reach, end)
    return count
