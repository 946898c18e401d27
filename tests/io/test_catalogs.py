"""One planet, listed in four ways over three protocols, gives the same scenes; bad catalogues give one clear error."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from urllib3 import HTTPResponse
from urllib3.exceptions import MaxRetryError

from eo_batch.core.errors import CatalogError, PlanError
from eo_batch.core.scenes import Scene
from eo_batch.core.spec import RunSpec
from eo_batch.io.catalogs import _API_RETRIES, Query, search, search_boxes
from eo_batch.io.plans import has_scenes, load_all_scenes
from eo_batch.io.scenetable import MISPLACED
from eo_batch.io.stac_io import StrictStacIO
from eo_batch.io.store import parse_store
from eo_batch.settings import Settings
from eo_batch.stages import plan
from eo_batch.stages.plan import find_scenes
from eo_batch.stages.simulate import simulate
from tests.io.web import Answer, Web, cut_body, page, reset, serving, status
from tests.io.worlds import PLANET, QUICK, WHOLE, go, spec_of
from tests.servers.stac_api import StacServer

BOUND_S = 20.0
"""How long a person waits at most to learn that a catalogue is down."""
LISTS = ("catalog.json", "items.json", "items.parquet")


def bare(scenes: list[Scene], root: str) -> list[Scene]:
    """Scenes with addresses relative to the catalogue's root."""

    def moved(scene: Scene) -> Scene:
        assets, spare = (
            tuple(replace(asset, href=asset.href.removeprefix(root)) for asset in files)
            for files in (scene.assets, scene.spare)
        )
        return replace(scene, assets=assets, spare=spare)

    return [moved(scene) for scene in scenes]


def found_in(spec: RunSpec, settings: Settings) -> list[Scene]:
    return find_scenes(spec, settings).scenes()


@pytest.fixture(scope="module")
def expected(planet: Path) -> list[Scene]:
    scenes = bare(found_in(spec_of(planet / "items.json"), QUICK), f"{planet}/")
    assert len(scenes) == 12
    assert sum(scene.spare_id is not None for scene in scenes) == 1
    # Relative addresses that did resolve, to files that are there.
    assert all((planet / asset.href).is_file() for scene in scenes for asset in scene.assets + scene.spare)
    return scenes


@pytest.mark.parametrize("name", LISTS)
def test_files_list_the_same_scenes(planet: Path, expected: list[Scene], name: str) -> None:
    assert bare(found_in(spec_of(planet / name), QUICK), f"{planet}/") == expected
    url = (planet / name).as_uri()
    assert bare(found_in(spec_of(url), QUICK), f"{planet.as_uri()}/") == expected


@pytest.mark.parametrize("name", LISTS)
def test_http_lists_the_same_scenes(web: Web, expected: list[Scene], name: str) -> None:
    assert bare(found_in(spec_of(f"{web.url}/{name}"), QUICK), f"{web.url}/") == expected


def test_s3_lists_the_same_scenes(s3_url: str, expected: list[Scene], monkeypatch: pytest.MonkeyPatch) -> None:
    simulate(PLANET, parse_store(s3_url), workers=2)
    monkeypatch.setenv("EO_BATCH_ASSETS_ANONYMOUS", "0")
    for name in LISTS:
        found = found_in(spec_of(f"{s3_url}/{name}"), Settings.from_env())
        assert bare(found, f"{s3_url}/") == expected


@pytest.fixture(scope="module")
def api(stac_api: StacServer, planet: Path) -> StacServer:
    """The API with the planet, and 620 copies of one of its items: three pages."""
    items = json.loads((planet / "items.json").read_text())["features"]
    for collection in ("sentinel-2-l2a", "landcover"):
        described = json.loads((planet / collection / "collection.json").read_text())
        own = [item for item in items if item["collection"] == collection]
        for item in own:
            # Relative addresses of an API's items mean nothing; publishers list absolute ones.
            item["assets"] = {
                key: {**asset, "href": f"{planet.as_uri()}/{asset['href']}"} for key, asset in item["assets"].items()
            }
        stac_api.load(described, own)
    many = json.loads((planet / "sentinel-2-l2a" / "collection.json").read_text()) | {"id": "many"}
    one = next(item for item in items if item["collection"] == "sentinel-2-l2a")
    stac_api.load(many, [{**one, "id": f"copy-{number:04d}"} for number in range(620)])
    return stac_api


