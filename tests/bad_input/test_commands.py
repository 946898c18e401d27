"""What the command line says to a person's mistakes: one line, the right exit code, no traceback."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from eo_batch.core.errors import CatalogError, PlanError, ShardFailed, StoreError, UsageError
from eo_batch.io.store import parse_store
from tests.io.web import Web, serving, status
from tests.io.worlds import SPEC, WEST, go, spec_of

ROOT = Path(__file__).resolve().parents[2]
EO_BATCH = [sys.executable, "-c", "from eo_batch.cli import main; main()"]
USAGE = UsageError.exit_code


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """A surrounding in which eo-batch is found and gives up soon."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "EO_BATCH_RETRIES": "0", "COLUMNS": "200", **(extra or {})}


def call(
    *words: str, folder: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a folder."""
    return subprocess.run(
        [*EO_BATCH, *words], cwd=folder, env=environment(env), capture_output=True, text=True, check=False, timeout=120
    )


def refused(*words: str, code: int, folder: Path, env: Mapping[str, str] | None = None) -> str:
    """The one line that a mistake is answered with."""
    done = call(*words, folder=folder, env=env)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == code, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert done.stderr.splitlines()[-1] == errors[0], "it comes last"
    assert len(errors[0]) < 1500
    return errors[0]


@pytest.fixture(scope="module")
def folder(planet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a spec, and a finished run of it in `runs`."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "spec.yaml").write_text(f"catalog: {planet}/items.json\narea: {{bbox: {list(WEST)}}}\n{SPEC}")
    run, _ = go(spec_of(planet / "items.json", WEST), parse_store(str(folder / "runs")))
    run.submit()
    return folder


OVER_THE_LINE = "area={geojson: {type: Polygon, coordinates: [[[179, 0], [-179, 0], [-179, 1], [179, 1], [179, 0]]]}}"
WRONG_SPECS: dict[str, tuple[list[str], str]] = {
    "unknown key": (["gird.chip_px=32"], r"gird=.* is not a known key; did you mean grid\?"),
    "unknown key below": (["grid.chip_pix=32"], r"grid\.chip_pix=32 is not a known key; did you mean chip_px\?"),
    "not a number": (["grid.chip_px=many"], r"grid\.chip_px=\"many\""),
    "patch": (["grid.chip_px=36", "pretrain.encoder.patch_px=8"], r"grid\.chip_px=36 is not a multiple of .*use"),
    "empty area": (["area.bbox=[11.99, 48, 11.99, 48.01]"], r"area\.bbox=.* is empty; give south < north"),
    "flat area": (["area.bbox=[11.99, 48, 12, 48]"], r"area\.bbox=.* is empty"),
    "upside down": (["area.bbox=[11.99, 48.01, 12, 48]"], r"area\.bbox=.* is empty; give south < north"),
    "off the globe": (["area.bbox=[190, 48, 191, 49]"], r"outside longitude ±180"),
    "three numbers": (["area.bbox=[1, 2, 3]"], r"area\.bbox"),
    "two areas": (["area.geojson={}"], r"give exactly one of area\.bbox and area\.geojson"),
    "antimeridian": ([OVER_THE_LINE], r"seems to cross the antimeridian; cut it there"),
    "a line": (["area={geojson: {type: LineString, coordinates: [[0, 0], [1, 1]]}}"], r"only polygons have an area"),
    "bow tie": (
        ["area={geojson: {type: Polygon, coordinates: [[[0, 0], [1, 1], [1, 0], [0, 1], [0, 0]]]}}"],
        r"not a valid polygon",
    ),
    "reversed dates": (
        ["time.start=2024-01-01"],
        r"time\.end=2023-07-01 is not after time\.start=2024-01-01; swap them",
    ),
    "no date": (["time.start=yesterday"], r"time\.start=\"yesterday\""),
    "unknown step": (["time.step=fortnight"], r"time\.step='fortnight' is unknown; use all, month"),
    "unknown band": (["sensors.s2.bands=[B99]"], r"'B99' is no band of s2-l2a; known: B01"),
    "unknown kind": (["sensors.s2.kind=s3"], r"sensors\.s2\.kind=\"s3\""),
    "bad name": (["name=My Run"], r"name=\"My Run\""),
    "no override": (["grid"], r"override 'grid' is not of the form section\.field=value"),
    "no yaml": (["grid.chip_px=[1"], r"is not YAML; quote it"),
    "below a value": (["name.first=a"], r"name is a value, not a section"),
}


@pytest.mark.parametrize("name", WRONG_SPECS)
def test_wrong_specs(folder: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    overrides, words = WRONG_SPECS[name]
    assert re.search(words, refused_here(folder, capfd, "plan", "spec.yaml", *overrides))


def refused_here(folder: Path, capfd: pytest.CaptureFixture[str], *words: str, code: int = USAGE) -> str:
    """As `refused`, in this process, without the cost of one for each mistake."""
    ended, captured = here(folder, capfd, *words)
    *progress, told = captured.err.splitlines()
    assert ended == code, told
    assert not [line for line in progress if line.startswith(("error", "Traceback", " "))]
    assert told.startswith("error: ")
    return told


def printed_here(folder: Path, capfd: pytest.CaptureFixture[str], *words: str) -> str:
    """What a command that succeeds prints, in this process."""
    ended, captured = here(folder, capfd, *words)
    assert ended == 0, captured.err
    return str(captured.out)


def here(folder: Path, capfd: pytest.CaptureFixture[str], *words: str) -> tuple[object, Any]:
    """Exit code and output of a command in this process."""
    from eo_batch.cli import main

    before, argv = Path.cwd(), sys.argv
    os.chdir(folder)
    sys.argv = ["eo-batch", *words]
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        os.chdir(before)
        sys.argv = argv
    return ended.value.code, capfd.readouterr()


def test_specs_that_are_none(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "list.yaml").write_text("- a\n- b\n")
    (folder / "broken.yaml").write_text("name: [a\n")
    (folder / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    assert "spec gone.yaml can't be read" in refused_here(folder, capfd, "plan", "gone.yaml")
    assert "can't be read" in refused_here(folder, capfd, "plan", ".")
    assert "holds no spec" in refused_here(folder, capfd, "plan", "list.yaml")
    assert "broken.yaml is not YAML" in refused_here(folder, capfd, "plan", "broken.yaml")
    assert "can't be read" in refused_here(folder, capfd, "plan", "binary.yaml")
    assert "catalog is not set" in refused_here(folder, capfd, "plan", "spec.yaml", "catalog=")


WORDS: dict[str, tuple[list[str], str]] = {
    "option": (["run", "spec.yaml", "--nope"], "No such option: --nope"),
    "command": (["rum", "spec.yaml"], "No such command 'rum'"),
    "missing word": (["why", "--run", "t"], "Missing argument"),
    "no number": (["shard", "--run", "t", "chips", "first"], "valid integer"),
    "workers": (["run", "spec.yaml", "--workers", "few"], "'--workers'"),
    "store scheme": (
        ["status", "--run", "t", "--store", "ftp://host/folder"],
        "store ftp:// is not known; use file, s3",
    ),
    "store with a token": (
        ["status", "--run", "t", "--store", "s3://bucket/a?token=SECRET"],
        "take user, token and query out",
    ),
    "no run": (["status", "--run", "u"], "runs/u/run.yaml is not there; start the run with `eo-batch run SPEC`"),
    "no run to ask why": (["why", "--run", "u", "x"], "is not there"),
    "no folder": (["status", "--run", "t", "--store", "elsewhere"], "is not there"),
    "no stage": (["shard", "--run", "t", "chops", "0"], "stage 'chops' is not part of t; its stages are plan, chips"),
    "no shard": (["shard", "--run", "t", "chips", "99"], "chips has no shard 99; it has 0 to 7"),
    "no key": (["why", "--run", "t", "nothing"], "'nothing' is no chip, scene or shard"),
    "no until": (["run", "spec.yaml", "--until", "chops"], "--until 'chops' is no stage of this run"),
    "planet": (["simulate", "p", "sed=7"], "sed="),
    "planet file": (["simulate", "p", "--planet", "gone.yaml"], "gone.yaml can't be read"),
    "planet override": (["simulate", "p", "seed"], "not of the form field=value"),
}


@pytest.mark.parametrize("name", WORDS)
def test_wrong_words(folder: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    argv, words = WORDS[name]
    told = refused_here(folder, capfd, *argv)
    assert words in told
    assert "SECRET" not in told


def test_settings_that_can_not_be_read(folder: Path) -> None:
    env = {"EO_BATCH_WORKERS": "many"}
    assert "EO_BATCH_WORKERS='many'" in refused("run", "spec.yaml", code=USAGE, folder=folder, env=env)


def test_catalogues_have_their_own_exit_code(
    folder: Path, web: Web, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EO_BATCH_RETRIES", "0")

    def told(code: int, *overrides: str) -> str:
        words = ["--until", "chips", "--workers", "0", "--store", "other"]
        return refused_here(folder, capfd, "run", "spec.yaml", *overrides, *words, code=code)

    assert "is not there; check the address" in told(CatalogError.exit_code, "catalog=nowhere.json")
    with serving(folder) as gone:
        url = gone.url
    assert "does not answer" in told(CatalogError.exit_code, f"catalog={url}/c.json")
    elsewhere = "area.bbox=[30, 10, 30.1, 10.1]"
    assert "it holds landcover, sentinel-2-l2a" in told(PlanError.exit_code, elsewhere)
    assert "limits.shard_memory_gb" in told(PlanError.exit_code, "limits.shard_memory_gb=0.1")
    assert not list((folder / "other").glob("**/scenes.parquet"))
    web.fault(r"/B04.tif", status(404))
    assert "limits.max_missing" in told(ShardFailed.exit_code, f"catalog={web.url}/items.json")


def test_workers_tell_the_same(folder: Path, web: Web) -> None:
    web.fault(r"/B04.tif", status(404))
    words = [
        "run",
        "spec.yaml",
        f"catalog={web.url}/items.json",
        "--until",
        "chips",
        "--workers",
        "2",
        "--store",
        "two",
    ]
    assert "limits.max_missing" in refused(*words, code=ShardFailed.exit_code, folder=folder)


def test_stores_have_their_own_exit_code(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["run", "spec.yaml", "--until", "plan", "--store", "spec.yaml/inside"]
    assert "spec.yaml/inside" in refused_here(folder, capfd, *words, code=StoreError.exit_code)


def test_the_environment_names_the_store(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EO_BATCH_STORE", str(folder / "runs"))
    printed = json.loads(printed_here(tmp_path, capfd, "status", "--run", "t", "--json"))
    stages = {row["stage"]: row for row in printed["stages"]}
    assert (stages["chips"]["done"], stages["chips"]["shards"]) == (8, 8)
    assert stages["publish"]["done"] == 1
    assert list(tmp_path.iterdir()) == []


def test_why_tells_what_happened_to_a_chip(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    printed = printed_here(folder, capfd, "why", "--run", "t", "u32n-320m-r16627-c02259")
    assert re.search(r"u32n-320m-r16627-c02259 s2 2023-06: ok, [\d.]+ % valid", printed)


def test_running_again_does_nothing_and_one_shard_is_skipped(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def receipts() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (folder / "runs").glob("t/*/receipts/**/*.json")}

    before = receipts()
    assert len(before) == 10
    ended, captured = here(folder, capfd, "run", "spec.yaml", "--until", "publish", "--workers", "0")
    assert ended == 0
    assert "chips: already done" in captured.err
    assert "done" in printed_here(folder, capfd, "shard", "--run", "t", "chips", "0")
    assert receipts() == before


def test_a_plan_is_printed_and_nothing_written(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    printed = json.loads(printed_here(tmp_path, capfd, "plan", str(folder / "spec.yaml"), "--json"))
    assert printed["chips"] == 6
    assert {row["sensor"]: row["shards"] for row in printed["sensors"]} == {"s2": 4, "labels": 4}
    assert all(row["read_bytes"] > 0 and row["write_bytes"] > 0 for row in printed["sensors"])
    assert list(tmp_path.iterdir()) == []


def test_the_schema_is_a_json_schema_that_knows_good_specs_from_bad(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    schema = json.loads(printed_here(folder, capfd, "schema"))
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.validators.validator_for(schema)
    validator.check_schema(schema)
    import yaml

    good = json.loads(json.dumps(yaml.safe_load((folder / "spec.yaml").read_text()), default=str))
    validator(schema).validate(good)
    assert not validator(schema).is_valid({**good, "gird": {}})
    assert schema["properties"]["catalog"]["description"]


def test_a_store_in_memory_is_filled_by_this_process(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Workers of their own would each see an empty memory."""
    printed_here(folder, capfd, "run", "spec.yaml", "--store", "memory://commands", "--until", "publish", "-w", "2")
    shown = json.loads(printed_here(folder, capfd, "status", "--store", "memory://commands", "--json"))
    assert {row["stage"]: row["done"] == row["shards"] for row in shown["stages"]}["publish"]


def test_help_comes_at_once() -> None:
    took_s = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = call("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took_s.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert done.returncode == 0
        assert "simulate" in done.stdout
    assert min(took_s) < 0.5, "processor time, which a busy machine does not stretch"
