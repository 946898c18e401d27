"""Opens files that catalogues name: one client for each origin, let in as a table says.

Nothing secret is in the table, in the settings or in what is kept of an address: a token is asked for by the process
that reads, when it reads, and renewed when most of its life is over or when it is refused.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from eo_batch.core.errors import StoreDenied, UsageError
from eo_batch.io import backends
from eo_batch.io.tokens import blob_tokens, earthdata_keys
from eo_batch.settings import Settings, StoreOptions, earthdata_login

if TYPE_CHECKING:
    from obstore.store import ObjectStore

TABLE: tuple[tuple[str, str], ...] = (
    ("https://*.blob.core.windows.net", "planetary-computer"),
    ("https://*.earthdatacloud.nasa.gov", "earthdata"),
    ("https://*.earthdata.nasa.gov", "earthdata"),
    ("https://*.asf.alaska.edu", "earthdata"),
    ("s3://asf-cumulus-prod-opera-products", "https://cumulus.asf.alaska.edu/s3credentials"),
    ("s3://lp-prod-protected", "https://data.lpdaac.earthdatacloud.nasa.gov/s3credentials"),
    ("s3://ornl-cumulus-prod-protected", "https://data.ornldaac.earthdata.nasa.gov/s3credentials"),
    ("s3://sentinel-s1-l1c", "requester-pays"),
    ("s3://sentinel-s2-l1c", "requester-pays"),
    ("s3://sentinel-s2-l2a", "requester-pays"),
    ("s3://usgs-landsat", "requester-pays"),
)
"""Origins and how one is let in (`settings.ACCESS`); the first row that fits counts. Rows on S3 are about Amazon's own,
and Earthdata's are as obstore and NASA's archives document them."""


@dataclass(frozen=True)
class _Origin:
    """What one client serves."""

    scheme: str
    place: str
    """Host or bucket; the folder of a file."""
    query: str
    container: str
    """The container of an Azure blob, below the endpoint `place`; empty for all else."""
    how: str
    """A word or address of the table, or `default`."""


_EARTHDATA_REGION = "us-west-2"
_MOST_CLIENTS = 256
_clients: dict[tuple[_Origin, StoreOptions, str], ObjectStore] = {}
_lock = threading.Lock()


def open_asset(href: str, settings: Settings) -> tuple[ObjectStore, str]:
    """A client for the origin of `href`, and the key of `href` in it.

    `href` is a path or a file, http(s), s3, gs or az URL. Clients are kept per origin (and per token, where the
    URL carries one in its query). Raises UsageError for another scheme, StoreDenied, StoreMissing.
    """
    backends.refuse_fork()
    origin, key = _split(href, settings)
    return _kept(origin, settings), key


def renew_asset(href: str, settings: Settings, refused: ObjectStore) -> bool:
    """After the client `refused` was refused: whether `open_asset` now gives another one, with a new token."""
    origin, _ = _split(href, settings)
    if not _is_signed(origin, settings):
        return False
    with _lock:
        if _clients.get(_name(origin, settings)) is refused:
            del _clients[_name(origin, settings)]
    return True


def _kept(origin: _Origin, settings: Settings) -> ObjectStore:
    name = _name(origin, settings)
    client = _clients.get(name)
    if client is None:
        with _lock:
            client = _clients.get(name)
            if client is None:
                if len(_clients) >= _MOST_CLIENTS:
                    _clients.clear()
                client = _clients[name] = _open(origin, settings)
    return client


def _name(origin: _Origin, settings: Settings) -> tuple[_Origin, StoreOptions, str]:
    return origin, settings.assets, settings.assets_sas_url


def _split(href: str, settings: Settings) -> tuple[_Origin, str]:
    """The origin of an address, and the key in it."""
    if "://" not in href:
        path = Path(href).absolute()
        return _Origin("file", str(path.parent), "", "", "default"), path.name
    parts = urlsplit(href)
    if parts.scheme == "file":
        path = Path(unquote(parts.path))
        return _Origin("file", str(path.parent), "", "", "default"), path.name
    key = unquote(parts.path).lstrip("/")
    if parts.query:  # whoever gave this address has signed it
        return _Origin(parts.scheme, parts.netloc, parts.query, "", "default"), key
    rows = _rows(f"{parts.scheme}://{parts.netloc}", settings)
    fitting = ((below, how) for below, how in rows if not below or f"{key}/".startswith(f"{below}/"))
    below, how = next(fitting, ("", "default"))
    if how != "planetary-computer":
        return _Origin(parts.scheme, parts.netloc, "", "", how), key
    container, _, blob = key.removeprefix(below).lstrip("/").partition("/")
    return _Origin(parts.scheme, f"{parts.netloc}/{below}".rstrip("/"), "", container, how), blob


@lru_cache(maxsize=256)
def _rows(root: str, settings: Settings) -> tuple[tuple[str, str], ...]:
    """Paths and ways in of the rows about a host or bucket, in order."""
    elsewhere = settings.assets.endpoint is not None
    known = [row for row in TABLE if not (elsewhere and row[0].startswith("s3:"))]
    found = []
    for origin, how in (*settings.assets_access, *known):
        scheme, _, rest = origin.partition("://")
        place, _, below = rest.partition("/")
        if fnmatchcase(root, f"{scheme}://{place}"):
            found.append((below, how))
    return tuple(found)


def _is_signed(origin: _Origin, settings: Settings) -> bool:
    if origin.how == "default":
        return origin.scheme in ("s3", "gs", "az") and not settings.assets.anonymous
    return origin.how != "unsigned"


def _open(origin: _Origin, settings: Settings) -> ObjectStore:
    options, root = settings.assets, f"{origin.scheme}://{origin.place}"
    match origin.scheme, origin.how:
        case "file", _:
            return backends.open_local(Path(origin.place), create=False)
        case "http" | "https", "planetary-computer":
            host, _, below = origin.place.partition("/")
            account = below.rpartition("/")[2] or host.split(".", 1)[0]
            tokens = blob_tokens(settings.assets_sas_url, account, origin.container)
            return backends.open_blobs(root, account, origin.container, tokens, options)
        case "http" | "https", "earthdata":
            return backends.open_http(root, "", options, _earthdata_bearer(root))
        case "http" | "https", "default" | "unsigned":
            return backends.open_http(root, origin.query, options)
        case "s3", "requester-pays":
            return backends.open_s3(origin.place, "", _paying(root, settings))
        case "s3", how if how.startswith("http"):
            if options.endpoint is None:
                options = replace(options, region=_EARTHDATA_REGION)
            return backends.open_s3(origin.place, "", options, earthdata_keys(how))
        case "s3" | "gs" | "az", "default" | "signed" | "unsigned" as how:
            if how != "default":
                options = replace(options, anonymous=how == "unsigned")
            opening: dict[str, Callable[[str, str, StoreOptions], ObjectStore]] = {
                "s3": backends.open_s3,
                "gs": backends.open_gcs,
                "az": backends.open_azure,
            }
            return opening[origin.scheme](origin.place, "", options)
        case _, "default":
            raise UsageError(f"assets at {origin.scheme}:// can't be read; use https, s3, gs, az, file or a path")
        case _, how:
            raise UsageError(f"EO_BATCH_ASSETS_ACCESS: {root} can't be read as {how}; see docs/reading.md")


def _earthdata_bearer(root: str) -> str:
    login = earthdata_login()
    if not isinstance(login, str):
        raise StoreDenied(f"{root} asks for a NASA Earthdata log-in; set EARTHDATA_TOKEN to a token of yours")
    return login


def _paying(root: str, settings: Settings) -> StoreOptions:
    """Whoever names the bucket, or says that he pays, has agreed to pay."""
    agreed = settings.assets.request_payer or (root, "requester-pays") in settings.assets_access
    if not agreed:
        raise StoreDenied(f"{root} charges whoever reads it; set AWS_REQUEST_PAYER=requester to pay with your account")
    return replace(settings.assets, anonymous=False, request_payer=True)
