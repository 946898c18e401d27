"""The shared servers answer, and the STAC API pages."""

import json
import urllib.request
from typing import Any

from tests.servers.objects import ObjectServer
from tests.servers.stac_api import StacServer


def _item(number: int) -> dict[str, Any]:
    x, y = 10 + number / 100, 50.0
    ring = [[x, y], [x + 0.01, y], [x + 0.01, y + 0.01], [x, y + 0.01], [x, y]]
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": f"item-{number:02d}",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [x, y, x + 0.01, y + 0.01],
        "properties": {"datetime": f"2023-08-{number + 1:02d}T10:00:00Z"},
        "links": [],
        "assets": {},
    }


def _collection(name: str) -> dict[str, Any]:
    extent = {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [["2020-01-01T00:00:00Z", None]]}}
    described = {"description": "test", "license": "other", "extent": extent, "links": []}
    return {"type": "Collection", "stac_version": "1.0.0", "id": name, **described}


def test_a_search_pages_through_next_links(stac_api: StacServer) -> None:
    stac_api.load(_collection("paged"), [_item(number) for number in range(25)])
    url: str | None = f"{stac_api.url}/search?collections=paged&limit=10"
    sizes, found = [], []
    while url is not None:
        with urllib.request.urlopen(url, timeout=10) as answer:
            page = json.load(answer)
        sizes.append(len(page["features"]))
        found += [feature["id"] for feature in page["features"]]
        url = next((link["href"] for link in page["links"] if link["rel"] == "next"), None)
    assert sizes == [10, 10, 5]
    assert sorted(found) == [f"item-{number:02d}" for number in range(25)]


def test_loading_again_replaces(stac_api: StacServer) -> None:
    for _ in range(2):
        stac_api.load(_collection("again"), [_item(0)])
    with urllib.request.urlopen(f"{stac_api.url}/search?collections=again", timeout=10) as answer:
        assert len(json.load(answer)["features"]) == 1


def test_there_is_room_for_a_bucket_a_test(seaweed: ObjectServer) -> None:
    client = seaweed.boto()
    for _ in range(35):
        bucket = seaweed.new_bucket().removeprefix("s3://")
        client.put_object(Bucket=bucket, Key="key", Body=b"x")
