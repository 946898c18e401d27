"""Files that can't be read: the spare is read, the shard fails, or the ledger tells; nothing is filled in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eo_batch.cli.why import show_why
from eo_batch.core.errors import ShardFailed, UsageError
from eo_batch.core.receipts import Receipt
from eo_batch.entry.drive import drive, state_of
from eo_batch.entry.run import Run
from eo_batch.io import retries
from eo_batch.io.cube import CubeReader
from eo_batch.io.store import Store, parse_store
from eo_batch.io.tables import read_table
from eo_batch.runners.local import LocalRunner
from tests.io.web import Web, cut_body, page, status
from tests.io.worlds import QUICK, WEST, Watching, chips_receipts, cube_objects, go, spec_of

NEWEST, OLDER = "S2A_32UAZ_20230603_1_L2A", "S2A_32UAZ_20230603_0_L2A"
"""One sensing that is listed twice; the older processing is the spare."""
LABELS = "LandCover_N48E009"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_LONGEST_PAUSE_S", 0.05)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return parse_store(str(tmp_path))


@pytest.fixture(scope="module")
def undisturbed(planet: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return go(spec_of(planet / "items.json", WEST), parse_store(str(tmp_path_factory.mktemp("undisturbed"))))[0]


def pixels(run: Run, array: str, shard_key: str) -> tuple[np.ndarray, np.ndarray]:
    """Stored values and valid counts of a shard's chips."""
    shard = next(shard for shard in run.plan.shards if shard.key == shard_key)
    first = run.axes.first_slot(shard.block)
    slots = [first + shard.block.place(cell) for cell in shard.block.cells() if cell.chip_id in shard.chip_ids]
    reader = CubeReader(run.store, run.identity.prefix("chips"))
    time = run.axes.time_index(shard.bin_key)
    return reader.stored(array, slots, time), reader.valid_counts(array, slots, time)


def ledger(run: Run) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_table(run.store, f"{run.identity.prefix('publish')}/ledger.parquet").to_pylist()
    return rows


def states(receipts: list[Receipt], scene: str, band: str) -> set[str]:
    return {s.state for r in receipts for s in r.sources if (s.scene, s.band) == (scene, band)}


