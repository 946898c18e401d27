"""Stage `embed`: the chips of one block in one time bin, seen by a pretrained encoder and by its untrained twin.

chips/<model>/<time bin>/<block>.parquet   GeoParquet, one row a chip: chip_id, geometry, time_start, time_end (half
                                           open), model, model_sha256, tokens (share of patches with enough valid
                                           pixels), vector (null where no patch has)
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
import torch

from eo_batch.core import layout
from eo_batch.core.grid import Cell, Cells, outline
from eo_batch.core.identity import Identity
from eo_batch.core.learning_plan import (
    EmbedShard,
    parse_embed_shard,
    trained_name,
    untrained_name,
)
from eo_batch.core.plan import Axes
from eo_batch.core.receipts import ChipState, Receipt
from eo_batch.core.spec import RunSpec
from eo_batch.core.timebins import STATIC_KEY
from eo_batch.io.cube import CubeReader
from eo_batch.io.store import Store
from eo_batch.io.tables import parquet_bytes, with_geometry
from eo_batch.models.batch import ArraySamples
from eo_batch.models.card import ModelCard
from eo_batch.models.encoder import Encoder
from eo_batch.models.samples import CubeSamples, Place
from eo_batch.models.training import reproducible


def run(spec: RunSpec, key: str, planned: Cells, axes: Axes, store: Store) -> Receipt:
    """Embed the shard of a key. Raises DataError where the model or the pixels are not usable."""
    identity, shard = Identity(spec), parse_embed_shard(key)
    cells = planned.of_block(shard.block)
    prefix, pretrain = identity.prefix("embed"), identity.prefix("pretrain")
    card_key = layout.model_card(pretrain, shard.seed)
    card = ModelCard.from_bytes(store.get(card_key), store.href(card_key))
    first, time_index = axes.first_slot(shard.block), axes.time_index(shard.bin_key)
    places = tuple(Place(first + shard.block.place(cell), time_index) for cell in cells)
    samples = CubeSamples(CubeReader(store, identity.prefix("chips")), card.arrays, places).in_memory()
    written: dict[str, bytes] = {}
    with reproducible(spec.embed.threads):
        trained = card.trained(store.get(layout.weights(pretrain, shard.seed)))
        for name, digest, encoder in (
            (trained_name(shard.seed), card.weights_sha256, trained),
            (untrained_name(shard.seed), card.untrained_sha256, card.untrained()),
        ):
            vectors, tokens = embed(encoder, samples, spec.embed.batch)
            table = _table(spec, shard, cells, name, digest, vectors, tokens)
            target = layout.embeddings(prefix, name, shard.bin_key, shard.block.key)
            written[target.removeprefix(f"{prefix}/")] = data = parquet_bytes(table)
            store.put(target, data)
    states: dict[str, ChipState] = {
        cell.chip_id: "ok" if share > 0 else "no_data" for cell, share in zip(cells, tokens, strict=True)
    }
    return Receipt(
        stage="embed",
        shard=shard.key,
        inputs=prefix,
        outputs={name: len(data) for name, data in written.items()},
        digests={name: hashlib.sha256(data).hexdigest() for name, data in written.items()},
        chips=states,
        valid={cell.chip_id: round(float(share), 6) for cell, share in zip(cells, tokens, strict=True)},
    )


@torch.no_grad()
def embed(encoder: Encoder, samples: ArraySamples, batch: int) -> tuple[Any, Any]:
    """Vectors (n, dim) float32 and the share of patches that are tokens (n), in the order of the samples."""
    encoder.eval()
    vectors, tokens = [], []
    for start in range(0, len(samples), batch):
        encoded = encoder(samples.read(range(start, min(start + batch, len(samples)))))
        vectors.append(encoded.pooled_nd.numpy())
        tokens.append(encoded.tokens.mask_nt.float().mean(dim=1).numpy())
    return np.concatenate(vectors), np.concatenate(tokens)


def _table(
    spec: RunSpec, shard: EmbedShard, cells: Sequence[Cell], name: str, digest: str, vectors: Any, tokens: Any
) -> pa.Table:
    count = len(cells)
    start = end = None
    if shard.bin_key != STATIC_KEY:
        time_bin = spec.time.bin_of(shard.bin_key)
        start, end = time_bin.start, time_bin.end
    stamp = pa.timestamp("us", tz="UTC")
    flat = pa.array(np.ascontiguousarray(vectors, np.float32).ravel())
    table = pa.table(
        {
            "chip_id": pa.array([cell.chip_id for cell in cells], pa.string()),
            "geometry": pa.array([shapely.to_wkb(outline(cell)) for cell in cells], pa.binary()),
            "time_start": pa.array([start] * count, stamp),
            "time_end": pa.array([end] * count, stamp),
            "model": pa.array([name] * count, pa.string()),
            "model_sha256": pa.array([digest] * count, pa.string()),
            "tokens": pa.array(tokens, pa.float32()),
            "vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1], mask=pa.array(tokens == 0)),
        }
    )
    return with_geometry(table)
