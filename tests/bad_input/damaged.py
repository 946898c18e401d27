"""What is asserted of every plan over a damaged item, and over items that lie beside it.

What a plan may leave out without a word is judged here, by `elsewhere`, and not by what the planner thinks.
"""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
from stac_geoparquet.arrow import parse_stac_items_to_arrow, to_parquet

from eo_batch.core.errors import EoBatchError
from eo_batch.core.plan import BASE_MEMORY, Plan, make_plan
from eo_batch.core.scenes import Scene
from eo_batch.core.specfile import parse_spec
from eo_batch.io.scenepages import Pages, scenes_of_page
from eo_batch.io.scenetable import usable
from eo_batch.stages.plan import find_scenes
from tests.bad_input.mutations import SECRET, Json, Mutant
from tests.io.worlds import QUICK

BOUND_S = 10.0
"""Planning takes a hundredth of it."""
DAYS = (date(2023, 6, 1), date(2023, 9, 1))
AREA = (11.9955, 48.0005, 11.9995, 48.003)
SPEC = """
name: t
time: {start: 2023-06-01, end: 2023-09-01, step: all}
grid: {chip_px: 32, gsd_m: 10, block_chips: 4}
pretrain: {encoder: {patch_px: 8}}
"""


class Case:
    """A sensor over a catalogue of which one item gets damaged."""

    def __init__(
        self,
        catalog: Path,
        target: Json,
        others: Sequence[Json],
        sensor: str,
        area: Sequence[float] = AREA,
        days: Sequence[date] = DAYS,
    ) -> None:
        self.catalog, self.target, self.others, self.area, self.days = catalog, target, others, area, days
        sensors = [f"sensors.x={sensor}"]
        if "kind: classes" in sensor or "kind: points" in sensor:  # labels alone are nothing to learn from
            ground = catalog.with_name("ground.json")
            own = {"bbox": [-180, -90, 180, 90], "properties": {"datetime": "2020-01-01T00:00:00Z"}}
            listed([{"id": "ground", "collection": "dem", "assets": {"dem": {"href": "dem.tif"}}} | own], ground)
            sensors.append(f"sensors.ground={{kind: dem, collections: [dem], catalog: {ground}}}")
        when = [f"time.start={days[0]}", f"time.end={days[1]}"]
        self.spec = parse_spec(SPEC, [f"catalog={catalog}", f"area.bbox={list(area)}", *when, *sensors])
        self.kept = {("ground", "ground"), *(("x", one["id"]) for one in others)}
        """Scenes that no damage to the target may change."""
        self.write([target, *others])
        found = planned(self, "nothing")
        assert not isinstance(found, EoBatchError), found
        self.rows, self.reached = rows_of(found[0]), reached(found[0])
        assert self.rows["x", target["id"]][0][3] is None, "the undamaged item is used"

    def write(self, items: Sequence[Any]) -> None:
        """Raises what stac-geoparquet raises, if the catalogue is a table, for what it can't hold."""
        if self.catalog.suffix == ".json":
            listed(items, self.catalog)
        else:
            to_parquet(parse_stac_items_to_arrow(deepcopy(list(items))), self.catalog)


@contextmanager
def bounded(told: str) -> Iterator[None]:
    def late(*_: object) -> None:
        raise AssertionError(f"took longer than {BOUND_S} s: {told}")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, BOUND_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def listed(items: Sequence[Any], path: Path) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(items)}))
    return path


def planned(case: Case, told: str) -> tuple[Plan, list[Scene]] | EoBatchError:
    """The plan, and its scenes as workers read them; or the error that tells why there is none.

    As `stages.plan.run` makes them, but for the store. Anything else fails the test.
    """
    with bounded(told):
        try:
            found = usable(find_scenes(case.spec, QUICK), case.spec)
            plan = make_plan(case.spec, found.columns(), "chips")
            return plan, scenes_of_page(Pages(found).page(0, len(found)), range(len(found)))
        except EoBatchError as error:
            return error
        except Exception as error:
            raise AssertionError(f"{type(error).__name__} after: {told}") from error


def assert_tells(error: EoBatchError, item: Any, catalog: Path) -> None:
    message, item_id = str(error), item.get("id") if isinstance(item, dict) else None
    assert SECRET not in message
    assert message.isprintable(), "one line, and nothing that a terminal would obey"
    assert 40 < len(message) < 1500
    assert "Traceback" not in message
    assert "object has no" not in message, "Python's words are not for people"
    assert catalog.name in message or (isinstance(item_id, str) and item_id in message), message


Rows = dict[tuple[str, str], list[Any]]


