"""A static STAC catalogue in an object store: catalog, collections, items, and all items in one file.

catalog.json
<collection>/collection.json
<collection>/<item>/<item>.json       hrefs relative to this file
items.json                            ItemCollection; hrefs relative to this file
items.parquet                         stac-geoparquet; hrefs relative to this file
"""

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import stac_geoparquet.arrow

from eo_batch.io.store import Store

Json = dict[str, Any]

STAC_VERSION = "1.0.0"
_GEOJSON = "application/geo+json"


def item_key(item: Mapping[str, Any], name: str) -> str:
    """Store key of a file called `name` beside an item."""
    return f"{item['collection']}/{item['id']}/{name}"


def write_catalog(
    store: Store, catalog_id: str, description: str, collections: Sequence[Json], items: Sequence[Json]
) -> str:
    """Write all metadata; returns the address of `items.json`.

    collections: STAC collections without extent and links, which come from their items.
    items: STAC items whose asset hrefs are relative to their own folder, without links.
    The files that list all items come last. Writing again gives the same bytes.
    """
    items = sorted(items, key=lambda item: (item["collection"], item["id"]))
    for item in items:
        alone = item | {"links": _links("../../catalog.json", "../collection.json")}
        store.put(item_key(item, f"{item['id']}.json"), _json(alone))
    for collection in collections:
        own = [item for item in items if item["collection"] == collection["id"]]
        store.put(f"{collection['id']}/collection.json", _json(_filled(collection, own)))
    children = [_link("child", f"./{c['id']}/collection.json") for c in collections]
    catalog = {
        "type": "Catalog",
        "stac_version": STAC_VERSION,
        "id": catalog_id,
        "description": description,
        "links": [_link("root", "./catalog.json"), *children, _link("data", "./items.json", _GEOJSON)],
    }
    store.put("catalog.json", _json(catalog))
    listed = [_from_root(item) for item in items]
    store.put("items.parquet", _parquet(listed))
    store.put("items.json", _json({"type": "FeatureCollection", "features": listed}))
    return store.href("items.json")


def _filled(collection: Json, items: Sequence[Json]) -> Json:
    boxes = [item["bbox"] for item in items]
    if any(west > east for west, _, east, _ in boxes):  # across the antimeridian: east longitudes from 0 to 360
        boxes = [[west % 360, south, east % 360 or 360.0, north] for west, south, east, north in boxes]
    bbox = [choose(b[i] for b in boxes) for i, choose in enumerate((min, min, max, max))]
    bbox[::2] = [lon - 360 if lon > 180 else lon for lon in bbox[::2]]
    times = [
        item["properties"].get(key) or item["properties"]["datetime"]
        for item in items
        for key in ("start_datetime", "end_datetime")
    ]
    found = [_link("item", f"./{item['id']}/{item['id']}.json", _GEOJSON) for item in items]
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        **collection,
        "extent": {"spatial": {"bbox": [bbox]}, "temporal": {"interval": [[min(times), max(times)]]}},
        "links": [_link("root", "../catalog.json"), _link("parent", "../catalog.json"), *found],
    }


def _from_root(item: Json) -> Json:
    moved = deepcopy(item)
    for asset in moved["assets"].values():
        asset["href"] = item_key(item, asset["href"].removeprefix("./"))
    return moved | {"links": _links("./catalog.json", f"./{item['collection']}/collection.json")}


def _links(root: str, collection: str) -> list[Json]:
    return [_link("root", root), _link("parent", collection), _link("collection", collection)]


def _link(rel: str, href: str, media_type: str = "application/json") -> Json:
    return {"rel": rel, "href": href, "type": media_type}


def _json(value: Json) -> bytes:
    return json.dumps(value, indent=1, allow_nan=False).encode()


def _parquet(items: Sequence[Json]) -> bytes:
    table = stac_geoparquet.arrow.parse_stac_items_to_arrow(deepcopy(list(items)))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "items.parquet"  # the library writes to paths only
        stac_geoparquet.arrow.to_parquet(table, path)
        return path.read_bytes()
