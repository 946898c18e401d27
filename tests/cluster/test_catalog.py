"""Pods search a STAC API: the same scenes, and the same bytes, as from the file that lists them."""

from __future__ import annotations

import json

import pytest
import yaml

from eo_batch.io.store import parse_store
from tests.cluster.given import S3, Images
from tests.cluster.kube import namespace
from tests.cluster.place import Place
from tests.cluster.runs import Reference, command, objects
from tests.cluster.stac_api import inside, stac_server
from tests.servers.stac_api import StacServer


def fill(server: StacServer, catalog: str) -> None:
    """Load what a file of items lists. Relative addresses of an API's items mean nothing; they become absolute."""
    folder, _, name = catalog.rpartition("/")
    bucket = parse_store(folder)
    items = json.loads(bucket.get(name))["features"]
    for collection in {item["collection"] for item in items}:
        own = [item for item in items if item["collection"] == collection]
        for item in own:
            for asset in item["assets"].values():
                asset["href"] = f"{folder}/{asset['href']}"
        server.load(json.loads(bucket.get(f"{collection}/collection.json")), own)


def cube(found: dict[str, str]) -> dict[str, str]:
    """Digests of a cube's objects, by their keys in the cube."""
    return {key.partition("/cube.zarr/")[2]: digest for key, digest in found.items() if "/cube.zarr/" in key}


@pytest.mark.cluster
@pytest.mark.slow
def test_pods_search_an_api(place: Place, images: Images, reference: Reference, s3_here: S3) -> None:
    catalog = yaml.safe_load(reference.spec.read_text())["catalog"]
    store = s3_here.server.new_bucket()
    profile = place.release.profile("kubernetes")
    with namespace("eo-batch-test-stac") as space, stac_server(space, images.servers) as server:
        fill(server, catalog)
        argv = ["run", str(reference.spec), f"catalog={inside(space)}", "--store", store, "--on", str(profile)]
        command([*argv, "--until", "chips"])
    expected = cube(dict(reference.objects))
    assert expected
    assert cube(objects(store)) == expected
