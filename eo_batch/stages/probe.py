"""Stage `probe`: how much of the labels a linear regression reads from frozen embeddings, on held-out chips.

metrics/probe.parquet   one row for each encoder, seed and class: held-out R², the penalty chosen, numbers of chips;
                        the seed is null for band statistics, which have none
metrics/summary.json    the same in short: mean and spread over seeds, and by how much the pretrained encoders beat
                        their untrained twins and band statistics, with 95 % intervals over the paired seeds

A chip is one sample: its embeddings are averaged over time bins. Training chips choose the penalty and fit, held-out
chips score, the buffer between them does neither. R² of 0 is chance: what predicting the mean of the test chips gets.

Dims: `n` chip, `f` feature, `c` class.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from eo_batch.core import layout
from eo_batch.core.errors import DataError
from eo_batch.core.grid import Cells
from eo_batch.core.identity import Identity
from eo_batch.core.learning import ProbeSpec
from eo_batch.core.learning_plan import learning_arrays, learning_bins, trained_name, untrained_name
from eo_batch.core.receipts import Receipt
from eo_batch.core.spec import RunSpec
from eo_batch.core.timebins import STATIC_KEY
from eo_batch.io.plans import load_found_shards
from eo_batch.io.store import Store
from eo_batch.io.tables import parquet_bytes, read_table
from eo_batch.models.features import band_statistics, mean_over_bins
from eo_batch.models.heads import ProbeFit, fit_probe, paired_margin

Floats = NDArray[np.float64]
PRETRAINED, RANDOM_INIT, BAND_STATISTICS = "pretrained", "random-init", "band-statistics"
ENCODERS = (PRETRAINED, RANDOM_INIT, BAND_STATISTICS)
"""What is compared, in the order in which it is shown."""


@dataclass(frozen=True)
class _Chips:
    """The chips that the probe uses, in one order."""

    chip_ids: list[str]
    blocks: list[str]
    is_test_n: NDArray[np.bool_]
    shares_nc: Floats
    """Share of each class among the chip's labelled pixels."""
    codes: list[int]
    """Code of each class."""


@dataclass(frozen=True)
class _Score:
    encoder: str
    seed: int | None
    fit: ProbeFit


def run(spec: RunSpec, cells: Cells, store: Store) -> Receipt:
    """Probe all encoders of a run. Raises DataError where embeddings are missing or there are too few labelled
    chips on either side of the split."""
    probe = spec.probe
    if probe is None:
        raise DataError("the spec has no probe section; nothing to probe")
    identity = Identity(spec)
    prefix, publish = identity.prefix("probe"), identity.prefix("publish")
    table = read_table(store, f"{publish}/chips.parquet")
    labelled = _labelled(spec, probe, table)
    shards = load_found_shards(store, identity.prefix("plan"), spec, cells)
    places = learning_bins(spec, cells.blocks(spec.grid.block_chips), shards)
    bins = {key: [block.key for block in blocks] for key, blocks in places.items()}
    seeds = spec.pretrain.seeds
    features: dict[tuple[str, int | None], Floats] = {}
    for seed in seeds:
        for encoder, model in ((PRETRAINED, trained_name(seed)), (RANDOM_INIT, untrained_name(seed))):
            vectors = _vectors(store, identity.prefix("embed"), model, bins)
            features[encoder, seed] = mean_over_bins(vectors, labelled.chip_ids)
    # Which chips have an embedding depends on their pixels alone, so it is the same for every encoder.
    embedded_n: NDArray[np.bool_] = np.asarray(np.isfinite(features[PRETRAINED, seeds[0]]).all(axis=1))
    features[BAND_STATISTICS, None] = _band_features(spec, store, publish, labelled.chip_ids)
    chips, varies_c = _used(labelled, embedded_n, probe)
    scores = [_fit(encoder, seed, nf[embedded_n], chips, probe) for (encoder, seed), nf in features.items()]
    train, test = int((~chips.is_test_n).sum()), int(chips.is_test_n.sum())
    written = {
        "probe.parquet": parquet_bytes(_rows(scores, chips.codes, train, test)),
        "summary.json": json.dumps(_summary(scores, probe, chips, varies_c, train, test), indent=1).encode(),
    }
    for name, data in written.items():
        store.put(layout.metrics(prefix, name), data)
    return Receipt(
        stage="probe",
        shard="probe",
        inputs=prefix,
        outputs={f"metrics/{name}": len(data) for name, data in written.items()},
        digests={f"metrics/{name}": hashlib.sha256(data).hexdigest() for name, data in written.items()},
    )