def test_an_api_lists_the_same_scenes(api: StacServer, planet: Path, expected: list[Scene]) -> None:
    assert bare(found_in(spec_of(api.url), QUICK), f"{planet.as_uri()}/") == expected


PATIENT = replace(QUICK, assets=replace(QUICK.assets, retries=1))


def copies(url: str, counts: list[int] | None = None) -> set[str]:
    boxes = search_boxes([WHOLE], 0.0)
    query = Query(url, ("many",), boxes, PLANET.start, PLANET.start.replace(day=28))
    found = search(query, PATIENT, counts.append if counts is not None else None)
    return {str(item["id"]) for item, _ in found.items}


def test_an_api_is_read_page_by_page(api: StacServer) -> None:
    counts: list[int] = []
    with serving(upstream=api.url) as front:
        assert copies(front.url, counts) == {f"copy-{number:04d}" for number in range(620)}
        assert front.asked["/search"] == 3, "few large pages, not many small ones"
    assert counts == list(range(1, 621))


@pytest.mark.parametrize("fault", [status(503), status(429), reset], ids=["503", "429", "reset"])
def test_an_api_that_fails_for_a_moment_is_asked_again(api: StacServer, fault: Answer) -> None:
    with serving(upstream=api.url) as front:
        front.fault("/search", fault, after=1, times=1)
        assert len(copies(front.url)) == 620


MID_PAGING = {
    "503": status(503),
    "403": status(403),
    "404": status(404),
    "reset": reset,
    "html": page(b"<html>maintenance</html>"),
    "cut": page(b'{"type": "FeatureCollection", "features": [{"id": '),
    "no features": page(b'{"type": "FeatureCollection"}', "application/json"),
    "list": page(b"[]", "application/json"),
}


@pytest.mark.parametrize("kind", MID_PAGING)
def test_an_api_that_fails_between_pages_freezes_nothing(api: StacServer, tmp_path: Path, kind: str) -> None:
    store = parse_store(str(tmp_path))
    with serving(upstream=api.url) as front:
        front.fault("/search", MID_PAGING[kind], after=1)
        spec = spec_of(front.url, WHOLE, "sensors.s2.collections=[many]")
        with pytest.raises(CatalogError, match=r"search failed|no STAC") as told:
            plan.run(spec, store, QUICK)
        assert front.asked["/search"] >= 2
    assert_readable(told.value)
    assert list(store.list()) == []


def test_the_waits_for_an_api_are_bounded() -> None:
    adapter = StrictStacIO(_API_RETRIES).session.get_adapter("https://")
    retry, waited_s = adapter.max_retries, 0.0  # type: ignore[attr-defined]  # requests' adapters have one type
    for _ in range(_API_RETRIES):
        retry = retry.increment("POST", "/search", HTTPResponse(status=503))
        waited_s += retry.get_backoff_time()
    with pytest.raises(MaxRetryError):
        retry.increment("POST", "/search", HTTPResponse(status=503))
    assert 5 < waited_s < BOUND_S


BAD_ROOTS: dict[str, tuple[Answer, str]] = {
    "404": (status(404), "is not there; check the address"),
    "403": (status(403), "check your credentials"),
    "401": (status(401), "check your credentials"),
    "500": (status(500), "does not answer"),
    "reset": (reset, "does not answer"),
    "cut body": (cut_body, "does not answer"),
    "html": (page(b"<!doctype html><title>Sign in</title>"), "is not JSON"),
    "truncated": (page(b'{"type": "Catalog", "links": ['), "is not JSON"),
    "number": (page(b"7"), "no STAC document"),
    "no catalogue": (page(b'{"hello": "world"}'), "neither a STAC catalogue"),
    "empty body": (page(b""), "is not JSON"),
    "no features": (page(b'{"type": "FeatureCollection"}'), "without items"),
    "strings": (page(b'{"type": "FeatureCollection", "features": ["a"]}'), "usable STAC item: it is no object"),
    "bad bbox": (
        page(b'{"type": "FeatureCollection", "features": [{"id": "a", "bbox": [1, 2]}]}'),
        r"item a of .*/bad\.json is not a usable STAC item: its bbox is not 4 or 6 numbers",
    ),
    "one page": (
        page(b'{"type": "FeatureCollection", "features": [], "links": [{"rel": "next", "href": "x"}]}'),
        "one page of a longer list",
    ),
    "no search": (page(b'{"type": "Catalog", "id": "a", "conformsTo": [], "links": []}'), "search failed|no STAC"),
}


