"""Receipts in the store."""

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


def read_receipts(store: Store, prefix: str) -> dict[str, Receipt]:
    """All receipts of the stage at `prefix` by shard, sorted. Raises DataError if one is none."""
    receipts = (Receipt.from_bytes(store.get(k), store.href(k)) for k in store.list(layout.receipts_prefix(prefix)))
    return {receipt.shard: receipt for receipt in receipts}