def _labelled(spec: RunSpec, probe: ProbeSpec, table: pa.Table) -> _Chips:
    """Owner chips of the training and test parts with enough labels."""
    label = next(array.name for array in spec.arrays() if array.sensor == probe.target)
    found = {int(name.rsplit(":", 1)[1]): name for name in table.column_names if name.startswith(f"share:{label}:")}
    codes = sorted(probe.classes or found)
    missing = [code for code in codes if code not in found]
    if missing:
        msg = f"probe.classes={missing} do not occur in {probe.target}; classes found: {sorted(found) or 'none'}"
        raise DataError(msg)
    if not codes:
        raise DataError(f"no chip has a labelled pixel in {probe.target}; probe another sensor or enlarge the area")
    keep = pc.and_(table["owner"], pc.is_in(table["split"], pa.array(["train", "test"])))
    keep = pc.and_(keep, pc.greater_equal(pc.fill_null(table[_share_column(probe)], 0.0), probe.min_label_share))
    # Shares are null where no pixel is labelled, whatever the threshold.
    chosen = table.filter(pc.and_(keep, pc.is_valid(table[found[codes[0]]]))).sort_by("chip_id")
    return _Chips(
        chosen["chip_id"].to_pylist(),
        chosen["block"].to_pylist(),
        np.array([split == "test" for split in chosen["split"].to_pylist()], bool),
        np.stack([np.asarray(chosen[found[code]].to_numpy(), np.float64) for code in codes], axis=1),
        codes,
    )


def _share_column(probe: ProbeSpec) -> str:
    return f"valid:{probe.target}:{STATIC_KEY}"


def _used(labelled: _Chips, embedded_n: NDArray[np.bool_], probe: ProbeSpec) -> tuple[_Chips, NDArray[np.bool_]]:
    """The chips that have an embedding too, and the classes that vary on both sides (all that the spec names)."""
    is_test_n, shares_nc = labelled.is_test_n[embedded_n], labelled.shares_nc[embedded_n]
    sides = [shares_nc[~is_test_n], shares_nc[is_test_n]]
    if min(len(side) for side in sides) == 0:
        msg = f"{len(sides[0])} training and {len(sides[1])} test chips have labels and pixels"
        raise DataError(f"{msg}; change split.seed, split.cell_km or split.test, or enlarge the area")
    varies_c = np.logical_and(*[np.ptp(side, axis=0) > 0 for side in sides])
    kept_c = np.ones_like(varies_c) if probe.classes else varies_c
    if not varies_c.any():
        raise DataError(f"no class of {probe.target} varies in both training and test chips; enlarge the area")
    ids, blocks = ([value for value, ok in zip(values, embedded_n, strict=True) if ok] for values in
                   (labelled.chip_ids, labelled.blocks))  # fmt: skip
    codes = [code for code, ok in zip(labelled.codes, kept_c, strict=True) if ok]
    return _Chips(ids, blocks, is_test_n, shares_nc[:, kept_c], codes), varies_c[kept_c]


def _vectors(
    store: Store, prefix: str, model: str, bins: Mapping[str, Sequence[str]]
) -> list[tuple[str, NDArray[np.float32]]]:
    found: list[tuple[str, NDArray[np.float32]]] = []
    for bin_key, blocks in bins.items():
        for block in blocks:
            table = read_table(store, layout.embeddings(prefix, model, bin_key, block), ("chip_id", "vector"))
            table = table.filter(pc.is_valid(table["vector"]))
            if table.num_rows:
                vectors = table["vector"].combine_chunks().flatten().to_numpy().reshape(table.num_rows, -1)
                found += zip(table["chip_id"].to_pylist(), vectors, strict=True)
    return found


