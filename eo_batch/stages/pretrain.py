"""Stage `pretrain`: one encoder for each seed, trained on chips that no probe is tested on.

checkpoints/seed-N-DATA/step-….ckpt           the last two, to resume from
metrics/loss-seed-N.parquet              one row a step: losses of training and validation, and of each of their terms
metrics/reconstructions-seed-N.npz       masked autoencoders: a few validation chips, what was given, hidden, filled in
models/seed-N.safetensors, .json         the encoder's weights, and the card (STAC MLM) that describes it

Dims: `n` sample, `b` band, `y` row, `x` column.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eo_batch.core import layout
from eo_batch.core.digest import digest
from eo_batch.core.errors import DataError
from eo_batch.core.grid import Cells, block_of
from eo_batch.core.identity import Identity
from eo_batch.core.learning_plan import LearningArray, learning_arrays, learning_bins, target_arrays
from eo_batch.core.plan import Axes
from eo_batch.core.receipts import Note, Receipt
from eo_batch.core.spec import RunSpec
from eo_batch.core.splits import split_cells
from eo_batch.io.cube import CubeReader
from eo_batch.io.plans import load_found_shards
from eo_batch.io.store import Store
from eo_batch.io.tables import parquet_bytes
from eo_batch.models.batch import Samples
from eo_batch.models.card import ModelCard
from eo_batch.models.checkpoints import Checkpoint, dump_checkpoint, dump_weights, load_checkpoint
from eo_batch.models.encoder import SensorShape
from eo_batch.models.inputs import BandScaling
from eo_batch.models.objectives.base import Objective
from eo_batch.models.objectives.build import build, build_encoder
from eo_batch.models.objectives.elevation import WithElevation
from eo_batch.models.objectives.mae import MaskedAutoencoder
from eo_batch.models.samples import CubeSamples, InputArray, Place
from eo_batch.models.training import Row, Stream, TrainConfig, generator, reproducible, train
from eo_batch.models.world import World
from eo_batch.settings import keep_cublas_deterministic

SHOWN_SAMPLES = 6
"""Validation samples whose reconstruction is kept for people."""
KEPT_CHECKPOINTS = 2
"""The newest can be unreadable after a crash; the one before it is whole."""


def run(
    spec: RunSpec,
    seed: int,
    cells: Cells,
    axes: Axes,
    store: Store,
    progress: Callable[[int], None] = lambda step: None,
    world: World | None = None,
) -> Receipt:
    """Train one seed, from its last whole checkpoint if there is one. `progress` is told the number of steps done.

    The processes of `world` (None: this one alone) train the one seed together. The first of them writes; all return
    the same receipt when everything is written. Raises DataError where there is nothing to train on or training
    diverges.
    """
    world = world or World.alone()
    if world.device.type == "cuda":
        keep_cublas_deterministic()
    notes: list[Note] = []
    with reproducible(spec.pretrain.threads):
        with world.together():
            material = _material(spec, cells, axes, store)
            model = _objective(spec, seed, material).to(world.device)
        keeper = _Checkpoints(store, Identity(spec).prefix("pretrain"), seed, material.data)
        resume = keeper.last_whole(world, notes)
        curve = train(
            model, material.samples, material.validation, _config(spec, seed), keeper.save, resume, progress, world
        )
        outputs = world.lead(lambda: _write(spec, seed, store, material, model, curve))
    return Receipt(
        stage="pretrain",
        shard=f"seed-{seed}",
        inputs=Identity(spec).prefix("pretrain"),
        outputs={key: size for key, (size, _) in outputs.items()},
        digests={key: sha256 for key, (_, sha256) in outputs.items()},
        notes=tuple(notes),
        software={"device": world.hardware, "processes": str(world.size)},
    )


@dataclass(frozen=True)
class _Material:
    """What a seed is trained on."""

    arrays: tuple[InputArray, ...]
    """What the encoder sees."""
    samples: Samples
    validation: Samples
    held: Sequence[tuple[str, str]]
    """Chip and time bin of each validation sample."""
    data: str
    """Digest of the statistics, which tells these pixels from others."""

    @property
    def shapes(self) -> list[SensorShape]:
        """Sizes of the arrays."""
        return [array.shape for array in self.arrays]


def _material(spec: RunSpec, cells: Cells, axes: Axes, store: Store) -> _Material:
    identity = Identity(spec)
    stats = json.loads(store.get(f"{identity.prefix('publish')}/stats.json"))
    arrays, targets = (_input_arrays(found, stats) for found in (learning_arrays(spec), target_arrays(spec)))
    training, validation, held = _places(spec, cells, axes, store)
    reader = CubeReader(store, identity.prefix("chips"))
    samples, held_samples = (
        _samples(CubeSamples(reader, arrays + targets, places), spec) for places in (training, validation)
    )
    return _Material(arrays, samples, held_samples, held, digest(stats))


def _write(
    spec: RunSpec, seed: int, store: Store, material: _Material, model: Objective, curve: Sequence[Row]
) -> dict[str, tuple[int, str]]:
    """Write what training gave; bytes and SHA-256 of every object, by key relative to the stage's prefix."""
    prefix = Identity(spec).prefix("pretrain")
    encoder = spec.pretrain.encoder
    weights, weights_key = dump_weights(model.encoder.state_dict()), layout.weights(prefix, seed)
    untrained = build_encoder(material.shapes, encoder, seed)
    card = ModelCard(
        name=f"{spec.name}, seed {seed}",
        seed=seed,
        arrays=material.arrays,
        encoder=encoder,
        objective=spec.pretrain.objective.model_dump(mode="json"),
        hyperparameters={
            **spec.pretrain.model_dump(mode="json", exclude={"seeds", "encoder", "objective"}),
            "samples": len(material.samples),
            "validation_samples": len(material.validation),
        },
        weights=weights_key.removeprefix(f"{prefix}/"),
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        untrained_sha256=hashlib.sha256(dump_weights(untrained.state_dict())).hexdigest(),
    )
    written = {
        layout.losses(prefix, seed): parquet_bytes(_curve_table(curve)),
        weights_key: weights,
        layout.model_card(prefix, seed): card.to_bytes(),
    }
    panels = _panels(model, material, seed)
    if panels is not None:
        written[layout.metrics(prefix, f"reconstructions-seed-{seed}.npz")] = panels
    for key, data in written.items():
        store.put(key, data)
    return {k.removeprefix(f"{prefix}/"): (len(data), hashlib.sha256(data).hexdigest()) for k, data in written.items()}