@pytest.mark.parametrize("name", ["missing", "corrupt", "html", "with its class layer"])
def test_the_spare_is_read_where_a_file_is_broken(
    planet: Path, web: Web, store: Store, undisturbed: Run, name: str
) -> None:
    tiff = (planet / "sentinel-2-l2a" / NEWEST / "B04.tif").read_bytes()
    broken = {"missing": status(404), "corrupt": page(tiff[: len(tiff) // 2] + bytes(len(tiff) // 2))}
    web.fault(f"{NEWEST}/B04.tif", broken.get(name, page(b"<html>")))
    if name == "with its class layer":
        web.fault(f"{NEWEST}/SCL.tif", status(404))
    run, _ = go(spec_of(f"{web.url}/items.json", WEST), store)
    receipts = chips_receipts(run)
    assert states(receipts, NEWEST, "B04") == {"spare"}
    assert states(receipts, NEWEST, "B11") == {"ok"}
    spared = next(s for r in receipts for s in r.sources if s.state == "spare" and s.band == "B04")
    assert OLDER in spared.href
    assert spared.detail.startswith(OLDER)
    assert f"{NEWEST}/B04.tif: " in spared.detail, "what was wrong with the chosen file"
    # Both processings show the same ground with other digital numbers: each was corrected by its own offset.
    assert cube_objects(run) == cube_objects(undisturbed)
    told = [row for row in ledger(run) if row["level"] == "source"]
    assert {(row["scene"], row["band"], row["state"]) for row in told} >= {(NEWEST, "B04", "spare")}


def test_why_tells_the_story_of_a_chip_file_by_file(web: Web, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    web.fault(f"{NEWEST}/B04.tif", status(404))
    web.fault(f"{LABELS}/Map.tif", status(404))
    catalog = f"{web.url}/items.json"
    with pytest.raises(ShardFailed):
        go(spec_of(catalog, WEST), store)
    run = Run(spec_of(catalog, WEST), store, QUICK)
    receipt = next(receipt for key, receipt in sorted(run.receipts("chips").items()) if key.startswith("s2/"))
    chip = sorted(receipt.chips)[0]
    show_why(run, chip)
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        rf"{chip} s2 2023-06: {receipt.chips[chip]}, [\d.]+ % valid, 1 of \d+ files replaced by a spare", lines[0]
    )
    told = [line for line in lines if line.startswith("  ")]
    assert len(told) >= len(receipt.sources), "every file"
    (spare,) = [line for line in told if "B04: spare" in line]
    assert spare.startswith(f"  {NEWEST} B04: spare: {OLDER}, since ")
    assert "missing" in spare
    assert "offset" in spare
    assert any(re.search(r" B11: ok, offset -?\d+ \(.+\)", line) for line in told)
    (labels,) = [line for line in lines if line.startswith(f"{chip} labels ")]
    assert re.search(r": given up after 1 tries: .*Map\.tif: missing", labels)
    with pytest.raises(UsageError, match="is no chip, scene or shard"):
        show_why(run, chip[:-1])


def test_without_a_spare_the_shard_fails_and_its_remedy_works(web: Web, store: Store) -> None:
    web.fault("S2B_32UAZ_20230608_0_L2A/B04.tif", status(404))
    catalog = f"{web.url}/items.json"
    with pytest.raises(ShardFailed, match=r"B04\.tif: missing.*limits\.max_missing") as told:
        go(spec_of(catalog, WEST), store)
    assert "(and 3 more of 8 shards)" in str(told.value)
    run = Run(spec_of(catalog, WEST), store, QUICK)
    assert state_of(run, "chips").done == 4, "the labels, which do not need the file"
    with pytest.raises(ShardFailed):
        go(spec_of(catalog, WEST, "limits.max_missing=0.01"), store)
    override = re.search(r"limits\.max_missing=[\d.]+\d", str(told.value))
    assert override is not None
    # Shards differ in how many files they have, so the remedy of each has to be taken until none is left.
    for _ in range(4):
        try:
            done, _ = go(spec_of(catalog, WEST, override[0]), store)
            break
        except ShardFailed as again:
            override = re.search(r"limits\.max_missing=[\d.]+\d", str(again))
            assert override is not None
    assert state_of(done, "chips").missing == ()


def test_spare_and_chosen_both_broken(web: Web, store: Store) -> None:
    web.fault(f"{NEWEST}/B04.tif", status(404))
    web.fault(f"{OLDER}/B04.tif", page(b"no tiff"))
    run, _ = go(spec_of(f"{web.url}/items.json", WEST, "limits.max_missing=0.5"), store)
    assert states(chips_receipts(run), NEWEST, "B04") == {"missing", "corrupt"}


def test_a_lost_date_leaves_the_pixels_of_the_others(planet: Path, web: Web, store: Store) -> None:
    web.fault("20230608.*/B04.tif", status(404))
    run, _ = go(spec_of(f"{web.url}/items.json", WEST, "limits.max_missing=0.5"), store)
    spec = spec_of(planet / "items.json", WEST, "time.end=2023-06-05")
    first_date, _ = go(spec, store.at("first"))
    for shard in run.plan.shards:
        if shard.sensor == "s2":
            both = zip(pixels(run, "s2_10m", shard.key), pixels(first_date, "s2_10m", shard.key), strict=True)
            for found, wanted in both:
                np.testing.assert_array_equal(found, wanted)
    rows = ledger(run)
    lost = [row for row in rows if row["level"] == "source"]
    assert {row["state"] for row in lost} == {"missing"}
    assert {row["band"] for row in lost} == {"B04"}
    assert all(row["href"].startswith(web.url) and "20230608" in row["href"] and row["cause"] for row in lost)
    chips = [row for row in rows if row["level"] == "chip" and row["sensor"] == "s2"]
    assert len(chips) == 6
    assert all("20230608" in row["cause"] for row in chips)


def test_what_was_lost_altogether_is_invalid_and_says_so(web: Web, store: Store, undisturbed: Run) -> None:
    web.fault(r"/B04.tif", status(404))
    web.fault(LABELS, status(404))
    run, _ = go(spec_of(f"{web.url}/items.json", WEST, "limits.max_missing=1"), store)
    assert {s for r in chips_receipts(run) if r.shard.startswith("s2/") for s in r.chips.values()} == {"read_failed"}
    for shard in run.plan.shards:
        array = "s2_10m" if shard.sensor == "s2" else "labels_10m"
        stored, valid = pixels(run, array, shard.key)
        if shard.sensor == "s2":
            assert not stored.any(), "0 is no data"
            assert not valid.any()
            # What could be read is as it would have been.
            for found, wanted in zip(
                pixels(run, "s2_20m", shard.key), pixels(undisturbed, "s2_20m", shard.key), strict=True
            ):
                np.testing.assert_array_equal(found, wanted)
        else:
            truth, _ = pixels(undisturbed, array, shard.key)
            assert np.isin(stored[stored != truth], 0).all(), "lost labels are 0, never another class"
            assert ((stored != 0) == (valid[:, None] > 0)).all()
    chips = {(row["sensor"], row["chip_id"]): row for row in ledger(run) if row["level"] == "chip"}
    assert all(row["state"] == "read_failed" and row["valid"] == 0 for (name, _), row in chips.items() if name == "s2")
    assert {row["state"] for (name, _), row in chips.items() if name == "labels"} >= {"read_failed"}
    assert all("missing" in row["cause"] for row in chips.values() if row["state"] == "read_failed")
    published = read_table(run.store, f"{run.identity.prefix('publish')}/chips.parquet").to_pylist()
    for (sensor, chip_id), row in chips.items():
        [chip] = [chip for chip in published if chip["chip_id"] == chip_id]
        place = f"{sensor}:{row['bin']}"
        assert (chip[f"state:{place}"], chip[f"valid:{place}"]) == (row["state"], row["valid"])


def test_a_file_that_is_refused_is_not_asked_for_again(web: Web, store: Store) -> None:
    web.fault(f"{LABELS}/Map.tif", status(403))
    watching = Watching()
    run = Run(spec_of(f"{web.url}/items.json", WEST, "limits.max_missing=1"), store, QUICK)
    with pytest.raises(ShardFailed, match=r"Map\.tif: forbidden.*check your credentials"):
        drive(run, LocalRunner(0), watching, "publish")
    assert [event.kind for _, event in watching.events].count("failed") == 4
    assert not [event for _, event in watching.events if event.kind == "retry"]
    assert web.asked[f"/landcover/{LABELS}/Map.tif"] == 4, "once for each shard that needs it"


@pytest.mark.parametrize("fault", [status(500), cut_body], ids=["500", "cut body"])
def test_a_server_that_stays_down_fails_the_shard_even_where_losses_are_accepted(
    web: Web, store: Store, fault: Any
) -> None:
    web.fault(f"{LABELS}/Map.tif", fault)
    catalog = f"{web.url}/items.json"
    spec = spec_of(catalog, WEST, "limits.max_missing=1")
    with pytest.raises(ShardFailed, match=r"Map\.tif: transient.*run again later"):
        go(spec, store)
    # Each of four shards is run three times, and each time the file is read again until the shard's patience is over.
    assert 4 * 3 * 2 <= web.asked[f"/landcover/{LABELS}/Map.tif"] < 4 * 3 * 100
    web.mend()
    run, watching = go(spec, store)
    assert watching.ran("chips") == 4, "only what had failed"
    assert {s.state for r in chips_receipts(run) for s in r.sources} == {"ok"}


def test_a_server_that_comes_back_is_a_matter_of_a_retry(web: Web, store: Store, undisturbed: Run) -> None:
    web.fault(f"{LABELS}/Map.tif", status(500), times=4)
    run, watching = go(spec_of(f"{web.url}/items.json", WEST), store)
    assert [event.kind for _, event in watching.events].count("retry") == 0, "the shard has waited"
    tried = [s for r in chips_receipts(run) for s in r.sources if s.tries > 1]
    assert [s.tries for s in tried] == [5]
    assert tried[0].detail.startswith("transient: "), "the receipt says why"
    assert cube_objects(run) == cube_objects(undisturbed)
