"""Search a catalogue once: a STAC API, a static catalogue, an ItemCollection, or what xarray opens.

`io/geoparquet.py` reads tables.

Gives items as plain dictionaries with the address that their relative hrefs are resolved against.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

import obstore
from obstore.exceptions import BaseError

from eo_batch.core.errors import CatalogError, SpecError, StoreError
from eo_batch.core.stacitems import absolute_href, identity, section, unusable
from eo_batch.core.stated import box, parse_time
from eo_batch.core.telling import one_line, shown
from eo_batch.core.timebins import microseconds, midnight
from eo_batch.io.assets import open_asset
from eo_batch.io.fetch import classify
from eo_batch.io.xarrays import is_dataset, items_of
from eo_batch.settings import Settings

Item = Mapping[str, Any]
Bbox = tuple[float, float, float, float]
Progress = Callable[[int], None]

_PAGE_ITEMS = 250
"""Items asked for a page: few large queries, since APIs throttle many small ones."""
_API_RETRIES = 4
"""At most: together they wait 14 s."""
_WALKERS = 16


@dataclass(frozen=True)
class Query:
    """What to search for."""

    catalog: str
    """Address or path."""
    collections: tuple[str, ...]
    """Collections wanted; empty means all."""
    bboxes: tuple[Bbox, ...]
    """West, south, east, north, degrees; none crosses the antimeridian. An item that meets any of them is wanted."""
    start: date | None
    """First day, UTC; None for products without a time axis."""
    end: date | None
    """Day after the last."""
    epsg: int | None = None
    """CRS of a data set that does not tell its own."""


@dataclass(frozen=True)
class Found:
    """Items of one search."""

    items: tuple[tuple[Item, str], ...]
    """(item, address that its relative hrefs are resolved against)."""
    collections_seen: tuple[str, ...]
    """Collection ids met, to tell a person what the catalogue holds."""


def search(query: Query, settings: Settings, on_progress: Progress | None = None) -> Found:
    """All items that the query wants, each once, sorted by (collection, id).

    Raises CatalogError if the catalogue is down, refuses, or is none.
    """
    href = address_of(query.catalog)
    seen: set[str] = set()
    kept: dict[tuple[str, str, str], tuple[Item, str]] = {}
    for item, base in _source(href, query, settings, seen):
        try:
            collection, item_id = identity(item)
            wanted = _wanted(item, collection, query)
            updated = section(item, "properties").get("updated") if wanted else None
        except ValueError as error:
            raise unusable(item, base, error) from error
        seen.add(collection)
        if wanted:
            kept[collection, item_id, json.dumps(updated if isinstance(updated, str) else None)] = (item, base)
            if on_progress is not None:
                on_progress(len(kept))
    return Found(tuple(kept[key] for key in sorted(kept)), tuple(sorted(seen - {""})))


def _source(href: str, query: Query, settings: Settings, seen: set[str]) -> Iterator[tuple[Item, str]]:
    """Items of any kind of catalogue, unfiltered where it can't filter; adds collections that it names to `seen`."""
    if is_dataset(href):
        return ((item, href) for item in items_of(href, settings, query.epsg))
    document = _document(href, settings)
    kind = document.get("type")
    if kind == "FeatureCollection":
        return _collected(href, document)
    if _is_api(document):
        return _api(href, query, settings, seen)
    if kind in ("Catalog", "Collection") or "stac_version" in document:
        return _static(href, document, settings)
    raise CatalogError(
        f"{shown(href)} is neither a STAC catalogue, an API, an ItemCollection nor stac-geoparquet; check the address"
    )


def _collected(href: str, document: Mapping[str, Any]) -> Iterator[tuple[Item, str]]:
    features = document.get("features")
    if not isinstance(features, list):
        raise CatalogError(f"{shown(href)} is an ItemCollection without items; check the address")
    if any(link.get("rel") == "next" for link in _links(document)):
        raise CatalogError(f"{shown(href)} is one page of a longer list; give the address of the API's root instead")
    return ((item, href) for item in features)


def _wanted(item: Item, collection: str, query: Query) -> bool:
    if query.collections and collection and collection not in query.collections:
        return False
    if item.get("bbox") is None and item.get("geometry") is None:
        return False  # STAC's way to say that an item is nowhere
    if not meets(*box(item.get("bbox")), query):
        return False
    if query.start is None:
        return True
    properties = section(item, "properties")
    first = properties.get("datetime") or properties.get("start_datetime")
    last = properties.get("datetime") or properties.get("end_datetime")
    if not first or not last:
        raise ValueError("it has no time (datetime, or start_datetime and end_datetime)")
    return bool(in_time(microseconds(parse_time(first)), microseconds(parse_time(last)), query))


def meets(west: Any, south: Any, east: Any, north: Any, query: Query) -> Any:
    """Whether boxes meet any of the query's, for one box or columns of them; west > east crosses the antimeridian."""
    found: Any = False
    for w, s, e, n in query.bboxes:
        across = (west > east) & ((west <= e) | (east >= w))
        found = found | ((((west <= e) & (east >= w)) | across) & (south <= n) & (north >= s))
    return found


def in_time(first_us: Any, last_us: Any, query: Query) -> Any:
    """Whether intervals (microseconds since 1970) overlap the query's dates, for one interval or for columns."""
    if query.start is None or query.end is None:
        return first_us == first_us
    return (first_us < microseconds(midnight(query.end))) & (last_us >= microseconds(midnight(query.start)))


