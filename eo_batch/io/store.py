"""One small face over object stores: `file://`, `s3://`, `gs://`, `az://` and `memory://`.

A `Store` is a value: it pickles, compares by URL and options, holds no secret, and connects on first use in each
process. Keys are relative to it, with `/` between segments. Objects appear whole or not at all.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

import obstore

from eo_batch.core.errors import DataError, StoreError, UsageError
from eo_batch.io import backends
from eo_batch.io.assets import open_asset
from eo_batch.io.store_errors import is_absent, store_errors
from eo_batch.settings import Settings, StoreOptions

if TYPE_CHECKING:
    from obstore.store import ObjectStore
    from zarr.abc.store import Store as ZarrStore

__all__ = ["EXPIRES_TAG", "Store", "StoreOptions", "open_asset", "parse_store"]

EXPIRES_TAG = ("eo-batch-expires", "yes")
"""Name and value of the tag on objects that the bucket's life cycle may delete."""

_SCHEMES = ("file", "s3", "gs", "az", "memory")
_PART_BYTES = 8 * 2**20
"""Objects above this size travel in parts of it, so that a slow line never stalls one long request."""
_PARTS_AT_ONCE = 4
_OBJECTS_AT_ONCE = 32
"""Objects that are read or written at once: a small one takes a round trip, and almost nothing else."""
_BATCH = 512
"""Objects that are held at most before they are handed out."""
_BAD_KEY = re.compile(r"^$|^/|/$|//|(^|/)\.{1,2}(/|$)|[\x00-\x1f\x7f\\{}^%`\[\]\"<>~#|*?]")
"""What no key may hold: empty or dot segments, and what object stores would escape in different ways."""


