"""Estimates beside what real small runs took; and a run that is too dear writes nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from eo_batch.cli import main
from eo_batch.core.calibration import Calibration
from eo_batch.core.errors import PlanError, UsageError
from eo_batch.core.estimate import estimate, taken, total
from eo_batch.core.specfile import dump_spec
from eo_batch.entry.estimates import calibrate
from eo_batch.entry.run import Run
from eo_batch.io.store import parse_store
from tests.io.worlds import WEST, chips_receipts, go, planet, spec_of

__all__ = ["planet"]
EXAMPLE = Path(__file__).resolve().parents[2] / "prices" / "example.yaml"


@pytest.fixture(scope="module")
def small(planet: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A part of the planet, published."""
    run, _ = go(spec_of(planet / "items.json", WEST), parse_store(str(tmp_path_factory.mktemp("small"))))
    run.submit()
    return run


def test_another_run_is_foretold_within_a_factor_of_two(
    planet: Path, small: Run, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    calibration = calibrate(small)
    assert {"plan", "chips/s2-l2a", "chips/classes", "chips/*", "publish"} == set(calibration.rates)
    assert Calibration.parse(calibration.model_dump_json(), "c") == calibration
    whole, _ = go(spec_of(planet / "items.json"), parse_store(str(tmp_path)), "chips")
    assert len(whole.plan.cells) > 1.5 * len(small.plan.cells), "another size of run"
    receipts = {"chips": chips_receipts(whole)}
    lines = [line for line in estimate(whole.spec, whole.plan, calibration) if line.work.stage == "chips"]
    for line in lines:
        sources = [r.sources for r in receipts["chips"] if r.shard.startswith(f"{line.work.sensor}/")]
        assert line.work.reads == sum(map(len, sources)), "bands of scenes are known exactly"
        assert taken(line.work, receipts).shards == line.amounts.shards
        assert taken(line.work, receipts).writes == line.amounts.writes
    wanted, took = total([line.amounts for line in lines]), total([taken(line.work, receipts) for line in lines])
    for name in ("cpu_s", "requests", "fetched_bytes", "stored_bytes"):
        ratio = getattr(took, name) / getattr(wanted, name)
        record_property(name, round(ratio, 2))
        assert 0.5 < ratio < 2, (name, ratio)


def command(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["eo-batch", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_commands_estimate_refuse_and_keep(
    small: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, store = tmp_path / "spec.yaml", tmp_path / "store"
    spec.write_text(dump_spec(small.spec))
    source = small.store.url
    assert command(monkeypatch, "calibrate", "--run", "t", "--store", source) == 0
    calibration = tmp_path / "calibration.yaml"
    calibration.write_text(capsys.readouterr().out)
    terms = ["--prices", EXAMPLE, "--calibration", calibration]

    assert command(monkeypatch, "plan", spec, *terms, "--json") == 0
    told = json.loads(capsys.readouterr().out)["estimate"]
    assert told["currency"] == "USD"
    assert told["total"]["cost"] == pytest.approx(sum(stage["cost"] for stage in told["stages"]))
    assert told["total"]["cost"] > 0
    assert command(monkeypatch, "plan", spec) == 0
    assert "No price table" in capsys.readouterr().out

    for verb, more in (("plan", []), ("run", ["--store", store])):
        assert command(monkeypatch, verb, spec, *terms, "--max-cost", "1e-9", *more) == PlanError.exit_code
        assert "over max_cost=1e-09" in capsys.readouterr().err
        assert command(monkeypatch, verb, spec, "--max-cost", "1", *more) == UsageError.exit_code
        assert "--prices" in capsys.readouterr().err
    assert not store.exists(), "refused before anything is written"

    enough = ["--max-cost", "10", "--store", store, "--until", "plan", "--workers", "0"]
    assert command(monkeypatch, "run", spec, *terms, *enough) == 0
    kept = Calibration.parse((store / "t" / "calibration.json").read_text(), "kept")
    assert kept == Calibration.parse(calibration.read_text(), "given")
    assert command(monkeypatch, "run", spec, *terms, "--store", store, "--max-cost", "0") == PlanError.exit_code
