"""Receipts in the store."""

from collections.abc import Iterable

from eo_batch.core import layout
from eo_batch.core.errors import StoreMissing
from eo_batch.core.receipts import Receipt
from eo_batch.io.store import Store


def read_receipt(store: Store, prefix: str, shard: str) -> Receipt | None:
    """The receipt of a shard of the stage at `prefix`, if there is one. Raises DataError if it is none."""
    key = layout.receipt_key(prefix, shard)
    try:
        return Receipt.from_bytes(store.get(key), store.href(key))
    except StoreMissing:
        return None


def read_receipts(store: Store, prefix: str, shards: Iterable[str] | None = None) -> dict[str, Receipt]:
    """Receipts of the stage at `prefix` by shard: those of `shards`, which have to be there, or else all, sorted.

    Raises DataError if one is none, StoreMissing if one of `shards` has none.
    """
    if shards is None:
        keys = list(store.list(layout.receipts_prefix(prefix)))
    else:
        keys = [layout.receipt_key(prefix, shard) for shard in shards]
    found = zip(keys, store.get_many(keys), strict=True)
    receipts = (Receipt.from_bytes(data, store.href(key)) for key, data in found)
    return {receipt.shard: receipt for receipt in receipts}