class _Connection:
    """The clients of one bucket or folder, opened on first use; pickles empty."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clients: dict[str, ObjectStore] = {}

    def __reduce__(self) -> tuple[type[_Connection], tuple[()]]:
        return _Connection, ()

    def client(self, root: str, options: StoreOptions, prefix: str, *, create: bool) -> ObjectStore:
        backends.refuse_fork()
        with self._lock:
            if prefix not in self._clients:
                self._clients[prefix] = _open(root, options, prefix, create=create)
            return self._clients[prefix]


@dataclass(frozen=True)
class Store:
    """A place for objects.

    Raises, from every method: StoreMissing (key, bucket or folder), StoreDenied (credentials, permissions),
    StoreError (endpoint down, disk full), each with its remedy; ValueError for a malformed key.
    """

    url: str
    """Normalised URL without a trailing slash, as `parse_store` makes it."""
    options: StoreOptions = field(default_factory=StoreOptions, repr=False)
    """How to reach it."""
    _prefix: str = field(default="", compare=False, repr=False)
    """The part of `url` that `at` added below the root that was connected to."""
    _connection: _Connection = field(default_factory=_Connection, compare=False, repr=False)

    def get(self, key: str) -> bytes:
        """The bytes of an object."""
        with self.errors(f"read {key}"):
            return bytes(obstore.get(self._client(), self._full(key)).bytes())

    def get_many(self, keys: Sequence[str]) -> Iterator[bytes]:
        """The bytes of many small objects, in the order of their keys, several of them read at once."""
        with ThreadPoolExecutor(min(_OBJECTS_AT_ONCE, max(len(keys), 1))) as pool:
            for first in range(0, len(keys), _BATCH):
                yield from pool.map(self.get, keys[first : first + _BATCH])

    def put_many(self, objects: Iterable[tuple[str, bytes]]) -> None:
        """Write objects (key, bytes) whole, several at once, while `objects` makes more of them.

        Which of them are there when it raises is not known.
        """
        with ThreadPoolExecutor(_OBJECTS_AT_ONCE) as pool:
            under_way: deque[Future[None]] = deque()
            for key, data in objects:
                if len(under_way) == _OBJECTS_AT_ONCE:
                    under_way.popleft().result()
                under_way.append(pool.submit(self.put, key, data))
            for put in under_way:
                put.result()

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Exactly `length` bytes from offset `start`. Raises DataError where the object is shorter."""
        if start < 0 or length < 0:
            raise ValueError(f"range {start}+{length} of {key} is negative")
        if length == 0:
            return b""
        with self.errors(f"read {key}"):
            client, full = self._client(), self._full(key)
            try:
                data = bytes(obstore.get_range(client, full, start=start, length=length))
            except (obstore.exceptions.BaseError, ValueError):
                # Servers word "out of range" differently; the size settles whether that is what happened.
                if obstore.head(client, full)["size"] >= start + length:
                    raise
                data = b""
        if len(data) != length:
            raise DataError(f"{self.href(key)}: shorter than {start + length} bytes; it was cut short, delete it")
        return data

    def put(self, key: str, data: bytes, *, expires: bool = False) -> None:
        """Write an object whole, over any earlier one.

        `expires` marks it as one that the life cycle set up by `eo-batch store init` deletes after some days. Only S3
        and Azure have tags; elsewhere the mark is left out and the object stays.
        """
        with self.errors(f"write {key}"):
            obstore.put(
                self._client(create=True),
                self._full(key),
                data,
                tags=self._tags(expires),
                use_multipart=len(data) > _PART_BYTES,
                chunk_size=_PART_BYTES,
                max_concurrency=_PARTS_AT_ONCE,
            )

    def put_if_absent(self, key: str, data: bytes, *, expires: bool = False) -> bool:
        """Write an object whole unless it exists; True if this call wrote it.

        Of any number of simultaneous calls one at most is told True. After a lost answer the writer itself can be
        told False, so a caller that must know compares what is there with what it wanted to write. `expires` as in
        `put`.
        """
        with self.errors(f"write {key}"):
            try:
                obstore.put(self._client(create=True), self._full(key), data, tags=self._tags(expires), mode="create")
            except (obstore.exceptions.AlreadyExistsError, FileExistsError):
                return False
            return True

    def exists(self, key: str) -> bool:
        """Whether an object is there. A bucket that is not there is an error, not False."""
        return self._head(key) is not None

    def size(self, key: str) -> int:
        """Bytes of an object."""
        with self.errors(f"look at {key}"):
            return int(obstore.head(self._client(), self._full(key))["size"])

    def delete(self, key: str) -> None:
        """Delete an object; one that is not there is no error."""
        with self.errors(f"delete {key}"):
            try:
                obstore.delete(self._client(), self._full(key))
            except (obstore.exceptions.BaseError, OSError) as error:
                if not is_absent(error):
                    raise

    def list(self, prefix: str = "") -> Iterator[str]:
        """All keys below the folder `prefix`, sorted. `a` finds `a/b`, never `ab`; nothing there is no error."""
        if prefix:
            _check_key(prefix.rstrip("/"))
        if self._folder() is not None and not self._folder_exists():
            return iter(())
        below = "/".join(part for part in (self._prefix, prefix.rstrip("/")) if part)
        cut = len(self._prefix) + 1 if self._prefix else 0
        with self.errors(f"list {prefix or 'it'}"):
            pages = obstore.list(self._client(), below + "/" if below else None)
            return iter(sorted(str(entry["path"])[cut:] for page in pages for entry in page))

    def folders(self) -> Sequence[str]:
        """Names of the folders right below this store, sorted, without listing what is in them."""
        if self._folder() is not None and not self._folder_exists():
            return []
        with self.errors("list it"):
            found = obstore.list_with_delimiter(self._client(), f"{self._prefix}/" if self._prefix else None)
            return sorted(str(path).rstrip("/").rsplit("/", 1)[-1] for path in found["common_prefixes"])

    def at(self, prefix: str) -> Store:
        """The store below `prefix`; it shares this one's connection."""
        prefix = prefix.strip("/")
        if not prefix:
            return self
        _check_key(prefix)
        return Store(self.href(prefix), self.options, self._full(prefix), self._connection)

    def href(self, key: str) -> str:
        """The full URL of a key."""
        _check_key(key)
        return f"{self.url}/{self._in_url(key)}"

    def errors(self, doing: str) -> AbstractContextManager[None]:
        """Maps what a block raises to StoreError and its kin; for code that writes through `obs` or `zarr`.

        `doing` completes "could not …", as in `write cube.zarr/s2_10m`.
        """
        return store_errors(self.url, doing, init=self._root().url)

    def address(self, key: str) -> tuple[ObjectStore, str]:
        """An obstore client and the key in it, for readers that use obstore by themselves."""
        return self._client(), self._full(key)

    @property
    def obs(self) -> ObjectStore:
        """The obstore client whose keys are this store's keys.

        An in-memory store has no client of its own below `at`; `address` works everywhere.
        """
        return self.client()

    def client(self, *, create: bool = True) -> ObjectStore:
        """As `obs`; `create` False refuses, with StoreMissing, a folder that is not there instead of making it."""
        if self.url.startswith("memory:") and self._prefix:
            raise StoreError(f"{self.url}: an in-memory store has no client below a prefix; use `address(key)`")
        return self._client(self._prefix, create=create)

    def zarr(self, path: str = "", read_only: bool = False, by_url: bool = False) -> ZarrStore:
        """A zarr store rooted at `path`, to hand to `zarr.open_group` or `xarray.open_zarr`.

        by_url: another process that gets a pickle of it opens it as its own environment says, and not as this store is
        reached.
        """
        from eo_batch.io.zarr_store import BelowPrefix, Reopened

        below = self.at(path)
        if self.url.startswith("memory:"):
            memory = Reopened(self._root(), read_only=read_only)
            return BelowPrefix(memory, below._prefix) if below._prefix else memory
        with self.errors(f"open {path or 'it'}"):
            return Reopened(below, read_only=read_only, by_url=by_url)

    def _tags(self, expires: bool) -> dict[str, str] | None:
        return dict([EXPIRES_TAG]) if expires and self.url.startswith(("s3:", "az:")) else None

    def _client(self, prefix: str = "", *, create: bool = False) -> ObjectStore:
        return self._connection.client(self._root().url, self.options, prefix, create=create)

    def _root(self) -> Store:
        """The bucket, folder or name that `at` started from."""
        if not self._prefix:
            return self
        return Store(self.url.removesuffix(f"/{self._in_url(self._prefix)}"), self.options, "", self._connection)

    def _in_url(self, key: str) -> str:
        """`key` as it stands in a URL: file URLs are quoted, as everywhere; those of object stores never are."""
        return quote(key) if self.url.startswith("file:") else key

    def _full(self, key: str) -> str:
        _check_key(key)
        return f"{self._prefix}/{key}" if self._prefix else key

    def _head(self, key: str) -> int | None:
        folder = self._folder()
        if folder is not None and not self._folder_exists():
            return None
        with self.errors(f"look at {key}"):
            try:
                return int(obstore.head(self._client(), self._full(key))["size"])
            except (obstore.exceptions.BaseError, OSError) as error:
                if not is_absent(error):
                    raise
                return None

    def _folder(self) -> Path | None:
        return Path(unquote(urlsplit(self.url).path)) if self.url.startswith("file:") else None

    def _folder_exists(self) -> bool:
        folder = self._folder()
        return folder is not None and folder.is_dir()