def _band_features(spec: RunSpec, store: Store, publish: str, chip_ids: Sequence[str]) -> Floats:
    """Of the same arrays that the encoders see, on the same scale (dB for Sentinel-1)."""
    bands = [(found.array.name, band) for found in learning_arrays(spec) for band in found.array.band_names]
    table = read_table(store, f"{publish}/bandstats.parquet")
    table = table.filter(
        pc.and_(pc.is_in(table["chip_id"], pa.array(chip_ids, pa.string())), pc.greater(table["n"], 0))
    )
    moments: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for row in table.to_pylist():
        moments.setdefault((row["chip_id"], row["array"], row["band"]), []).append((row["mean"], row["std"]))
    return band_statistics(moments, bands, chip_ids)


def _fit(encoder: str, seed: int | None, features_nf: Floats, chips: _Chips, probe: ProbeSpec) -> _Score:
    train_n, test_n = ~chips.is_test_n, chips.is_test_n
    groups = [block for block, train in zip(chips.blocks, train_n, strict=True) if train]
    fit = fit_probe(
        features_nf[train_n],
        chips.shares_nc[train_n],
        groups,
        features_nf[test_n],
        chips.shares_nc[test_n],
        probe.ridge_alphas,
        probe.folds,
    )
    return _Score(encoder, seed, fit)


def _rows(scores: Sequence[_Score], codes: Sequence[int], train: int, test: int) -> pa.Table:
    rows = [
        {
            "encoder": score.encoder,
            "seed": score.seed,
            "class": code,
            "r2": None if math.isnan(r2) else float(r2),
            "alpha": score.fit.alpha,
            "train_chips": train,
            "test_chips": test,
        }
        for score in sorted(scores, key=lambda s: (ENCODERS.index(s.encoder), s.seed or 0))
        for code, r2 in zip(codes, score.fit.r2_c, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=_PROBE)


def _summary(
    scores: Sequence[_Score], probe: ProbeSpec, chips: _Chips, varies_c: NDArray[np.bool_], train: int, test: int
) -> dict[str, Any]:
    by_encoder = {name: [score for score in scores if score.encoder == name] for name in ENCODERS}
    encoders: dict[str, Any] = {}
    for name, found in by_encoder.items():
        means = [score.fit.r2_mean for score in found]
        per_class = np.stack([score.fit.r2_c for score in found]).mean(axis=0)
        encoders[name] = {
            "r2_mean": float(np.mean(means)),
            "r2_std": float(np.std(means, ddof=1)) if len(means) > 1 else None,
            "r2_by_class": {str(code): _number(r2) for code, r2 in zip(chips.codes, per_class, strict=True)},
        }
    pretrained = [score.fit.r2_mean for score in by_encoder[PRETRAINED]]
    margins = {}
    for name in (RANDOM_INIT, BAND_STATISTICS):
        baseline = [score.fit.r2_mean for score in by_encoder[name]]
        margin = paired_margin(pretrained, baseline if len(baseline) == len(pretrained) else baseline * len(pretrained))
        values = {key: _number(value) if isinstance(value, float) else value for key, value in asdict(margin).items()}
        margins[name] = values | {"excludes_zero": margin.excludes_zero}
    return {
        "target": probe.target,
        "classes": [code for code, varies in zip(chips.codes, varies_c, strict=True) if varies],
        "train_chips": train,
        "test_chips": test,
        "seeds": [score.seed for score in by_encoder[PRETRAINED]],
        "confidence": 0.95,
        "encoders": encoders,
        "margins_over": margins,
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


_PROBE = pa.schema(
    [
        ("encoder", pa.string()),
        ("seed", pa.int64()),
        ("class", pa.int32()),
        ("r2", pa.float64()),
        ("alpha", pa.float64()),
        ("train_chips", pa.int32()),
        ("test_chips", pa.int32()),
    ]
)