def rows_of(plan: Plan) -> Rows:
    """What the plan knows of each scene."""
    found: Rows = {}
    s = plan.scenes
    for i in range(len(s)):
        row = [int(s.moment_us[i]), int(s.epsg[i]), s.bounds[i].tolist(), s.refusal[i], s.look[i], bytes(s.digest[i])]
        found.setdefault((str(s.sensor[i]), str(s.scene_id[i])), []).append(row)
    return found


def reached(plan: Plan) -> dict[str, set[tuple[str, str]]]:
    """The scenes of each shard."""
    names = list(zip(plan.scenes.sensor, plan.scenes.scene_id, strict=True))
    return {shard.key: {names[i] for i in shard.scenes} for shard in plan.shards}


def assert_sound(plan: Plan, scenes: Sequence[Scene]) -> None:
    """No nonsense in the plan's tables, nor in the files that workers read of them."""
    s = plan.scenes
    assert np.isfinite(s.bounds).all()
    assert (s.bounds[:, 0] <= s.bounds[:, 2]).all()
    assert (s.bounds[:, 1] <= s.bounds[:, 3]).all()
    assert (s.epsg > 0).all()
    for text in s.refusal:
        assert text is None or (text.isprintable() and 10 < len(text) < 1500 and SECRET not in text), text
    assert (plan.shards.memory_bytes >= BASE_MEMORY).all()
    assert (plan.shards.write_bytes > 0).all()
    assert ((plan.shards.scenes >= 0) & (plan.shards.scenes < len(s))).all()
    for scene in scenes:
        assert scene.scene_id.isprintable()
        assert scene.orbit_state in (None, "ascending", "descending")
        assert all(math.isfinite(value) for value in scene.bbox)
        assert scene.cloud_pct is None or math.isfinite(scene.cloud_pct)
        for asset in scene.assets:
            assert SECRET not in asset.href + asset.offset_reason
            assert math.isfinite(asset.scale)
            assert asset.scale != 0
            assert math.isfinite(asset.offset_dn)
            assert asset.shape is None or min(asset.shape) > 0
            if asset.transform is not None:
                a, b, _, d, e, _ = asset.transform
                assert math.hypot(a, d) > 0 < math.hypot(b, e)
                assert all(map(math.isfinite, asset.transform))


def elsewhere(item: Any, case: Case) -> bool:
    """Whether an item says itself, in whole words, that it is none of what is looked for."""
    collection, bbox, geometry = (item.get(name) for name in ("collection", "bbox", "geometry"))
    if isinstance(collection, str) and collection not in ("", case.target["collection"]):
        return True
    if bbox is None and geometry is None:
        return True
    if all(isinstance(v, int | float) for v in bbox):
        west, south, east, north = bbox if len(bbox) == 4 else (*bbox[:2], *bbox[3:5])
        beside = (
            (east < case.area[0] or west > case.area[2])
            if west <= east
            else (east < case.area[0] and west > case.area[2])
        )  # or across the antimeridian
        if beside or north < case.area[1] or south > case.area[3]:
            return True
    properties = item["properties"]
    first, last = (properties.get("datetime") or properties.get(f"{end}_datetime") for end in ("start", "end"))
    if first and last:
        begin, end = (datetime(day.year, day.month, day.day, tzinfo=UTC) for day in case.days)
        one, other = (datetime.fromisoformat(str(t)).replace(tzinfo=UTC) for t in (first, last))
        return one >= end or other < begin
    return False


def outcome(case: Case, mutant: Mutant) -> str:
    """What became of a damaged item, in a word, after all that can be asserted about it."""
    try:
        case.write([mutant.item, *case.others])
    except Exception:  # whatever a table's writer stumbles over is a table that nobody has
        assert case.catalog.suffix == ".parquet"
        return "can't be written"
    found = planned(case, mutant.told)
    if isinstance(found, EoBatchError):
        assert_tells(found, mutant.item, case.catalog)
        return type(found).__name__
    plan, scenes = found
    assert_sound(plan, scenes)
    rows, shards, kept = rows_of(plan), reached(plan), case.kept
    assert {key: rows.get(key) for key in kept} == {key: case.rows.get(key) for key in kept}, mutant.told
    assert {k: v & kept for k, v in shards.items()} == {k: v & kept for k, v in case.reached.items()}, mutant.told
    own = [row for key, of_key in rows.items() if key not in kept for row in of_key]
    if not own:
        assert elsewhere(mutant.item, case), f"dropped without a word: {mutant.told}"
        return "elsewhere"
    return "planned" if own[0][3] is None else "left out"