def parse_store(text: str, settings: Settings | None = None) -> Store:
    """The store that `text` names: a path or a `file`, `s3`, `gs`, `az` or `memory` URL. Connects to nothing.

    `settings` None means this process's environment. Raises UsageError where `text` is no such name.
    """
    options = (Settings.from_env() if settings is None else settings).store
    if not text:
        raise UsageError("store is empty; use a folder or a URL such as s3://bucket/prefix")
    if "://" not in text:
        return Store(Path(text).expanduser().absolute().as_uri(), options)
    parts = urlsplit(text)
    if parts.scheme not in _SCHEMES:
        raise UsageError(f"store {parts.scheme}:// is not known; use file, s3, gs, az or memory")
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise UsageError(
            f"store {parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}: take user, token and query out of "
            "the URL; credentials come from the environment"
        )
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise UsageError(f"store {text} is not a local path; use file:///absolute/path")
        return Store(Path(unquote(parts.path)).as_uri(), options)
    prefix = parts.path.strip("/")
    if not parts.netloc or (prefix and _BAD_KEY.search(prefix)):
        raise UsageError(f"store {text} is malformed; use {parts.scheme}://name/prefix")
    return Store(f"{parts.scheme}://{parts.netloc}", options).at(prefix)


def _check_key(key: str) -> None:
    if _BAD_KEY.search(key):
        raise ValueError(f"{key!r} is not a key; use segments of plain characters with single slashes between")


def _open(root: str, options: StoreOptions, prefix: str, *, create: bool) -> ObjectStore:
    """Open the client of `root` (a bucket, a folder, a memory name), seen below `prefix`."""
    parts = urlsplit(root)
    with store_errors(root, "open it", init=root):
        match parts.scheme:
            case "file":
                return backends.open_local(Path(unquote(parts.path)) / prefix, create=create)
            case "s3":
                return backends.open_s3(parts.netloc, prefix, options)
            case "gs":
                return backends.open_gcs(parts.netloc, prefix, options)
            case "az":
                return backends.open_azure(parts.netloc, prefix, options)
            case _:
                return backends.open_memory(parts.netloc)