def _input_arrays(
    arrays: Sequence[LearningArray], stats: dict[str, dict[str, dict[str, float]]]
) -> tuple[InputArray, ...]:
    found = []
    for learning in arrays:
        array = learning.array
        # A band without a valid training pixel tells nothing: a deviation of 0 makes it 0 wherever it occurs.
        bands = [stats.get(array.name, {}).get(band, {"mean": 0.0, "std": 0.0}) for band in array.band_names]
        scaling = BandScaling(
            array.spec.info.model_scale, tuple(band["mean"] for band in bands), tuple(band["std"] for band in bands)
        )
        shape = SensorShape(array.name, len(array.bands), array.chip_px, learning.patch_px)
        found.append(InputArray(shape, array.band_names, array.spec.info.static, scaling))
    return tuple(found)


def _places(
    spec: RunSpec, cells: Cells, axes: Axes, store: Store
) -> tuple[tuple[Place, ...], tuple[Place, ...], list[tuple[str, str]]]:
    """Places of training and of validation samples, and chip and time bin of the latter.

    Held-out chips and the buffer around them are in neither: an encoder that has seen the test chips, even without
    labels, would be judged on what it learnt by heart. All bins of a chip go the same way.
    """
    training: list[Place] = []
    validation: list[Place] = []
    held: list[tuple[str, str]] = []
    side = spec.grid.block_chips
    all_blocks = cells.blocks(side)
    bins = learning_bins(spec, all_blocks, load_found_shards(store, Identity(spec).prefix("plan"), spec, cells))
    first_slots = {block: axes.first_slot(block) for block in all_blocks}
    for planned, split in zip(cells, split_cells(cells, spec.split), strict=True):
        if split != "train" or not planned.owner:
            continue
        chip_id, block = planned.cell.chip_id, block_of(planned.cell, side)
        is_held = _draw(chip_id) < spec.pretrain.val_fraction
        for bin_key, blocks in bins.items():
            if block not in blocks:
                continue
            place = Place(first_slots[block] + block.place(planned.cell), axes.time_index(bin_key))
            (validation if is_held else training).append(place)
            if is_held:
                held.append((chip_id, bin_key))
    return tuple(training), tuple(validation), held


def _draw(chip_id: str) -> float:
    """A number in [0, 1) that depends on the chip alone: a larger area moves no chip to the other side."""
    return int.from_bytes(hashlib.sha256(f"validation/{chip_id}".encode()).digest()[:8], "big") / 2**64


def _config(spec: RunSpec, seed: int) -> TrainConfig:
    chosen = spec.pretrain
    return TrainConfig(
        seed=seed,
        steps=chosen.steps,
        batch=chosen.batch,
        lr=chosen.lr,
        weight_decay=chosen.weight_decay,
        warmup_steps=chosen.warmup_steps,
        clip_norm=chosen.clip_norm,
        checkpoint_every_steps=chosen.checkpoint_every_steps,
        validate_every_steps=chosen.validate_every_steps,
    )


