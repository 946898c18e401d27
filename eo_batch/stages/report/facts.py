"""The facts around a run: its headline, what it cost, and where it comes from."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from eo_batch.core.layout import STAGES
from eo_batch.core.receipts import Receipt, facts
from eo_batch.core.spec import RunSpec
from eo_batch.core.specfile import dump_spec
from eo_batch.core.timebins import OBSERVATION
from eo_batch.core.timespec import TimeSpec
from eo_batch.stages.report import words
from eo_batch.stages.report.ground import Ground
from eo_batch.stages.report.results import Results

SLOWEST = 10
_QUERY = re.compile(r"(?<=\S)\?[^\s'\"]+=[^\s'\"]*")
"""The query of an address, which can hold a token: a page gets passed around."""


@dataclass(frozen=True)
class SensorFacts:
    """One sensor of the run."""

    name: str
    product: str
    arrays: str
    """Bands and pixel sizes."""
    scenes: int
    """Scenes used."""
    left_out: int
    bins: int
    """Time bins; 0 for products without a time axis."""


@dataclass(frozen=True)
class Headline:
    """What and where the run is."""

    name: str
    place: str
    dates: str
    chips: str
    ground: str
    sensors: tuple[SensorFacts, ...]


@dataclass(frozen=True)
class StageCost:
    """What one stage cost: sums over its shards."""

    stage: str
    shards: int
    wall: str
    cpu: str
    bytes_in: str
    bytes_out: str
    requests: str
    peak: str
    share: float
    """Of the wall time of all stages, 0 to 1."""


@dataclass(frozen=True)
class Costs:
    """What the run cost."""

    stages: tuple[StageCost, ...]
    total: StageCost
    slowest: tuple[tuple[str, str, str, str], ...]
    """Stage, shard, wall time and CPU time of the slowest shards."""
    where: str
    """Runners and hosts."""
    unfinished: tuple[str, ...]
    """Stages without any receipt."""


@dataclass(frozen=True)
class Provenance:
    """Where everything comes from."""

    spec_yaml: str
    prefixes: tuple[tuple[str, str], ...]
    """Stage and its prefix in the store."""
    software: tuple[tuple[str, str], ...]
    """Package and the versions that receipts name."""
    offsets: tuple[tuple[str, str, str, int], ...]
    """Sensor, offset in digital numbers, how it was decided, files."""


def headline_of(results: Results, ground: Ground) -> Headline:
    """What and where the run is."""
    spec = results.spec
    west, south, east, north = spec.area.polygon().bounds
    grid = spec.grid
    owners = len(ground.owners)
    lat = f"{_degrees(south, 'N', 'S')} to {_degrees(north, 'N', 'S')}"
    lon = f"{_degrees(west, 'E', 'W')} to {_degrees(east, 'E', 'W')}"
    zones = len({chip.chip_id[:4] for chip in ground.chips})
    pixels = f"{grid.chip_px} px of {words.length(grid.gsd_m)}"
    return Headline(
        name=spec.name,
        place=f"{lat}, {lon}",
        dates=f"{spec.time.start} to {spec.time.end - timedelta(days=1)}; {_cut(spec.time)}",
        chips=f"{words.count(len(ground.chips), 'chip')} of {words.length(grid.chip_m)} ({pixels})",
        ground=f"{words.area(owners * (grid.chip_m / 1000) ** 2)} in {words.count(zones, 'UTM zone')}",
        sensors=tuple(_sensor(results, name) for name in spec.sensors),
    )


def _sensor(results: Results, name: str) -> SensorFacts:
    sensor = results.spec.sensors[name]
    arrays = [array for array in results.spec.arrays() if array.sensor == name]
    said = "; ".join(f"{', '.join(a.band_names)} at {words.length(a.pixel_m)}" for a in arrays)
    plan = results.plan
    own = plan.shards.of_sensor(name)
    bins = 0 if sensor.info.static else len(np.unique(plan.shards.bin[own]))
    return SensorFacts(name, sensor.info.title, said, plan.shards.used_scenes(name), plan.scenes.left_out(name), bins)


def costs_of(results: Results) -> Costs:
    """What the run cost up to its report."""
    every = [(stage, receipt) for stage, receipts in results.receipts.items() for receipt in receipts]
    total_s = sum(receipt.seconds for _, receipt in every)
    stages = tuple(_cost(stage, receipts, total_s) for stage, receipts in results.receipts.items())
    slow = sorted(every, key=lambda pair: (-pair[1].seconds, pair[0], pair[1].shard))[:SLOWEST]
    runners = sorted({receipt.runner for _, receipt in every if receipt.runner})
    hosts = {receipt.host for _, receipt in every if receipt.host}
    where = f"Runner: {words.listed(runners)}; {words.count(len(hosts), 'host')}." if runners else ""
    wanted = [s for s in STAGES if s != "report" and (s != "probe" or results.spec.probe is not None)]
    return Costs(
        stages=stages,
        total=_cost("all", [receipt for _, receipt in every], total_s),
        slowest=tuple((stage, r.shard, words.duration(r.seconds), words.duration(r.cpu_seconds)) for stage, r in slow),
        where=where,
        unfinished=tuple(stage for stage in wanted if stage not in results.receipts),
    )


def _cost(stage: str, receipts: Sequence[Receipt], total_s: float) -> StageCost:
    rows = [facts(receipt) for receipt in receipts]
    seconds = sum(row["seconds"] for row in rows)
    return StageCost(
        stage=stage,
        shards=len(rows),
        wall=words.duration(seconds),
        cpu=words.duration(sum(row["cpu_seconds"] for row in rows)),
        bytes_in=words.size(sum(row["bytes_in"] for row in rows)),
        bytes_out=words.size(sum(row["bytes_out"] for row in rows)),
        requests=words.count(sum(row["requests"] for row in rows)),
        peak=words.size(max((row["peak_mb"] for row in rows), default=0.0) * 1e6),
        share=seconds / total_s if total_s > 0 else 0.0,
    )


def provenance_of(results: Results) -> Provenance:
    """Where everything comes from."""
    identity = results.identity
    versions: dict[str, set[str]] = {}
    offsets: dict[tuple[str, str, str], set[str]] = {}
    for receipts in results.receipts.values():
        for receipt in receipts:
            for package, version in receipt.software.items():
                versions.setdefault(package, set()).add(version)
            for source in receipt.sources:
                if source.offset_reason:
                    sensor = receipt.shard.split("/", 1)[0]
                    key = (sensor, f"{source.offset_dn:g}".replace("-", "−"), source.offset_reason)
                    offsets.setdefault(key, set()).add(source.href)
    return Provenance(
        spec_yaml=spec_text(results.spec),
        prefixes=tuple((stage, identity.prefix(stage)) for stage in STAGES),
        software=tuple((package, ", ".join(sorted(found))) for package, found in sorted(versions.items())),
        offsets=tuple((*key, len(files)) for key, files in sorted(offsets.items())),
    )


def _cut(time: TimeSpec) -> str:
    if time.event is not None:
        look = "overpass" if time.step == OBSERVATION else f"window of {words.count(int(time.step[1:-1]), 'day')}"
        sides = f"{time.event.before} before and {time.event.after} after {time.event.date}"
        return f"one {look} a time bin, {sides}"
    match time.step:
        case "all":
            return "one time bin"
        case "month" | "season" | "year":
            return f"one time bin a {time.step}"
        case "observation":
            return "one time bin an overpass"
        case _:
            return f"time bins of {words.count(int(time.step[1:-1]), 'day')}"


def spec_text(spec: RunSpec) -> str:
    """The run spec as YAML, without the queries of addresses."""
    return _QUERY.sub("?…", dump_spec(spec))


def _degrees(value: float, positive: str, negative: str) -> str:
    return f"{abs(value):.3f}°\u202f{positive if value >= 0 else negative}"
