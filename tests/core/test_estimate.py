"""Estimates: exact where the plan tells, by rates elsewhere; prices; refusals."""

import re
from datetime import date

import pytest

from eo_batch.core.calibration import BUILT_IN, Calibration, Rates
from eo_batch.core.errors import PlanError, SpecError, UsageError
from eo_batch.core.estimate import calibrated, check_cost, estimate, work_of
from eo_batch.core.plan import Plan
from eo_batch.core.prices import Amounts, Prices
from eo_batch.core.receipts import Receipt
from eo_batch.core.spec import RunSpec
from tests.core.samples import scene
from tests.core.test_plan import ONE_BLOCK, at, plan_of

PRICES = Prices(
    currency="EUR",
    as_of=date(2026, 1, 1),
    source="a test",
    per_cpu_hour=2,
    per_1000_requests=3,
    per_fetched_gb=5,
    per_1000_writes=7,
    per_stored_gb_month=11,
    months_stored=2,
)


def planned() -> tuple[RunSpec, Plan]:
    """One block of 4 x 4 chips, three months, with two scenes in July and one in August."""
    run = at(
        ONE_BLOCK, pretrain={"seeds": [0, 1], "steps": 50, "batch": 10, "objective": {"kind": "mae", "mask_ratio": 0.5}}
    )
    moments = ("2023-07-01T10:00:00", "2023-07-06T10:00:00", "2023-08-01T10:00:00")
    return run, plan_of(run, [scene(f"s{i}", moment) for i, moment in enumerate(moments)])


def test_work_is_what_the_plan_says() -> None:
    run, plan = planned()
    work = {one.name: one for one in work_of(run, plan)}
    chips, bins, shards = len(plan.cells), 3, 3
    assert list(work) == ["plan", "chips s2", "publish", "pretrain", "embed", "report"]
    assert len(plan.blocks) == 1
    assert work["chips s2"].key == "chips/s2-l2a"
    assert work["chips s2"].shards == shards
    assert work["chips s2"].reads == 3 * 3, "three scenes; B04, B08 and the scene classification of each"
    assert work["chips s2"].source_bytes == 3 * (4 * 256) ** 2 * 2 * 2, "two bands of two bytes"
    assert work["chips s2"].product == pytest.approx(shards * chips * 256**2 * 2 * 2 / 1e9)
    assert work["publish"].effort == chips * bins / 1000
    tokens, encoder, decoder = 32**2, 12 * 2 * 96**2, 12 * 96**2  # patches of 8 pixels; the default networks
    assert work["pretrain"].shards == 2
    assert work["pretrain"].effort == pytest.approx(2 * 50 * 10 * 6 * tokens * (encoder / 2 + decoder) / 1e12)
    assert work["embed"].shards == 2 * bins
    vectors = 2 * 2 * bins * chips
    assert work["embed"].product == vectors * 96 / 1e6
    assert work["embed"].effort == pytest.approx(vectors * 2 * tokens * encoder / 1e12)


def test_rates_turn_work_into_amounts() -> None:
    run, plan = planned()
    rates = Rates(
        cpu_s_per_effort=100,
        stored_bytes_per_product=1e8,
        objects_per_shard=3,
        requests_per_read=4,
        fetched_bytes_per_source_byte=0.5,
    )
    lines = estimate(run, plan, Calibration(source="here", rates={"chips/s2-l2a": rates}))
    line = next(line for line in lines if line.work.stage == "chips")
    source = 3 * 1024**2 * 4
    stored = 3 * len(plan.cells) * 256**2 * 4 * 0.1
    expected = Amounts(3, source / 1e9 * 100, 36, source / 2, 12, stored)
    assert line.amounts.__dict__ == pytest.approx(expected.__dict__)
    assert line.source == "here"
    assert {other.source for other in lines if other is not line} == {BUILT_IN.source}


def test_a_kind_that_was_not_measured_counts_as_all_sensors_and_says_so() -> None:
    own = Calibration(source="here", rates={"chips/*": BUILT_IN.rates["chips/*"]})
    rates, source = own.find("chips/points")
    assert rates == BUILT_IN.rates["chips/*"]
    assert re.match("here, all sensors, since chips/points", source)


def test_prices_add_up() -> None:
    amounts = Amounts(1, cpu_s=7200, requests=5000, fetched_bytes=2e9, writes=3000, stored_bytes=4e9)
    assert PRICES.cost(amounts) == pytest.approx(2 * 2 + 5 * 3 + 2 * 5 + 3 * 7 + 4 * 11 * 2)
    assert PRICES.cost(amounts + amounts) == pytest.approx(2 * PRICES.cost(amounts))


def test_a_dear_run_is_refused_by_its_dearest_stage() -> None:
    run, plan = planned()
    dear = Rates(cpu_s_per_effort=3.6e6, stored_bytes_per_product=0, objects_per_shard=0)
    lines = estimate(run, plan, Calibration(source="here", rates={"embed": dear}))
    cost = PRICES.cost(sum((line.amounts for line in lines), Amounts()))
    check_cost(lines, PRICES, cost)
    with pytest.raises(PlanError, match=rf"would cost {cost:.2f} EUR, over max_cost=1; embed takes .*pretrain.seeds"):
        check_cost(lines, PRICES, 1)


def test_only_complete_stages_are_measured() -> None:
    run, plan = planned()
    keys = plan.shards.keys
    made = [
        Receipt(
            stage="chips",
            shard=key,
            inputs="",
            outputs={"cube.zarr/a": 100, "b": 50},
            bytes_in=10**6,
            requests=7,
            cpu_seconds=2,
        )
        for key in keys
    ]
    with pytest.raises(UsageError, match="no stage of sample is complete"):
        calibrated(run, plan, {"chips": made[1:]}, "here")
    found = calibrated(run, plan, {"chips": made}, "here")
    assert set(found.rates) == {"chips/s2-l2a", "chips/*"}
    assert found.rates["chips/s2-l2a"].objects_per_shard == 2
    assert found.rates["chips/s2-l2a"].stored_bytes_per_shard == 50, "beside the cube"
    line = next(line for line in estimate(run, plan, found) if line.work.stage == "chips")
    assert line.amounts.__dict__ == pytest.approx(Amounts(3, 6, 21, 3e6, 9, 450).__dict__, rel=1e-3)


@pytest.mark.parametrize("wrong", ["currency: euro", "per_cpu_hour: -1", "per_cpu_hours: 1", "[", "per_cpu_hour: .nan"])
def test_wrong_price_tables_are_refused(wrong: str) -> None:
    with pytest.raises(SpecError, match=r"^p.yaml"):
        Prices.parse(wrong, "p.yaml")
