"""The zarr stores that `Store.zarr` hands out.

They pickle as the name of their store, so that a lazy array sent to a Dask worker carries no credentials: the worker
opens the store with its own, and on request in its own way, since a cluster may reach it at another address.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any

from zarr.abc.store import Store
from zarr.storage import ObjectStore, WrapperStore

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

    from eo_batch.io.store import Store as EoStore


class Reopened(ObjectStore[Any]):
    """zarr's own obstore-backed store, which a pickle reopens instead of copying its client."""

    def __init__(self, source: EoStore, *, read_only: bool = False, by_url: bool = False) -> None:
        super().__init__(source.client(create=not read_only), read_only=read_only)
        self._source, self._by_url = source, by_url

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self._source.url if self._by_url else self._source, self.read_only)

    def __str__(self) -> str:
        return self._source.url

    def with_read_only(self, read_only: bool = False) -> Reopened:
        return Reopened(self._source, read_only=read_only, by_url=self._by_url)


def _reopen(source: EoStore | str, read_only: bool) -> Reopened:
    if not isinstance(source, str):
        return Reopened(source, read_only=read_only)
    from eo_batch.io.store import parse_store

    return Reopened(parse_store(source), read_only=read_only, by_url=True)


class BelowPrefix(WrapperStore[Store]):
    """`store`, with every key taken below `prefix` (no slash at either end).

    Only in-memory stores need it: the others know prefixes themselves.
    """

    def __init__(self, store: Store, prefix: str) -> None:
        super().__init__(store)
        self._prefix = prefix

    def __eq__(self, value: object) -> bool:
        return isinstance(value, BelowPrefix) and (self._prefix, self._store) == (value._prefix, value._store)

    __hash__ = None  # type: ignore[assignment]  # zarr stores compare by content and are not hashable

    def __str__(self) -> str:
        return f"{self._store}/{self._prefix}"

    def _with_store(self, store: Store) -> BelowPrefix:
        return BelowPrefix(store, self._prefix)

    def _full(self, key: str) -> str:
        return f"{self._prefix}/{key}".rstrip("/")

    async def is_empty(self, prefix: str) -> bool:
        return await self._store.is_empty(self._full(prefix))

    async def clear(self) -> None:
        await self._store.delete_dir(self._prefix)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        return await self._store.get(self._full(key), prototype, byte_range)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        below = [(self._full(key), byte_range) for key, byte_range in key_ranges]
        return await self._store.get_partial_values(prototype, below)

    async def exists(self, key: str) -> bool:
        return await self._store.exists(self._full(key))

    async def set(self, key: str, value: Buffer) -> None:
        await self._store.set(self._full(key), value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        await self._store.set_if_not_exists(self._full(key), value)

    async def _set_many(self, values: Iterable[tuple[str, Buffer]]) -> None:
        await self._store._set_many((self._full(key), value) for key, value in values)

    async def delete(self, key: str) -> None:
        await self._store.delete(self._full(key))

    async def delete_dir(self, prefix: str) -> None:
        await self._store.delete_dir(self._full(prefix))

    async def getsize(self, key: str) -> int:
        return await self._store.getsize(self._full(key))

    async def getsize_prefix(self, prefix: str) -> int:
        return await self._store.getsize_prefix(self._full(prefix))

    def list(self) -> AsyncIterator[str]:
        return self.list_prefix("")

    async def list_prefix(self, prefix: str) -> AsyncIterator[Any]:
        async for key in self._store.list_prefix(self._full(prefix)):
            yield key.removeprefix(f"{self._prefix}/")

    async def list_dir(self, prefix: str) -> AsyncIterator[Any]:
        async for name in self._store.list_dir(self._full(prefix)):
            yield name
