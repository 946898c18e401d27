"""What a reader says when a file can't be read, against a real server: the failure's class decides what follows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio

from eo_batch.core.errors import FailureKind, ReadError
from eo_batch.core.plan import asset_bounds
from eo_batch.core.scenes import Asset
from eo_batch.io.fetch import ByteBudget, classify
from eo_batch.io.rasters import AssetReader
from eo_batch.io.store import parse_store
from eo_batch.io.windows import RawImage
from eo_batch.settings import Settings, StoreOptions
from eo_batch.stages.plan import find_scenes
from tests.io.web import Answer, Web, cut_body, page, reset, slow, status
from tests.io.worlds import QUICK, spec_of

PATIENT = replace(QUICK, assets=replace(QUICK.assets, retries=3))


@pytest.fixture(scope="module")
def asset(planet: Path) -> Asset:
    """A 10 m band on disk."""
    scenes = find_scenes(spec_of(planet / "items.json"), QUICK).scenes()
    found = next(scene for scene in scenes if scene.sensor == "s2").asset("B04")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def truth(asset: Asset) -> np.ndarray:
    with rasterio.open(asset.href) as source:
        return source.read(1)


def read(asset: Asset, settings: Settings = QUICK) -> RawImage:
    raw = asyncio.run(AssetReader(settings).read(asset, lambda epsg: asset_bounds(asset), 0))
    assert raw is not None
    return raw


def at(web: Web, planet: Path, asset: Asset) -> Asset:
    """The same file through the server, with a token in its address."""
    return replace(asset, href=f"{web.url}/{Path(asset.href).relative_to(planet)}?sig=SECRET")


def kind_of(asset: Asset, settings: Settings = QUICK) -> FailureKind:
    with pytest.raises(ReadError) as told:
        read(asset, settings)
    assert "SECRET" not in str(told.value)
    assert told.value.href == asset.href.split("?")[0]
    return told.value.kind


def test_a_file_reads_the_same_over_every_protocol(
    planet: Path, web: Web, asset: Asset, truth: np.ndarray, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = parse_store(s3_url)
    store.put("a/B04.tif", Path(asset.href).read_bytes())
    monkeypatch.setenv("EO_BATCH_ASSETS_ANONYMOUS", "0")
    for there in (asset, at(web, planet, asset), replace(asset, href=f"{s3_url}/a/B04.tif")):
        raw = read(there, Settings.from_env())
        np.testing.assert_array_equal(raw.pixels_yx, truth)
        assert raw.transform == asset.transform
        assert 0 < raw.bytes_in <= 2 * Path(asset.href).stat().st_size
        assert raw.requests >= 1
    assert "sig=SECRET" in web.queries, "a token that is there is sent"


FAULTS: dict[str, tuple[Answer, FailureKind]] = {
    "404": (status(404), "missing"),
    "410": (status(410), "missing"),
    "403": (status(403), "forbidden"),
    "401": (status(401), "forbidden"),
    "500": (status(500), "transient"),
    "503": (status(503), "transient"),
    "429": (status(429), "transient"),
    "408": (status(408), "transient"),
    "reset": (reset, "transient"),
    "cut body": (cut_body, "transient"),
    "stalled": (slow(4), "transient"),
    "html": (page(b"<!doctype html><title>Sign in</title>"), "corrupt"),
    "empty": (page(b""), "corrupt"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_failure_has_its_class(planet: Path, web: Web, asset: Asset, name: str) -> None:
    fault, kind = FAULTS[name]
    web.fault("B04.tif", fault)
    assert kind_of(at(web, planet, asset)) == kind


@pytest.mark.parametrize("name", ["403", "500", "reset", "cut body"])
def test_a_failure_after_the_header_has_the_same_class(planet: Path, web: Web, asset: Asset, name: str) -> None:
    fault, kind = FAULTS[name]
    web.fault("B04.tif", fault, after=1)
    assert kind_of(at(web, planet, asset)) == kind
    assert sum(web.asked.values()) >= 2


@pytest.mark.parametrize("name", ["500", "429", "reset"])
def test_what_passes_is_asked_again(planet: Path, web: Web, asset: Asset, truth: np.ndarray, name: str) -> None:
    web.fault("B04.tif", FAULTS[name][0], times=2)
    np.testing.assert_array_equal(read(at(web, planet, asset), PATIENT).pixels_yx, truth)


def test_a_slow_server_is_waited_for(planet: Path, web: Web, asset: Asset, truth: np.ndarray) -> None:
    web.fault("B04.tif", slow(0.5))
    np.testing.assert_array_equal(read(at(web, planet, asset)).pixels_yx, truth)


def test_a_server_without_ranges_gives_the_whole_file(planet: Path, web: Web, asset: Asset, truth: np.ndarray) -> None:
    data = Path(asset.href).read_bytes()
    web.fault("B04.tif", page(data, "image/tiff"))
    raw = read(at(web, planet, asset))
    np.testing.assert_array_equal(raw.pixels_yx, truth)
    assert raw.bytes_in == len(data)


def shortened(share: float) -> Callable[[bytes], bytes]:
    return lambda data: data[: int(len(data) * share)]


def overwritten(data: bytes) -> bytes:
    """The last third, which holds pixels, replaced."""
    third = len(data) // 3
    return data[:-third] + b"\xff" * third


BROKEN: dict[str, tuple[Callable[[bytes], bytes], set[FailureKind]]] = {
    "empty": (shortened(0), {"truncated", "corrupt"}),
    "header only": (lambda data: data[:40], {"truncated", "corrupt"}),
    "half": (shortened(0.5), {"truncated"}),
    "last bytes missing": (lambda data: data[:-100], {"truncated"}),
    "corrupt tile": (overwritten, {"corrupt"}),
    "no tiff": (lambda data: b"hello " * 1000, {"corrupt"}),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("place", ["file", "http"])
def test_broken_files(planet: Path, web: Web, asset: Asset, tmp_path: Path, name: str, place: str) -> None:
    damage, kinds = BROKEN[name]
    broken = planet / f"broken-{name}.tif" if place == "http" else tmp_path / "broken.tif"
    broken.write_bytes(damage(Path(asset.href).read_bytes()))
    href = f"{web.url}/{broken.name}".replace(" ", "%20") if place == "http" else str(broken)
    assert kind_of(replace(asset, href=href)) in kinds
    if place == "http":
        assert sum(web.asked.values()) < 10, "what stays broken is not asked for again and again"


@pytest.mark.parametrize("name", ["gone.tif", "nowhere/gone.tif"])
def test_files_that_are_not_there(asset: Asset, tmp_path: Path, name: str) -> None:
    assert kind_of(replace(asset, href=str(tmp_path / name))) == "missing"


@pytest.mark.parametrize("href", ["http://", "https://[::1/a.tif", "http://127.0.0.1:99999/a.tif"])
def test_addresses_that_are_none(asset: Asset, href: str) -> None:
    assert kind_of(replace(asset, href=href)) == "missing"


def test_a_striped_file_is_read_whole(asset: Asset, truth: np.ndarray, planet: Path, web: Web) -> None:
    with rasterio.open(asset.href) as source:
        profile = source.profile
    for key in ("tiled", "blockxsize", "blockysize", "interleave"):
        profile.pop(key, None)
    path = planet / "striped.tif"
    with rasterio.open(path, "w", **{**profile, "driver": "GTiff", "tiled": False}) as target:
        target.write(truth, 1)
    striped = replace(asset, href=f"{web.url}/striped.tif")
    np.testing.assert_array_equal(read(striped).pixels_yx, truth)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert kind_of(striped) in ("truncated", "corrupt")
    path.write_bytes(data)
    web.fault("striped.tif", status(503), after=1)
    assert kind_of(striped) == "transient"


@pytest.mark.parametrize("striped", [False, True])
def test_a_file_that_lies_elsewhere_than_its_item_says_is_told_of(asset: Asset, tmp_path: Path, striped: bool) -> None:
    href = asset.href
    if striped:
        href = str(tmp_path / "striped.tif")
        with rasterio.open(asset.href) as source:
            profile = source.profile | {"tiled": False, "blockysize": 1, "driver": "GTiff"}
            del profile["blockxsize"]
            with rasterio.open(href, "w", **profile) as target:
                target.write(source.read())
    assert asset.transform is not None
    assert asset.shape is not None
    assert asset.epsg is not None
    bounds = asset_bounds(asset)
    a, b, c, d, e, f = asset.transform

    def told(**changes: object) -> str:
        item = replace(asset, href=href, **changes)  # type: ignore[arg-type]
        raw = asyncio.run(AssetReader(QUICK).read(item, lambda epsg: bounds, 0))
        assert raw is not None
        assert raw.transform == asset.transform, "the file is believed"
        return raw.elsewhere

    assert told() == ""
    assert told(transform=None) == told(shape=None) == told(epsg=None) == ""
    assert told(transform=(a, b, c + 0.3 * a, d, e, f)) == "", "catalogues round"
    assert "a corner lies at" in told(transform=(a, b, c + a, d, e, f))
    assert "a corner lies at" in told(transform=(2 * a, b, c, d, 2 * e, f))
    assert "a corner lies at" in told(shape=(asset.shape[0] - 1, asset.shape[1]))
    assert told(epsg=32634) == f"its item says EPSG:32634, the file is in EPSG:{asset.epsg}"


def test_a_file_of_several_bands_is_refused(asset: Asset, tmp_path: Path) -> None:
    with rasterio.open(asset.href) as source:
        profile = {**source.profile, "count": 2}
    with rasterio.open(tmp_path / "two.tif", "w", **profile) as target:
        target.write(np.zeros((2, target.height, target.width), profile["dtype"]))
    assert kind_of(replace(asset, href=str(tmp_path / "two.tif"))) == "corrupt"


def test_a_missing_bucket_and_denied_keys(asset: Asset, seaweed, s3_url: str, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    options = StoreOptions(endpoint=seaweed.url, retries=0)
    signed = replace(QUICK, assets=options)
    assert kind_of(replace(asset, href=f"{s3_url}/gone.tif"), signed) == "missing"
    assert kind_of(replace(asset, href="s3://no-such-bucket-here/gone.tif"), signed) in ("missing", "forbidden")
    parse_store(s3_url).put("B04.tif", Path(asset.href).read_bytes())
    unsigned = replace(QUICK, assets=replace(options, anonymous=True))
    assert kind_of(replace(asset, href=f"{s3_url}/B04.tif"), unsigned) == "forbidden"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Error performing GET http://h/40316/orange.tif in 403.12ms - HTTP error: error sending request", "transient"),
        ("Error performing GET http://h:4160/a in 416.5ms - Server returned non-2xx status code: 503 No", "transient"),
        ("Server returned non-2xx status code: 416 Range Not Satisfiable", "truncated"),
        ("Server returned non-2xx status code: 400 Bad Request", "forbidden"),
    ],
)
def test_numbers_in_addresses_and_durations_are_no_statuses(text: str, kind: FailureKind) -> None:
    assert classify(OSError(text)) == kind


def test_the_budget_bounds_what_is_in_flight_and_lets_everyone_through() -> None:
    async def scenario() -> tuple[int, list[int]]:
        budget, flying, most, done = ByteBudget(100), 0, 0, list[int]()

        async def one(number: int, size: int) -> None:
            nonlocal flying, most
            async with budget.hold(size):
                flying += size
                most = max(most, flying if flying != 250 else 0)
                await asyncio.sleep(0.001)
                flying -= size
            done.append(number)

        sizes = [30, 40, 50, 250, 10, 90, 100, 1]
        waiting = [asyncio.create_task(one(number, size)) for number, size in enumerate(sizes)]
        await asyncio.sleep(0)
        waiting[5].cancel()  # whoever gives up while it waits leaves the others their turn
        await asyncio.gather(*waiting, return_exceptions=True)
        async with budget.hold(100):
            pass
        return most, sorted(done)

    most, done = asyncio.run(scenario())
    assert most <= 100
    assert done == [0, 1, 2, 3, 4, 6, 7]