@pytest.mark.parametrize("kind", BAD_ROOTS)
def test_bad_catalogues_say_what_is_wrong(web: Web, tmp_path: Path, kind: str) -> None:
    fault, words = BAD_ROOTS[kind]
    web.fault("bad.json", fault)
    store = parse_store(str(tmp_path))
    begun = time.monotonic()
    with pytest.raises(CatalogError, match=words) as told:
        plan.run(spec_of(f"{web.url}/bad.json?token=SECRET"), store, QUICK)
    assert time.monotonic() - begun < BOUND_S
    assert_readable(told.value)
    assert list(store.list()) == []


def assert_readable(error: Exception) -> None:
    assert "SECRET" not in str(error)
    assert "\n" not in str(error)
    assert 20 < len(str(error)) < 700


def test_a_catalogue_that_nobody_serves(tmp_path: Path) -> None:
    with serving(tmp_path) as gone:
        url = gone.url
    begun = time.monotonic()
    with pytest.raises(CatalogError, match="does not answer"):
        plan.run(spec_of(f"{url}/catalog.json"), parse_store(str(tmp_path)), Settings.from_env({}))
    assert time.monotonic() - begun < BOUND_S, "with the retries that people get"


@pytest.mark.parametrize("name", ["nowhere.json", "nowhere/catalog.json", "nowhere.parquet", "."])
def test_a_path_that_is_no_file(planet: Path, name: str) -> None:
    with pytest.raises(CatalogError, match="check the address"):
        find_scenes(spec_of(planet / name), QUICK)


