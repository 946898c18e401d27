"""What a run will take, from the columns of its plan and a calibration. Pure, and quick for a continent.

| stage | effort, which CPU time grows with | product, which bytes grow with |
|---|---|---|
| `plan` | thousand shards | thousand shards |
| `chips` | GB of source pixels | GB of the cube's pixels, before compression |
| `publish` | thousand chips × sensors × bins | the same |
| `pretrain` | 10^12 operations | million weights |
| `embed` | 10^12 operations | million numbers |
| `probe` | thousand vectors | thousand vectors |
| `report` | page | page |
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eo_batch.core import layout
from eo_batch.core.calibration import Calibration, Rates
from eo_batch.core.errors import PlanError, UsageError
from eo_batch.core.learning import ClipSpec, DinoSpec, MaeSpec, ObjectiveSpec, ResNetSpec, SimClrSpec, TransformerSpec
from eo_batch.core.learning_plan import learning_arrays, learning_bins
from eo_batch.core.plan import Plan
from eo_batch.core.prices import Amounts, Prices
from eo_batch.core.receipts import Receipt
from eo_batch.core.spec import RunSpec

CHEAPER = {
    "chips": "a smaller area, a longer time.step, fewer bands, or a lower max_cloud_pct",
    "pretrain": "fewer pretrain.seeds or pretrain.steps, or a smaller pretrain.encoder",
    "embed": "fewer pretrain.seeds, a longer time.step, or a smaller pretrain.encoder",
    "probe": "fewer pretrain.seeds, or no probe",
}
"""What makes a stage cheaper; a smaller area does so for all."""


@dataclass(frozen=True)
class Work:
    """The work of one stage, or of one sensor's chips."""

    stage: str
    sensor: str | None
    """Of which the chips are; None in other stages."""
    key: str
    """Whose rates hold for it in a calibration."""
    shards: int
    effort: float
    """Units as in the table above."""
    product: float
    reads: int = 0
    """Bands of scenes over blocks that are read, scene classifications among them."""
    source_bytes: int = 0
    """Source pixels of the blocks, before compression."""

    @property
    def name(self) -> str:
        """Name for people."""
        return self.stage if self.sensor is None else f"{self.stage} {self.sensor}"

    def amounts(self, rates: Rates) -> Amounts:
        """What it takes at given rates."""
        return Amounts(
            self.shards,
            self.effort * rates.cpu_s_per_effort,
            self.reads * rates.requests_per_read,
            self.source_bytes * rates.fetched_bytes_per_source_byte,
            self.shards * (rates.objects_per_shard + 1),
            self.product * rates.stored_bytes_per_product + self.shards * rates.stored_bytes_per_shard,
        )


@dataclass(frozen=True)
class Line:
    """One line of an estimate."""

    work: Work
    amounts: Amounts
    source: str
    """The calibration that it rests on."""


def work_of(spec: RunSpec, plan: Plan) -> tuple[Work, ...]:
    """The work of every stage of a run, in order; of chips by sensor."""
    shards, seeds = plan.shards, len(spec.pretrain.seeds)
    thousands = len(shards) / 1000
    lines = [Work("plan", None, "plan", 1, thousands, thousands)]
    scenes = np.diff(shards.start)
    for name, sensor in spec.sensors.items():
        own = shards.of_sensor(name)
        bands = sum(len(array.read_names) for array in spec.arrays() if array.sensor == name)
        bands += sensor.kind == "s2-l2a"  # its scene classification
        source, made = int(shards.read_bytes[own].sum()), int(shards.write_bytes[own].sum())
        reads = int(scenes[own].sum()) * bands
        key = f"chips/{sensor.kind}"
        lines.append(Work("chips", name, key, int(own.sum()), source / 1e9, made / 1e9, reads, source))
    cells = shards.places.sum(1)
    outcomes = int(cells[shards.block].sum()) / 1000
    lines.append(Work("publish", None, "publish", 1, outcomes, outcomes))

    chosen, tokens, forward, weights, width = spec.pretrain, *_network(spec)
    samples, step = chosen.steps * chosen.batch, _step(chosen.objective, tokens, forward)
    pretrain = seeds * samples * step / 1e12
    lines.append(Work("pretrain", None, "pretrain", seeds, pretrain, seeds * weights / 1e6))

    cells_of = dict(zip(plan.blocks, cells.tolist(), strict=True))
    learnt = learning_bins(spec, plan.blocks, shards).values()
    embed = seeds * sum(len(blocks) for blocks in learnt)
    # Of each encoder and of its untrained twin.
    vectors = 2 * seeds * sum(cells_of[block] for blocks in learnt for block in blocks)
    lines.append(Work("embed", None, "embed", embed, vectors * forward / 1e12, vectors * width / 1e6))
    if spec.probe is not None:
        lines.append(Work("probe", None, "probe", 1, vectors / 1000, vectors / 1000))
    return (*lines, Work("report", None, "report", 1, 1, 1))


