"""The cube's axes in the store: an append-only log of blocks and time bins."""

import json
from collections.abc import Sequence

from eo_batch.core import layout
from eo_batch.core.errors import DataError, StoreError
from eo_batch.core.plan import Axes, Plan
from eo_batch.io.store import Store

_AXES_TRIES = 50


def load_axes(store: Store, chips_prefix: str) -> Axes:
    """The cube's axes: all entries in order."""
    return _axes_and_count(store, chips_prefix)[0]


def place_plan(store: Store, chips_prefix: str, plan: Plan) -> Axes:
    """Give the blocks and time bins of a plan their place in the cube."""
    bins = [plan.shards.bin_keys[number] for number in dict.fromkeys(plan.shards.bin.tolist())]
    return extend_axes(store, chips_prefix, [block.key for block in plan.blocks], bins)


def extend_axes(store: Store, chips_prefix: str, blocks: Sequence[str], bins: Sequence[str]) -> Axes:
    """Give blocks and bins their place in the cube, after what is there; safe against another planner.

    Raises StoreError if entries can't be appended.
    """
    for _ in range(_AXES_TRIES):
        axes, number = _axes_and_count(store, chips_prefix)
        wanted = axes.extended(blocks, bins)
        if wanted == axes:
            return axes
        entry = {"blocks": wanted.blocks[len(axes.blocks) :], "bins": wanted.bins[len(axes.bins) :]}
        if store.put_if_absent(layout.axis_entry(chips_prefix, number), json.dumps(entry).encode()):
            return wanted
    raise StoreError(f"{store.href(chips_prefix)}: the cube's axes could not be extended; run again")


def _axes_and_count(store: Store, chips_prefix: str) -> tuple[Axes, int]:
    """The axes and the number of entries that they come from: the next entry follows those, or not at all."""
    axes, keys = Axes(), list(store.list(layout.axes_prefix(chips_prefix)))
    for key, data in zip(keys, store.get_many(keys), strict=True):
        try:
            entry = json.loads(data)
            axes = axes.extended(entry["blocks"], entry["bins"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{store.href(key)} is not an axes entry: {error}") from error
    return axes, len(keys)