@pytest.mark.parametrize("address", ["http://", "http://127.0.0.1:99999/a", "https://[::1/a", "https://exa mple/a"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(CatalogError, match="is no address"):
        find_scenes(spec_of(f'"{address}"'), QUICK)


@pytest.mark.parametrize("length", [0, 100, 5000])
def test_a_geoparquet_file_that_was_cut_short(planet: Path, tmp_path: Path, length: int) -> None:
    (tmp_path / "items.parquet").write_bytes((planet / "items.parquet").read_bytes()[:length])
    with pytest.raises(CatalogError, match="is not stac-geoparquet"):
        find_scenes(spec_of(tmp_path / "items.parquet"), QUICK)


def test_a_table_that_holds_no_items(planet: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": [1]}), tmp_path / "items.parquet")
    with pytest.raises(CatalogError, match=r"stac-geoparquet|no STAC item"):
        find_scenes(spec_of(tmp_path / "items.parquet"), QUICK)


def test_a_branch_of_a_static_catalogue_that_is_missing_fails_the_search(web: Web) -> None:
    web.fault("LandCover_N48E009.json", status(404))
    with pytest.raises(CatalogError, match=r"LandCover_N48E009\.json is not there"):
        find_scenes(spec_of(f"{web.url}/catalog.json"), QUICK)


def test_nothing_over_the_area_says_what_there_is(planet: Path, api: StacServer) -> None:
    elsewhere = (30.0, 10.0, 30.01, 10.01)
    for catalog in (planet / "items.json", planet / "catalog.json", api.url):
        with pytest.raises(PlanError, match="no item of sentinel-2-l2a") as told:
            find_scenes(spec_of(catalog, elsewhere), QUICK)
        assert "landcover" in str(told.value)
        assert "sentinel-2-l2a" in str(told.value).split("it holds", 1)[1]
    with pytest.raises(PlanError, match="from 2020-01-01 to 2020-02-01"):
        find_scenes(spec_of(planet / "items.json", WHOLE, "time.start=2020-01-01", "time.end=2020-02-01"), QUICK)


def listed(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """The planet's list of items with absolute addresses, each changed."""
    listing = json.loads((folder / "items.json").read_text())
    for item in listing["features"]:
        for asset in item["assets"].values():
            asset["href"] = f"{folder}/{asset['href']}"
        change(item)
    path = folder.parent / f"{change.__name__}.json"
    path.write_text(json.dumps(listing))
    return path


def test_an_area_across_the_antimeridian_is_searched_on_both_sides(planet: Path, tmp_path: Path) -> None:
    spans = {"west": (179, 179.9), "east": (-179.9, -179), "over": (179.8, -179.8), "world": (-180, 180), "far": (0, 1)}
    when = {"datetime": "2023-06-03T00:00:00Z"}
    items = [
        {"id": name, "collection": "c", "bbox": [west, 0, east, 1], "properties": when}
        for name, (west, east) in spans.items()
    ]
    path = tmp_path / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))

    def found(west: float, east: float) -> set[str]:
        parts = spec_of(path, (west, 0.2, east, 0.8)).area.polygon().geoms
        boxes = search_boxes([(p.bounds[0], p.bounds[1], p.bounds[2], p.bounds[3]) for p in parts], 0.05)
        query = Query(str(path), ("c",), boxes, PLANET.start, PLANET.start.replace(day=28))
        return {str(item["id"]) for item, _ in search(query, QUICK).items}

    assert found(179.5, -179.5) == {"west", "east", "over", "world"}
    assert found(179.0, 179.7) == {"west", "world"}
    # A margin that grows over the line goes on behind it.
    assert found(179.5, 179.98) == {"west", "over", "world"}
    assert search_boxes([(179.98, 0, 180, 1)], 0.1) == ((179.88, -0.1, 180.0, 1.1), (-180.0, -0.1, -179.9, 1.1))


def test_tokens_never_reach_the_store(planet: Path, tmp_path: Path) -> None:
    def signed(item: dict[str, Any]) -> None:
        for asset in item["assets"].values():
            asset["href"] = "file://" + asset["href"] + "?se=2023-01-01&sig=SECRET"

    plain = {scene.scene_id: scene for scene in found_in(spec_of((planet / "items.json").as_uri()), QUICK)}
    path = listed(planet, signed)
    store = parse_store(str(tmp_path))
    run, _ = go(spec_of(path), store)
    assert {scene.scene_id: scene for scene in load_all_scenes(store, run.identity.prefix("plan"))} == plain
    holding = [key for key in store.list() if b"SECRET" in store.get(key)]
    assert holding == []


def test_files_that_only_a_query_tells_apart_are_refused(planet: Path, tmp_path: Path) -> None:
    def queried(item: dict[str, Any]) -> None:
        for key, asset in item["assets"].items():
            asset["href"] = f"https://127.0.0.1:1/download?file={key}"

    spec = spec_of(listed(planet, queried), WHOLE, "sensors.s2.offset_dn=0")
    refusals = {scene.refusal for scene in found_in(spec, QUICK) if scene.sensor == "s2"}
    assert len(refusals) == 1
    assert "differ only in the queries" in str(refusals)
    store = parse_store(str(tmp_path))
    assert not has_scenes(store, "nothing")


def test_items_that_contradict_themselves_are_left_out_and_told(planet: Path, tmp_path: Path) -> None:
    wrong = "S2A_33UAZ_20230603_0_L2A"

    def a_zone_further(item: dict[str, Any]) -> None:
        if item["id"] == wrong:
            item["properties"]["proj:code"] = "EPSG:32634"

    run, _ = go(spec_of(listed(planet, a_zone_further)), parse_store(str(tmp_path)), until="plan")
    receipt = run.receipt("plan", "plan")
    assert receipt is not None
    assert [(note.subject, note.text) for note in receipt.notes if note.text == MISPLACED] == [(wrong, MISPLACED)]
    used = {scene_id for shard in run.plan.shards for scene_id in run.plan.scene_ids(shard)}
    assert wrong not in used
    assert {"S2B_33UAZ_20230608_0_L2A", "S2A_32UAZ_20230603_1_L2A"} <= used


def test_a_file_that_lies_elsewhere_than_its_item_says_is_noted(planet: Path, tmp_path: Path) -> None:
    name = "S2A_33UAZ_20230603_0_L2A"

    def a_pixel_further(item: dict[str, Any]) -> None:
        if item["id"] == name:
            for asset in item["assets"].values():
                asset["proj:transform"][2] += asset["proj:transform"][0]

    run, _ = go(spec_of(listed(planet, a_pixel_further)), parse_store(str(tmp_path)), until="chips")
    notes = {
        (n.subject, n.text[:4]) for r in run.receipts("chips").values() for n in r.notes if "the file has it" in n.text
    }
    assert notes == {(name, "B04:"), (name, "B11:"), (name, "SCL:")}