def _network(spec: RunSpec) -> tuple[int, float, float, int]:
    """Of the encoder: tokens of a chip, operations of a forward pass over it, weights, and length of an embedding.

    A forward pass of a transformer takes 2 operations a weight and token (Kaplan et al. 2020, arXiv 2001.08361).
    Weights are those of attention (4 dim²) and of the hidden layers; attention's own products are left out. ResNet-18
    takes 1.8e9 multiplications and additions for 224 x 224 pixels (He et al. 2016, arXiv 1512.03385, table 1), and has
    11.7e6 weights.
    """
    net, arrays = spec.pretrain.encoder, learning_arrays(spec)
    if isinstance(net, ResNetSpec):
        px, wider = max(found.array.chip_px for found in arrays), (net.width / 64) ** 2
        return 0, 2 * 1.8e9 * wider * px**2 / 224**2, 11.7e6 * wider, 8 * net.width
    tokens, weights = sum((found.array.chip_px // found.patch_px) ** 2 for found in arrays), _weights(net)
    return tokens, 2 * tokens * weights, weights, net.dim


def _weights(net: TransformerSpec) -> float:
    return (4 + 2 * net.mlp_ratio) * net.depth * net.dim**2


def _step(objective: ObjectiveSpec, tokens: int, forward: float) -> float:
    """Operations of a training step for a chip. A backward pass takes twice a forward pass."""
    match objective:
        case MaeSpec():
            return 3 * ((1 - objective.mask_ratio) * forward + 2 * tokens * _weights(objective.decoder))
        case DinoSpec():
            students = 2 + objective.local_views * objective.local_share**2
            return (3 * students + 2) * forward
        case SimClrSpec():
            return 3 * 2 * forward
        case ClipSpec():
            return 3 * forward


def estimate(spec: RunSpec, plan: Plan, calibration: Calibration) -> tuple[Line, ...]:
    """What every stage of the whole run takes, whatever is done already."""
    found = ((work, *calibration.find(work.key)) for work in work_of(spec, plan))
    return tuple(Line(work, work.amounts(rates), source) for work, rates, source in found)


def total(amounts: Sequence[Amounts]) -> Amounts:
    """The sum."""
    return sum(amounts, Amounts())


def taken(work: Work, receipts: Mapping[str, Sequence[Receipt]]) -> Amounts:
    """What the shards of some work took, by the receipts of the run's stages."""
    own = _receipts_of(work, receipts)
    return Amounts(
        len(own),
        sum(receipt.cpu_seconds for receipt in own),
        sum(receipt.requests for receipt in own),
        sum(receipt.bytes_in for receipt in own),
        sum(len(receipt.outputs) + 1 for receipt in own),
        sum(sum(receipt.outputs.values()) for receipt in own),
    )


def _receipts_of(work: Work, receipts: Mapping[str, Sequence[Receipt]]) -> list[Receipt]:
    found = receipts.get(work.stage, ())
    return [one for one in found if work.sensor is None or one.shard.split("/", 1)[0] == work.sensor]


def calibrated(spec: RunSpec, plan: Plan, receipts: Mapping[str, Sequence[Receipt]], source: str) -> Calibration:
    """The rates of the stages of a run that are complete. Raises UsageError if none is."""
    parts: dict[str, list[Work]] = {}
    for work in work_of(spec, plan):
        if len(_receipts_of(work, receipts)) == work.shards:
            for key in (work.key, *(["chips/*"] if work.sensor else [])):
                parts.setdefault(key, []).append(work)
    if not parts:
        raise UsageError(f"no stage of {spec.name} is complete, so nothing can be measured on it; finish the run first")
    return Calibration(source=source, rates={key: _rates(parts[key], receipts) for key in sorted(parts)})


def _rates(parts: Sequence[Work], receipts: Mapping[str, Sequence[Receipt]]) -> Rates:
    took = total([taken(work, receipts) for work in parts])
    outputs = [one.outputs for work in parts if work.sensor for one in _receipts_of(work, receipts)]
    beside = sum(size for found in outputs for key, size in found.items() if not key.startswith(layout.cube("")[1:]))

    def per(amount: float, units: float) -> float:
        return float(f"{amount / units:.4g}") if units else 0.0

    return Rates(
        cpu_s_per_effort=per(took.cpu_s, sum(work.effort for work in parts)),
        stored_bytes_per_product=per(took.stored_bytes - beside, sum(work.product for work in parts)),
        stored_bytes_per_shard=per(beside, took.shards),
        objects_per_shard=per(took.writes - took.shards, took.shards),
        requests_per_read=per(took.requests, sum(work.reads for work in parts)),
        fetched_bytes_per_source_byte=per(took.fetched_bytes, sum(work.source_bytes for work in parts)),
    )


def check_cost(lines: Sequence[Line], prices: Prices, most: float) -> None:
    """Raise PlanError, naming the dearest stage and what makes it cheaper, if the estimate is over `most`."""
    cost = prices.cost(total([line.amounts for line in lines]))
    if cost <= most:
        return
    by_stage: dict[str, float] = {}
    for line in lines:
        by_stage[line.work.stage] = by_stage.get(line.work.stage, 0.0) + prices.cost(line.amounts)
    dearest = max(by_stage, key=lambda stage: by_stage[stage])
    raise PlanError(
        f"the run would cost {cost:.2f} {prices.currency}, over max_cost={most:g}; {dearest} takes "
        f"{by_stage[dearest]:.2f} of it: use {CHEAPER.get(dearest, 'a smaller area')}"
    )
