"""Every objective, from published chips to the report's page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from eo_batch.core import layout
from eo_batch.core.errors import ShardFailed, SpecError
from eo_batch.core.learning_plan import learning_arrays
from eo_batch.core.planet import PlanetSpec
from eo_batch.core.specfile import parse_spec
from eo_batch.entry.drive import drive
from eo_batch.entry.run import Run
from eo_batch.io.store import parse_store
from eo_batch.io.tables import read_table
from eo_batch.models.card import ModelCard
from eo_batch.runners.local import LocalRunner
from eo_batch.settings import Settings
from eo_batch.stages.simulate import simulate
from tests.stages.test_learning import Silent, copy_of

PLANET = PlanetSpec.tiny(s2_dates=1, collections=("sentinel-2-l2a", "sentinel-1-rtc", "landcover", "dem"))
SPEC = """
name: objectives
time: {start: 2023-06-01, end: 2023-07-01, step: month}
grid: {chip_px: 16, gsd_m: 10, block_chips: 8}
sensors:
  s2: {kind: s2-l2a, bands: [B04, B08]}
  s1: {kind: s1, orbit: ascending}
  dem: {kind: dem, collections: [dem]}
  labels: {kind: classes, collections: [landcover], assets: {class: map}}
split: {cell_km: 0.8, test: 0.4, seed: 2}
pretrain: {steps: 6, batch: 8, warmup_steps: 2, checkpoint_every_steps: 3, validate_every_steps: 3}
probe: {target: labels, classes: [10, 20, 30, 40], folds: 3}
"""
ENCODER = "pretrain.encoder={dim: 32, depth: 1, heads: 2, pool: cls}"
OBJECTIVES = {
    "dino": ("{kind: dino, prototypes: 32, hidden: 16, bottleneck: 8, local_views: 1}", {"dino"}),
    "simclr": ("{kind: simclr, hidden: 16, projection: 8}", {"simclr"}),
    "clip": (
        "{kind: clip, projection: 8, drop_bands: 0.2}",
        {"s2_10m+s1_10m", "s2_10m+dem_10m", "s1_10m+dem_10m"},
    ),
}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("objectives")
    catalog = simulate(PLANET, parse_store(str(folder / "planet")))
    spec = parse_spec(SPEC, [f"catalog={catalog}", f"area.bbox={list(PLANET.area_bbox)}", ENCODER], "test")
    run = Run(spec, parse_store(str(folder / "store")), Settings())
    run.submit()
    drive(run, LocalRunner(), Silent(), until="publish")
    return run


def finished(published: Run, folder: Path, *overrides: str) -> Run:
    """The run with another pretraining, to its end."""
    run = copy_of(published, folder)
    spec = parse_spec(
        SPEC, [f"catalog={run.spec.catalog}", f"area.bbox={list(PLANET.area_bbox)}", ENCODER, *overrides], "x"
    )
    run = Run(spec, run.store, run.settings)
    run.submit()
    drive(run, LocalRunner(), Silent())
    return run


def card_of(run: Run) -> ModelCard:
    key = layout.model_card(run.identity.prefix("pretrain"), 0)
    return ModelCard.from_bytes(run.store.get(key), key)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_run_with_another_objective_ends_with_a_report(published: Run, tmp_path: Path, name: str) -> None:
    section, terms = OBJECTIVES[name]
    run = finished(published, tmp_path, f"pretrain.objective={section}")
    curve = read_table(run.store, layout.losses(run.identity.prefix("pretrain"), 0))
    assert set(curve.column_names) == {"step", "lr"} | {
        f"{part}{term}" for part in ("train", "val") for term in ("", *(f".{term}" for term in terms))
    }
    assert np.isfinite(curve["train"].to_numpy()).all()
    card = card_of(run)
    assert card.objective["kind"] == name
    assert card.encoder.pool == "cls"
    page = run.store.get(f"{run.identity.prefix('report')}/{layout.REPORT_PAGE}").decode()
    assert "nothing was reconstructed" in page
    assert "of 1 is what predicting" not in page


def test_a_residual_network_is_trained_and_embeds(published: Run, tmp_path: Path) -> None:
    run = finished(
        published, tmp_path, "pretrain.encoder={kind: resnet18, width: 8}", "pretrain.objective={kind: simclr}"
    )
    card = card_of(run)
    assert card.encoder.kind == "resnet18"
    assert json.loads(card.to_bytes())["mlm:output"][0]["result"]["shape"] == [-1, 64]
    summary = json.loads(run.store.get(layout.metrics(run.identity.prefix("probe"), "summary.json")))
    assert summary["encoders"]["pretrained"]["r2_mean"] != summary["encoders"]["random-init"]["r2_mean"]


def test_heights_are_learnt_and_not_seen(published: Run, tmp_path: Path) -> None:
    run = finished(published, tmp_path, "pretrain.elevation={array: dem_10m}")
    assert [found.array.name for found in learning_arrays(run.spec)] == ["s2_10m", "s1_10m"]
    assert [array.shape.name for array in card_of(run).arrays] == ["s2_10m", "s1_10m"]
    curve = read_table(run.store, layout.losses(run.identity.prefix("pretrain"), 0)).to_pandas()
    main = curve[["train.s2_10m", "train.s1_10m"]].mean(axis=1)
    np.testing.assert_allclose(curve["train"], main + 0.5 * curve["train.elevation"], rtol=1e-5)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["pretrain.elevation={array: dem_30m}"], "dem_30m is not in the cube; choose from .*dem_10m"),
        (["pretrain.elevation={array: dem_10m, band: slope}"], "dem_10m has elevation, not slope"),
        (["pretrain.elevation={array: dem_10m}", "pretrain.arrays=[s1_10m, dem_10m]"], "leave it out of one of them"),
        (["pretrain.objective={kind: clip}", "pretrain.arrays=[s1_10m]"], "only s1_10m; add another"),
    ],
)
def test_what_can_not_be_trained_is_refused_before_anything_is_searched(
    tmp_path: Path, overrides: list[str], said: str
) -> None:
    nowhere = [f"catalog={tmp_path}/none.json", "area.bbox=[14.0, 47.0, 14.1, 47.1]"]
    run = Run(parse_spec(SPEC, [*nowhere, *overrides], "x"), parse_store(str(tmp_path / "store")), Settings())
    run.submit()
    with pytest.raises(ShardFailed, match=said):
        drive(run, LocalRunner(), Silent(), until="plan")


def test_a_masked_autoencoder_needs_patches() -> None:
    with pytest.raises(SpecError, match="mae hides patches, and resnet18 has none"):
        parse_spec(SPEC, ["catalog=x", "area.bbox=[1, 2, 3, 4]", "pretrain.encoder={kind: resnet18}"], "x")


def test_fields_of_an_objective_are_named_as_they_are_written() -> None:
    with pytest.raises(
        SpecError, match=r"pretrain\.objective\.mask_rate=0\.5 is not a known key; did you mean mask_ratio"
    ):
        parse_spec(SPEC, ["catalog=x", "area.bbox=[1, 2, 3, 4]", "pretrain.objective.mask_rate=0.5"], "x")
    with pytest.raises(SpecError, match=r"pretrain\.objective\.temperature=0"):
        parse_spec(
            SPEC, ["catalog=x", "area.bbox=[1, 2, 3, 4]", "pretrain.objective={kind: clip, temperature: 0}"], "x"
        )


def test_an_objective_that_is_none_is_told_with_those_that_are() -> None:
    with pytest.raises(SpecError, match=r"(?s)pretrain\.objective.*mae.*dino"):
        parse_spec(SPEC, ["catalog=x", "area.bbox=[1, 2, 3, 4]", "pretrain.objective={kind: mea}"], "x")
