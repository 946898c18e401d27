"""Stage `plan`: the only window on the outside world. Searches once and freezes what it found."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eo_batch.core.errors import PlanError, SpecError
from eo_batch.core.identity import Identity
from eo_batch.core.learning_plan import learning_arrays, target_arrays
from eo_batch.core.plan import Plan, make_plan
from eo_batch.core.receipts import Note, Receipt
from eo_batch.core.spec import RunSpec, SensorSpec
from eo_batch.core.stacitems import scene_of_item
from eo_batch.core.telling import shown
from eo_batch.io.axes import place_plan
from eo_batch.io.catalogs import Query, search, search_boxes
from eo_batch.io.geoparquet import is_geoparquet, scenes_of_geoparquet
from eo_batch.io.plans import has_scenes, load_scenes, save_plan, save_scenes
from eo_batch.io.scenetable import SceneTable, concat, scene_table, usable, without_duplicates
from eo_batch.io.store import Store
from eo_batch.io.xarrays import is_dataset
from eo_batch.settings import Settings

OnFound = Callable[[str, int], None]
"""Called with a sensor's name and the items found so far."""


def find_scenes(spec: RunSpec, settings: Settings, on_found: OnFound | None = None) -> SceneTable:
    """All scenes of all sensors over the area and dates, duplicates resolved. Raises CatalogError, PlanError.

    Addresses come without query and user: what they hold can be secret, and a token has expired by the time that
    a worker reads.
    """
    # What later stages could not learn from is refused before anything is searched or made.
    learning_arrays(spec)
    target_arrays(spec)
    found = [without_secrets(_found(spec, name, settings, on_found)) for name in spec.sensors]
    return without_duplicates(concat(found))


def _found(spec: RunSpec, name: str, settings: Settings, on_found: OnFound | None) -> SceneTable:
    sensor = spec.sensors[name]
    query, progress = _query(spec, name), partial(on_found, name) if on_found else None
    if is_geoparquet(query.catalog):
        table, seen = scenes_of_geoparquet(query, name, sensor, settings, progress)
    else:
        found = search(query, settings, progress)
        table, seen = (
            scene_table(scene_of_item(i, name, sensor, base) for i, base in found.items),
            found.collections_seen,
        )
    if not len(table):
        dates = "" if sensor.info.static else f" from {spec.time.start} to {spec.time.end}"
        raise PlanError(
            f"sensors.{name}: {shown(query.catalog)} has no item of {', '.join(query.collections)} over the area"
            f"{dates}; it holds {', '.join(seen) or 'nothing that meets the area'}; "
            f"check area, time and sensors.{name}.collections"
        )
    return table


def _query(spec: RunSpec, name: str) -> Query:
    sensor = spec.sensors[name]
    catalog = sensor.catalog or spec.catalog
    if not catalog:
        raise SpecError("catalog is not set; give catalog=<address or path> on the command line or in the spec")
    bounds = [tuple(part.bounds) for part in spec.area.polygon().geoms]
    lat = max(abs(b) for box in bounds for b in (box[1], box[3]))
    margin = 2 * spec.grid.chip_m / (111_000 * max(math.cos(math.radians(lat)), 0.1))
    static = sensor.info.static
    # Pairs and seasons count by their middle; catalogues search by one of their ends.
    interval_days = {"interferogram": sensor.max_baseline_days, "coherence": 366.0}.get(sensor.kind, 0.0)
    reach = timedelta(days=math.ceil(interval_days / 2))
    return Query(
        catalog,
        () if is_dataset(catalog) else _collections(name, sensor),
        search_boxes([(b[0], b[1], b[2], b[3]) for b in bounds], margin),
        None if static else spec.time.start - reach,
        None if static else spec.time.end + reach,
        sensor.epsg,
    )


def without_secrets(table: SceneTable) -> SceneTable:
    """The scenes with bare addresses; those whose files can't be told apart without their queries are refused."""
    hrefs = table.hrefs.flatten()
    holding = pc.and_(pc.match_substring(hrefs, "://"), pc.match_substring_regex(hrefs, "[?@]"))
    signed = np.flatnonzero(holding.to_numpy(zero_copy_only=False))
    if not len(signed):
        return table
    bare = hrefs.to_numpy(zero_copy_only=False)
    bare[signed] = [shown(href) for href in bare[signed]]
    offsets = np.asarray(table.hrefs.offsets)
    refusal = table.refusal.copy()
    for row in np.unique(np.searchsorted(offsets, signed, "right") - 1).tolist():
        own = slice(offsets[row], offsets[row + 1])
        if len(set(bare[own])) < len(set(hrefs[own].to_pylist())):
            why = (
                "its files differ only in the queries of their addresses, which are not kept since they can hold tokens"
            )
            refusal[row] = refusal[row] or why
    kept = pa.ListArray.from_arrays(table.hrefs.offsets, pa.array(bare, pa.large_string()))
    return replace(table, hrefs=kept, refusal=refusal)


def preview(spec: RunSpec, settings: Settings, on_found: OnFound | None = None) -> Plan:
    """The plan without writing anything."""
    found = usable(find_scenes(spec, settings, on_found), spec)
    return make_plan(spec, found.columns(), Identity(spec).prefix("chips"))


def run(spec: RunSpec, store: Store, settings: Settings, on_found: OnFound | None = None) -> Receipt:
    """Freeze the plan; an existing one is used as it is. Nothing is written if there is no valid plan."""
    identity = Identity(spec)
    prefix, chips = identity.prefix("plan"), identity.prefix("chips")
    if has_scenes(store, prefix):
        frozen = load_scenes(store, prefix)
        plan = make_plan(spec, frozen.columns, chips)
    else:
        found = usable(find_scenes(spec, settings, on_found), spec)
        plan = make_plan(spec, found.columns(), chips)  # refuses before anything is frozen
        frozen = save_scenes(store, prefix, found, plan.scenes)
        if frozen.columns is not plan.scenes:  # another planner was faster
            plan = make_plan(spec, frozen.columns, chips)
    with ThreadPoolExecutor(1) as pool:  # the store may be far away
        placing = pool.submit(place_plan, store, chips, plan)
        sizes = save_plan(store, prefix, plan, frozen.pages)
        placing.result()
    told = zip(plan.scenes.scene_id, plan.scenes.refusal, strict=True)
    notes = tuple(Note(subject=scene_id, text=refusal) for scene_id, refusal in told if refusal is not None)
    return Receipt(stage="plan", shard="plan", inputs=prefix, outputs=sizes, notes=notes)


def _collections(name: str, sensor: SensorSpec) -> tuple[str, ...]:
    collections = sensor.collections or sensor.info.collections
    if not collections:
        raise SpecError(f"sensors.{name}.collections is empty and {sensor.kind} has no usual ones; name them")
    return collections