def _objective(spec: RunSpec, seed: int, material: _Material) -> Objective:
    chosen, elevation = spec.pretrain.elevation, None
    if chosen is not None:
        (target,) = target_arrays(spec)
        elevation = chosen, target.array.band_names.index(chosen.band)
    return build(material.shapes, spec.pretrain.encoder, spec.pretrain.objective, seed, elevation)


def _samples(samples: CubeSamples, spec: RunSpec) -> Samples:
    return samples.in_memory() if samples.nbytes <= spec.pretrain.memory_gb * 1e9 else samples


class _Checkpoints:
    """The checkpoints of one seed, which the first process writes and all read."""

    def __init__(self, store: Store, prefix: str, seed: int, data: str) -> None:
        self._store, self._prefix, self._seed, self._data = store, prefix, seed, data

    def _keys(self) -> list[str]:
        return sorted(self._store.list(layout.checkpoints_prefix(self._prefix, self._seed, self._data)))

    def save(self, checkpoint: Checkpoint) -> None:
        """Write one, then delete all but the newest two."""
        key = layout.checkpoint(self._prefix, self._seed, self._data, checkpoint.step)
        self._store.put(key, dump_checkpoint(checkpoint), expires=True)
        for old in [known for known in self._keys() if known <= key][:-KEPT_CHECKPOINTS]:
            self._store.delete(old)

    def last_whole(self, world: World, notes: list[Note]) -> Checkpoint | None:
        """The newest checkpoint that is whole for every process; what was refused on the way goes into `notes`."""
        for key in reversed(world.lead(self._keys)):
            try:
                with world.together():
                    checkpoint = load_checkpoint(self._store.get(key), key)
            except DataError as error:
                notes.append(Note(subject=key, text=str(error)))
            else:
                return checkpoint
        return None


def _curve_table(curve: Sequence[dict[str, float]]) -> pa.Table:
    names = sorted({name for row in curve for name in row}, key=lambda name: (name not in ("step", "lr"), name))
    return pa.table({name: pa.array([row.get(name) for row in curve], pa.float64()) for name in names})


def _panels(model: Objective, material: _Material, seed: int) -> bytes | None:
    """Of masked autoencoders an npz of up to six validation samples, spread over all of them; None of others.

    Keys: `chip_id`, `bin`, and for each array `<array>.given` and `.filled` (n, b, y, x) on the scale of the
    statistics (dB for Sentinel-1), NaN where invalid; `.masked` (n, y, x), True where the pixel was hidden and
    filled in.
    """
    model = model.main if isinstance(model, WithElevation) else model
    if not isinstance(model, MaskedAutoencoder):
        return None
    samples, held = material.validation, material.held
    chosen = sorted(set(np.linspace(0, len(samples) - 1, SHOWN_SAMPLES).astype(int).tolist())) if len(samples) else []
    content: dict[str, Any] = {
        "chip_id": np.array([held[i][0] for i in chosen], dtype=np.str_),
        "bin": np.array([held[i][1] for i in chosen], dtype=np.str_),
    }
    if chosen:
        model.eval()
        batch = samples.read(chosen).only(array.shape.name for array in material.arrays)
        draw = model.draw(generator(seed, Stream.PANELS, 0), batch, len(chosen))
        device = next(model.parameters()).device
        shown = model.reconstruct(batch.to(device), {name: v.to(device) for name, v in draw.items()}).to("cpu")
        for array in material.arrays:
            name, scaling = array.shape.name, array.scaling
            std_b11 = np.array(scaling.std_b, np.float32)[:, None, None]
            mean_b11 = np.array(scaling.mean_b, np.float32)[:, None, None]
            valid = batch.valid_nbyx[name].numpy()
            masked_nyx = shown.masked_nyx[name].numpy()
            for kind, pixels in (("given", batch.pixels_nbyx[name]), ("filled", shown.pixels_nbyx[name])):
                seen = valid | masked_nyx[:, None] if kind == "filled" else valid
                content[f"{name}.{kind}"] = np.where(seen, pixels.numpy() * std_b11 + mean_b11, np.float32(np.nan))
            content[f"{name}.masked"] = masked_nyx
    return _npz(content)


def _npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """What `np.savez` writes, the same with every Python: sizes are known before entries are begun, and nothing is
    compressed, since the system's zlib packs in its own way.
    """
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, array in arrays.items():
            entry = io.BytesIO()
            np.lib.format.write_array(entry, np.asarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), entry.getvalue())
    return sink.getvalue()
