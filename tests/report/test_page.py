"""The page: complete, self-contained, safe, and true to what the run wrote."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from eo_batch.core import layout
from eo_batch.core.calibration import BUILT_IN
from eo_batch.core.errors import DataError
from eo_batch.core.estimate import estimate, taken
from eo_batch.core.identity import Identity
from eo_batch.core.receipts import Note, Receipt
from eo_batch.core.spec import RunSpec
from eo_batch.io.store import parse_store
from eo_batch.io.tables import parquet_bytes, read_table
from eo_batch.stages.report import words
from eo_batch.stages.report.facts import spec_text
from eo_batch.stages.report.results import Results
from tests.report.conftest import Made
from tests.report.pages import do, page_of, parsed, rows_of, section, words_of

SECTIONS = [
    "coverage", "split", "gallery", "training", "reconstruction", "embeddings", "probe", "missing", "timings",
    "provenance",
]  # fmt: skip
EVIL = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'"


def plain(text: str) -> str:
    """With plain spaces."""
    return re.sub(r"\s+", " ", text)


def test_sections_come_in_order_each_with_a_sentence_on_what_to_look_for(whole: Made) -> None:
    assert re.findall(r'<section id="(\w+)">', whole.page) == SECTIONS
    for name in SECTIONS:
        looks = re.findall(r'<p class="look">(.*?)</p>', section(whole.page, name), re.DOTALL)
        assert len(looks) == 1, name
        assert looks[0].startswith("Look")
        assert looks[0].endswith(".")
    targets = [a["href"] for a in parsed(whole.page).of("a")]
    assert targets == [f"#{name}" for name in SECTIONS]


def test_a_complete_run_leaves_no_gap(whole: Made) -> None:
    assert 'class="absent"' not in whole.page
    for name, what in (("coverage", "<svg"), ("gallery", "<img"), ("training", "<svg"), ("reconstruction", "<img"),
                       ("embeddings", "<svg"), ("probe", "<svg"), ("split", "<svg")):  # fmt: skip
        assert what in section(whole.page, name), name


def test_the_page_loads_nothing(whole: Made) -> None:
    elements = parsed(whole.page)
    for name, attributes in elements.found:
        for key in ("src", "href", "srcset", "data", "action", "poster", "xlink:href"):
            value = attributes.get(key)
            assert value is None or value.startswith(("data:", "#")), (name, key, value)
    assert not elements.of("script")
    assert "@import" not in whole.page
    assert "url(" not in whole.page
    policy = next(m["content"] for m in elements.of("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_the_same_results_give_the_same_bytes_in_any_process(whole: Made) -> None:
    code = (
        "import sys; from eo_batch.core.specfile import parse_spec; from eo_batch.io.store import parse_store\n"
        "from eo_batch.stages.report.page import render; from eo_batch.stages.report.results import Results\n"
        "spec = parse_spec(sys.stdin.read()); sys.stdout.write(render(Results(spec, parse_store(sys.argv[1]))))"
    )
    from eo_batch.core.specfile import dump_spec

    env = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONUTF8": "1"}
    done = subprocess.run([sys.executable, "-c", code, whole.store.url], input=dump_spec(whole.spec), text=True,
                          capture_output=True, check=True, env=env)  # fmt: skip
    assert done.stdout == whole.page


def test_a_report_needs_no_torch(whole: Made) -> None:
    code = "import sys, eo_batch.stages.report.page; sys.exit('torch' in sys.modules or 'rasterio' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 0


def test_markup_in_names_and_causes_stays_text(copied: Made) -> None:
    prefix = Identity(copied.spec).prefix("publish")
    ledger = read_table(copied.store, f"{prefix}/ledger.parquet")
    rows = ledger.to_pylist()
    rows += [
        {"level": level, "sensor": "s2", "bin": "20230602P10D", "block": EVIL, "chip_id": EVIL, "state": state,
         "scene": EVIL, "band": EVIL, "href": EVIL, "cause": EVIL}
        for level, state in (("chip", "read_failed"), ("source", "corrupt"), ("scene", "left out"), ("note", "note"))
    ]  # fmt: skip
    copied.store.put(f"{prefix}/ledger.parquet", parquet_bytes(type(ledger).from_pylist(rows, schema=ledger.schema)))
    key = layout.receipt_key(Identity(copied.spec).prefix("pretrain"), "seed-0")
    receipt = Receipt.from_bytes(copied.store.get(key), key)
    evil = receipt.model_copy(update={"notes": (Note(subject=EVIL, text=EVIL),), "runner": EVIL,
                                      "software": {EVIL: EVIL}})  # fmt: skip
    copied.store.put(key, evil.to_bytes())
    page = page_of(copied.spec, copied.store)
    elements = parsed(page)
    assert not elements.of("script")
    assert all((img["src"] or "").startswith("data:") and "onerror" not in img for img in elements.of("img"))
    assert elements.text.count(EVIL) >= 8
    assert "<script" not in page


def test_tokens_in_addresses_are_not_passed_around(make_spec: Callable[..., RunSpec]) -> None:
    spec = make_spec("catalog=https://stac.example.org/v1?sig=SECRET&x=1", "sensors.s2.catalog=https://b.org/?k=SECRET")
    text = spec_text(spec)
    assert "SECRET" not in text
    assert "https://stac.example.org/v1?…" in text


def test_coverage_says_what_the_chips_table_holds(whole: Made) -> None:
    chips = Results(whole.spec, whole.store).chips.to_pandas()
    owners = chips[chips.owner]
    captions = re.findall(r"<figcaption><h3>(.*?)</h3>(.*?)</figcaption>", section(whole.page, "coverage"))
    said = {title: words_of(caption) for title, caption in captions}
    for title, column in (("dem", "valid:dem:static"), ("s2 · 2023-06-02 to 2023-06-11", "valid:s2:20230602P10D")):
        share = owners[column].mean()
        assert said[title].startswith(plain(words.percent(share)) + " of pixels valid")
    assert 0 < owners["valid:s2:20230602P10D"].mean() < 0.99  # the planet has clouds
    assert "s2 · 2023-06-22 to 2023-07-01" in words_of(section(whole.page, "coverage"))  # named, without a map
    assert "s2 · 2023-06-22 to 2023-07-01" not in said


def test_every_chip_is_on_the_map(whole: Made) -> None:
    chips = Results(whole.spec, whole.store).chips
    svg = re.search(r"<svg.*?</svg>", section(whole.page, "split"), re.DOTALL)
    assert svg
    drawn = Counter(re.findall(r'class="chip split-(\w+)"', svg.group()))
    assert drawn == Counter(chips["split"].to_pylist())
    for chip_id in chips["chip_id"].to_pylist():
        assert f"{chip_id}\n" in svg.group()


def test_the_ledger_is_counted_and_explained(copied: Made) -> None:
    prefix = Identity(copied.spec).prefix("publish")
    ledger = read_table(copied.store, f"{prefix}/ledger.parquet")
    rows = ledger.to_pylist()
    snow = "snow or ice 98.8 %, cloud, high probability 1.2 %: cloud is often taken for snow, have a look"
    rows += [{"level": "note", "sensor": "s2", "bin": "b", "block": f"b{i}", "state": "note", "scene": "S2_X",
              "cause": snow} for i in range(3)]  # fmt: skip
    rows += [{"level": "scene", "sensor": "s2", "scene": f"S{i:03}", "state": "left out",
              "cause": "cloud cover 90.0 % is over max_cloud_pct=50"} for i in range(250)]  # fmt: skip
    rows += [{"level": "source", "sensor": "s2", "scene": "S2_Y", "band": "B04", "href": "https://x/b04.tif",
              "state": "truncated", "cause": "17 of 99 bytes"}]  # fmt: skip
    copied.store.put(f"{prefix}/ledger.parquet", parquet_bytes(type(ledger).from_pylist(rows, schema=ledger.schema)))
    html = section(page_of(copied.spec, copied.store), "missing")
    said = words_of(html)
    chip_rows = [row for row in rows if row["level"] == "chip"]
    empty = sum(row["state"] != "ok" for row in chip_rows)
    assert plain(f"{words.count(empty)} of {words.count(len(chip_rows))} chip images are empty") in said
    assert "1 file could not be read" in said
    table = {row[0]: row for row in reversed(rows_of(html))}  # the counts come before the lists
    in_s2 = [row for row in chip_rows if row["sensor"] == "s2"]
    assert table["s2"][1] == plain(words.count(len(in_s2)))
    assert ["s2", "S2_X", snow, "3"] in rows_of(html)  # once, with the number of shards
    assert ["s2", "S2_Y", "B04", "truncated", "17 of 99 bytes", "https://x/b04.tif", "1"] in rows_of(html)
    left_out = 250 + sum(row["level"] == "scene" for row in ledger.to_pylist())
    assert f"Scenes left out {left_out} scenes" in said
    assert f"Empty chips {empty} chip images in" in said
    assert f"… and {left_out - 200} more in ledger.parquet" in said


def test_scores_are_those_of_the_probe(whole: Made) -> None:
    prefix = Identity(whole.spec).prefix("probe")
    summary = json.loads(whole.store.get(layout.metrics(prefix, "summary.json")))
    table = read_table(whole.store, layout.metrics(prefix, "probe.parquet")).to_pandas()
    html = section(whole.page, "probe")
    rows = {row[0]: row[1:] for row in rows_of(html) if row}
    code = int(table["class"].iloc[0])
    values = table[(table["class"] == code) & (table.encoder == "pretrained")].r2
    assert rows[f"class {code}"][0] == f"{words.number(values.mean())} ± {words.number(values.std(ddof=1))}"
    assert rows["mean over classes"][2] == words.number(summary["encoders"]["band-statistics"]["r2_mean"])
    margin = summary["margins_over"]["random-init"]
    assert rows["the untrained twin"][0] == words.signed(margin["mean"])
    assert rows["the untrained twin"][2] == f"{words.signed(margin['low'])} to {words.signed(margin['high'])}"
    verdict = words_of(whole.page[: whole.page.index("<nav")])
    assert f"margin of {words.signed(margin['mean'], 2)} ± {words.number(margin['std'], 2)}" in verdict
    assert f"{summary['test_chips']} held-out chips" in verdict


@pytest.mark.parametrize(
    ("margins", "seeds", "said", "tone"),
    [
        ([(0.2, 0.1, 0.3), (0.1, 0.05, 0.15)], 5, "Pretraining beats both baselines", "yes"),
        ([(0.2, 0.1, 0.3), (0.1, -0.05, 0.25)], 5, "Pretraining beats the untrained twin only", "no"),
        ([(0.0, -0.1, 0.1), (0.0, -0.1, 0.1)], 5, "Pretraining beats neither baseline beyond doubt", "no"),
        ([(-0.2, -0.3, -0.1), (-0.2, -0.3, -0.1)], 5, "Pretraining falls behind both baselines", "no"),
        ([(0.2, None, None), (0.2, None, None)], 1, "One seed gives no interval", ""),
    ],
)
def test_the_verdict_says_no_more_than_the_intervals(
    copied: Made, margins: list[tuple[float, float | None, float | None]], seeds: int, said: str, tone: str
) -> None:
    key = layout.metrics(Identity(copied.spec).prefix("probe"), "summary.json")
    summary = json.loads(copied.store.get(key))
    summary["seeds"] = list(range(seeds))
    for name, (mean, low, high) in zip(("random-init", "band-statistics"), margins, strict=True):
        std = None if low is None else 0.05
        summary["margins_over"][name] |= {"mean": mean, "low": low, "high": high, "std": std}
    copied.store.put(key, json.dumps(summary).encode())
    page = page_of(copied.spec, copied.store)
    assert f'<p class="verdict {tone}">{said}' in page


def test_losses_show_every_seed_and_name_the_missing_ones(whole: Made) -> None:
    html = section(whole.page, "training")
    assert "seed 0" in html
    assert "seed 1" in html
    svg = re.search(r"<svg.*?</svg>", html, re.DOTALL)
    assert svg
    assert len(re.findall("<polyline", svg.group())) == 4  # training and validation of two seeds
    table = read_table(whole.store, layout.losses(Identity(whole.spec).prefix("pretrain"), 0))
    assert np.isfinite(table["train"].to_numpy()).all()
    more = whole.spec.model_copy(update={"pretrain": whole.spec.pretrain.model_copy(update={"seeds": (0, 1, 7)})})
    assert "No curve for seed 7." in words_of(section(page_of(more, whole.store), "training"))


def test_timings_add_up_to_the_receipts(whole: Made) -> None:
    prefix = Identity(whole.spec).prefix("chips")
    receipts = [
        Receipt.from_bytes(whole.store.get(key), key) for key in whole.store.list(layout.receipts_prefix(prefix)[:-1])
    ]
    row = next(row for row in rows_of(section(whole.page, "timings")) if row[0] == "chips")
    assert row[1] == plain(words.count(len(receipts)))
    assert row[2] == plain(words.duration(sum(r.seconds for r in receipts)))
    assert row[5] == plain(words.size(sum(r.bytes_in for r in receipts)))
    assert row[7] == plain(words.size(sum(sum(r.outputs.values()) for r in receipts)))


def reckoning(page: str) -> list[list[str]]:
    """Rows of the table of estimates."""
    return rows_of(page[page.index('id="reckoning"') :].partition("</table>")[0])


def test_estimate_and_receipts_stand_side_by_side(whole: Made) -> None:
    page = section(whole.page, "timings")
    rows = {row[0]: row for row in reckoning(page)}
    lines = estimate(whole.spec, Results(whole.spec, whole.store).plan, BUILT_IN)
    assert list(rows)[1:-1] == [line.work.name for line in lines if line.work.stage != "report"]
    line = next(line for line in lines if line.work.name == "chips s2")
    took = taken(line.work, Results(whole.spec, whole.store).receipts)
    done, wanted = took.shards, line.amounts.requests
    assert rows["chips s2"][1] == f"{done} of {done}"
    assert rows["chips s2"][4] == plain(f"{words.count(round(wanted))} / {words.count(round(took.requests))}")
    assert rows["chips s2"][5] == f"{took.requests / wanted:.2f}"
    assert BUILT_IN.source in page
    assert "EUR" not in page


def test_a_run_that_was_given_prices_shows_money(copied: Made) -> None:
    prices = "{currency: EUR, as_of: 2026-01-01, source: our contract, per_cpu_hour: 3600, per_1000_requests: 0, "
    prices += "per_fetched_gb: 0, per_1000_writes: 0, per_stored_gb_month: 0}"
    copied.store.put(f"{copied.spec.name}/{layout.PRICES}", prices.encode())
    page = section(page_of(copied.spec, copied.store), "timings")
    rows = reckoning(page)
    assert rows[0][-2:] == ["EUR", "ratio"]
    chips = next(row for row in rows if row[0] == "chips s2")
    assert chips[-1] == chips[3], "money is CPU time here"
    assert "Prices of 2026-01-01: our contract." in page


def test_a_run_without_learning_says_so(published: Made) -> None:
    for name, said in (
        ("training", "No encoder has been trained"),
        ("reconstruction", "No encoder has been trained"),
        ("embeddings", "No chip has been embedded"),
        ("probe", "The probe has not been run"),
        ("timings", "Without a receipt so far: pretrain, embed and probe."),
    ):
        assert said in words_of(section(published.page, name)), name
    assert "<svg" in section(published.page, "coverage")
    assert "<img" in section(published.page, "gallery")


def test_a_run_without_labels_or_probe_says_so(make_spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    spec = make_spec("probe=null")
    sensors = {name: sensor for name, sensor in spec.sensors.items() if name in ("s1", "dem")}
    spec, store = spec.model_copy(update={"sensors": sensors}), parse_store(str(tmp_path))
    do(spec, store, "publish")
    page = page_of(spec, store)
    assert "asks for no probe" in words_of(section(page, "probe"))
    assert "There is no probe" in words_of(page[: page.index("<nav")])
    assert "mean share of" not in section(page, "split")
    assert [re.sub("<.*", "", t) for t in re.findall(r"<th><b>(.*?)</b>", section(page, "gallery"))] == ["s1", "dem"]


def test_a_run_in_which_everything_is_masked_says_so(make_spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    spec = make_spec("probe=null", f"sensors.s2.scl_invalid={list(range(12))}")
    spec, store = spec.model_copy(update={"sensors": {"s2": spec.sensors["s2"]}}), parse_store(str(tmp_path))
    do(spec, store, "publish")
    page = page_of(spec, store)
    assert "No chip holds a single valid pixel" in words_of(section(page, "gallery"))
    assert 'class="chip state-clouded_out"' in section(page, "coverage")
    assert "every observation is cloud or otherwise masked" in words_of(section(page, "coverage"))
    assert "every observation is masked" in words_of(section(page, "missing"))


def test_embeddings_without_a_vector_are_said(copied: Made) -> None:
    prefix = Identity(copied.spec).prefix("embed")
    for key in copied.store.list(f"{prefix}/chips/pretrained-0"):
        copied.store.put(key, parquet_bytes(read_table(copied.store, key).slice(0, 0)))
    html = section(page_of(copied.spec, copied.store), "embeddings")
    assert "No chip has an embedding" in words_of(html)
    assert html.count("<svg") == 1  # the untrained twin's


def test_an_unpublished_run_has_no_report(make_spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run the stage that writes it"):
        page_of(make_spec(), parse_store(str(tmp_path)))


@pytest.mark.parametrize(
    ("stage", "name"),
    [("probe", "summary.json"), ("probe", "probe.parquet"), ("pretrain", "reconstructions-seed-0.npz")],
)
def test_damaged_results_are_named(copied: Made, stage: str, name: str) -> None:
    key = layout.metrics(Identity(copied.spec).prefix(stage), name)
    copied.store.put(key, copied.store.get(key)[:40])
    with pytest.raises(DataError, match=re.escape(name)):
        page_of(copied.spec, copied.store)
