"""Stage `plan`: the only window on the outside world. Searches once and freezes what it found."""

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial

from eo_batch.core.errors import PlanError, SpecError
from eo_batch.core.identity import Identity
from eo_batch.core.learning_plan import learning_arrays
from eo_batch.core.plan import Plan, make_plan, usable
from eo_batch.core.receipts import Note, Receipt
from eo_batch.core.scenes import Scene
from eo_batch.core.spec import RunSpec, SensorSpec
from eo_batch.core.stacitems import resolve_duplicates, scene_of_item
from eo_batch.io.catalogs import Query, search, search_boxes, shown
from eo_batch.io.plans import has_scenes, load_scenes, place_plan, save_plan, save_scenes
from eo_batch.io.store import Store
from eo_batch.io.xarrays import is_dataset
from eo_batch.settings import Settings

OnFound = Callable[[str, int], None]
"""Called with a sensor's name and the items found so far."""


def find_scenes(spec: RunSpec, settings: Settings, on_found: OnFound | None = None) -> list[Scene]:
    """All scenes of all sensors over the area and dates, duplicates resolved. Raises CatalogError, PlanError.

    Addresses come without query and user: what they hold can be secret, and a token has expired by the time that
    a worker reads.
    """
    return resolve_duplicates(without_secrets(scene) for scene in _search(spec, settings, on_found))


def without_secrets(scene: Scene) -> Scene:
    """The scene with bare addresses; refused if its files can't be told apart without their queries."""
    assets = tuple(replace(asset, href=_bare(asset.href)) for asset in scene.assets)
    if len({asset.href for asset in assets}) < len({asset.href for asset in scene.assets}):
        why = "its files differ only in the queries of their addresses, which are not kept since they can hold tokens"
        return replace(scene, assets=assets, refusal=scene.refusal or why)
    return replace(scene, assets=assets)


def _bare(href: str) -> str:
    return shown(href) if "://" in href else href


def _search(spec: RunSpec, settings: Settings, on_found: OnFound | None) -> list[Scene]:
    area = spec.area.polygon()
    learning_arrays(spec)  # refuses what later stages could not learn from, before anything is searched or made
    scenes: list[Scene] = []
    for name, sensor in spec.sensors.items():
        catalog = sensor.catalog or spec.catalog
        if not catalog:
            raise SpecError("catalog is not set; give catalog=<address or path> on the command line or in the spec")
        collections = () if is_dataset(catalog) else _collections(name, sensor)
        bounds = [tuple(part.bounds) for part in area.geoms]
        reach_m = 2 * spec.grid.chip_m
        lat = max(abs(b) for box in bounds for b in (box[1], box[3]))
        margin = reach_m / (111_000 * max(math.cos(math.radians(lat)), 0.1))
        static = sensor.info.static
        # Pairs and seasons count by their middle; catalogues search by one of their ends.
        interval_days = {"interferogram": sensor.max_baseline_days, "coherence": 366.0}.get(sensor.kind, 0.0)
        reach = timedelta(days=math.ceil(interval_days / 2))
        query = Query(
            catalog,
            collections,
            search_boxes([(b[0], b[1], b[2], b[3]) for b in bounds], margin),
            None if static else spec.time.start - reach,
            None if static else spec.time.end + reach,
            sensor.epsg,
        )
        found = search(query, settings, partial(on_found, name) if on_found else None)
        if not found.items:
            held = ", ".join(found.collections_seen) or "nothing that meets the area"
            raise PlanError(
                f"sensors.{name}: {shown(catalog)} has no item of {', '.join(collections)} over the area"
                f"{'' if static else f' from {spec.time.start} to {spec.time.end}'}; it holds {held}; "
                f"check area, time and sensors.{name}.collections"
            )
        scenes.extend(scene_of_item(item, name, sensor, base) for item, base in found.items)
    return scenes


def preview(spec: RunSpec, settings: Settings, on_found: OnFound | None = None) -> Plan:
    """The plan without writing anything."""
    return make_plan(spec, find_scenes(spec, settings, on_found), Identity(spec).prefix("chips"))


def run(spec: RunSpec, store: Store, settings: Settings, on_found: OnFound | None = None) -> Receipt:
    """Freeze the plan; an existing one is used as it is. Nothing is written if there is no valid plan."""
    identity = Identity(spec)
    prefix = identity.prefix("plan")
    if has_scenes(store, prefix):
        scenes = load_scenes(store, prefix)
    else:
        found = find_scenes(spec, settings, on_found)
        make_plan(spec, found, identity.prefix("chips"))  # refuses before anything is frozen
        scenes = save_scenes(store, prefix, usable(found, spec))
    plan = make_plan(spec, scenes, identity.prefix("chips"))
    sizes = save_plan(store, prefix, plan)
    place_plan(store, identity.prefix("chips"), plan)
    notes = tuple(Note(subject=s.scene_id, text=s.refusal) for s in scenes if s.refusal is not None)
    return Receipt(stage="plan", shard="plan", inputs=prefix, outputs=sizes, notes=notes)


def _collections(name: str, sensor: SensorSpec) -> tuple[str, ...]:
    collections = sensor.collections or sensor.info.collections
    if not collections:
        raise SpecError(f"sensors.{name}.collections is empty and {sensor.kind} has no usual ones; name them")
    return collections