def _api(href: str, query: Query, settings: Settings, seen: set[str]) -> Iterator[tuple[Item, str]]:
    import requests
    from pystac import STACError, STACTypeError
    from pystac_client import Client
    from pystac_client.errors import ClientTypeError
    from pystac_client.exceptions import APIError

    from eo_batch.io.stac_io import StrictStacIO

    times = None
    if query.start is not None and query.end is not None:
        times = f"{midnight(query.start):%Y-%m-%dT%H:%M:%SZ}/{midnight(query.end):%Y-%m-%dT%H:%M:%SZ}"
    found_any = False
    try:
        client = Client.open(href, stac_io=StrictStacIO(min(settings.assets.retries, _API_RETRIES)))
        for bbox in query.bboxes:
            found = client.search(
                collections=list(query.collections) or None, bbox=bbox, datetime=times, limit=_PAGE_ITEMS
            )
            for item in found.items_as_dicts():
                found_any = True
                yield item, _self_href(item) or href
        if not found_any:
            seen.update(collection.id for collection in client.get_collections())
    except (APIError, requests.RequestException) as error:
        denied = getattr(error, "status_code", None) in (401, 403)
        remedy = "check your credentials for it" if denied else "try again later"
        raise CatalogError(f"{shown(href)}: the search failed ({one_line(error)}); {remedy}") from error
    except NotImplementedError as error:
        raise CatalogError(f"{shown(href)} can't be searched ({one_line(error)}); give another catalogue") from error
    except (STACError, STACTypeError, ClientTypeError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise CatalogError(
            f"{shown(href)} answers what is no STAC ({one_line(error)}); check the address, or try again later"
        ) from error


def _self_href(item: Item) -> str | None:
    return next((link["href"] for link in _links(item) if link.get("rel") == "self"), None)


def _links(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The links of a document that lead somewhere."""
    listed = document.get("links")
    links = listed if isinstance(listed, list) else []
    return [link for link in links if isinstance(link, Mapping) and isinstance(link.get("href"), str)]


def _static(href: str, root: Mapping[str, Any], settings: Settings) -> Iterator[tuple[Item, str]]:
    """Walk child and item links; levels are fetched in parallel."""
    with ThreadPoolExecutor(_WALKERS) as pool:
        level: list[tuple[str, Mapping[str, Any]]] = [(href, root)]
        visited = {href}
        while level:
            targets = []
            for base, document in level:
                for link in _links(document):
                    if link.get("rel") in ("child", "item"):
                        target = _target(link["href"], base)
                        if target not in visited:
                            visited.add(target)
                            targets.append(target)
            documents = pool.map(lambda target: _document(target, settings), targets)
            level = []
            for target, document in zip(targets, documents, strict=True):
                if document.get("type") == "Feature":
                    yield document, target
                else:
                    level.append((target, document))


def _target(href: str, base: str) -> str:
    try:
        return absolute_href(href, base)
    except ValueError as error:
        raise CatalogError(f"{shown(base)} links to what is no address ({one_line(error)})") from error


def _document(href: str, settings: Settings) -> Mapping[str, Any]:
    data = _fetch(href, settings)
    try:
        document = json.loads(data)
    except (RecursionError, ValueError) as error:
        raise CatalogError(f"{shown(href)} is not JSON ({one_line(error)}); check the address") from error
    if not isinstance(document, Mapping):
        raise CatalogError(f"{shown(href)} is JSON but no STAC document; check the address")
    return document


def _fetch(href: str, settings: Settings) -> bytes:
    with catalog_errors(href):
        client, key = open_asset(href, settings)
        return bytes(obstore.get(client, key).bytes())


@contextmanager
def catalog_errors(href: str) -> Iterator[None]:
    """Maps what reading a catalogue raises to CatalogError."""
    try:
        yield
    except (BaseError, OSError, StoreError) as error:
        match classify(error):
            case "missing":
                what = "is not there; check the address"
            case "forbidden":
                what = "refuses; check your credentials for it"
            case _:
                what = f"does not answer ({one_line(error)}); try again later"
        raise CatalogError(f"catalogue {shown(href)} {what}") from error
    except ValueError as error:
        raise CatalogError(f"catalogue {shown(href)} is no address ({one_line(error)}); correct it") from error


def _is_api(document: Mapping[str, Any]) -> bool:
    return "conformsTo" in document or any(link.get("rel") == "search" for link in _links(document))


def address_of(catalog: str) -> str:
    """A catalogue's address, or its absolute path. Raises SpecError if there is none."""
    if not catalog:
        raise SpecError("catalog is not set; give catalog=<address or path> on the command line or in the spec")
    if "://" in catalog:
        return catalog
    from pathlib import Path

    return str(Path(catalog).expanduser().absolute())


def search_boxes(parts: Sequence[Bbox], margin_deg: float) -> tuple[Bbox, ...]:
    """Boxes grown by a margin; what grows over the antimeridian continues on its other side."""
    boxes: list[Bbox] = []
    for west, south, east, north in parts:
        w, e = west - margin_deg, east + margin_deg
        s, n = max(south - margin_deg, -90.0), min(north + margin_deg, 90.0)
        boxes.append((max(w, -180.0), s, min(e, 180.0), n))
        if w < -180:
            boxes.append((w + 360, s, 180.0, n))
        if e > 180:
            boxes.append((-180.0, s, e - 360, n))
    return tuple(boxes)
