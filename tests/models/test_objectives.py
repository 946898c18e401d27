"""What all objectives promise, and what each of them is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from eo_batch.core.learning import (
    AnyEncoder,
    ClipSpec,
    DinoSpec,
    ElevationSpec,
    EncoderSpec,
    ObjectiveSpec,
    ResNetSpec,
    SimClrSpec,
    ViewSpec,
)
from eo_batch.models.batch import Batch
from eo_batch.models.checkpoints import dump_checkpoint, load_checkpoint
from eo_batch.models.encoder import MultiSensorViT, SensorShape
from eo_batch.models.objectives.base import Objective
from eo_batch.models.objectives.build import build, build_encoder
from eo_batch.models.objectives.clip import Clip
from eo_batch.models.objectives.dino import Dino
from eo_batch.models.objectives.elevation import WithElevation
from eo_batch.models.objectives.simclr import SimClr
from eo_batch.models.training import TrainConfig, train
from eo_batch.models.views import numbers, view
from eo_batch.models.world import World
from tests.models.conftest import CONFIG, MAE, SHAPES, drawn, losses_of, make_samples

DINO = DinoSpec(prototypes=32, hidden=16, bottleneck=8, local_views=2)
SIMCLR = SimClrSpec(hidden=16, projection=8)
CLIP = ClipSpec(projection=8, drop_bands=0.3)
SPECS: dict[str, ObjectiveSpec] = {"mae": MAE, "dino": DINO, "simclr": SIMCLR, "clip": CLIP}
GOLDEN = {"mae": 1.8841, "dino": 3.8908, "simclr": 2.7407, "clip": 4.6994}


RESNET = ResNetSpec(width=8)
ANY = [*((name, CONFIG) for name in SPECS), *((name, RESNET) for name in SPECS if name != "mae")]
"""Objectives and the encoders that they take."""


def made(name: str, encoder: AnyEncoder = CONFIG) -> Objective:
    return build(SHAPES, encoder, SPECS[name], seed=3)


def batch_of(count: int) -> Batch:
    return make_samples(count).read(range(count))


@pytest.mark.parametrize("name", SPECS)
def test_losses_stay_what_they_were(name: str) -> None:
    """Golden values: a change of the encoder, the views or the loss shows here. Loose enough for other CPUs."""
    assert losses_of(made(name), batch_of(8)).total.item() == pytest.approx(GOLDEN[name], rel=2e-3)


@pytest.mark.parametrize(("name", "encoder"), ANY)
def test_the_encoder_starts_as_its_untrained_twin(name: str, encoder: AnyEncoder) -> None:
    twin = build_encoder(SHAPES, encoder, seed=3).state_dict()
    assert all(torch.equal(twin[key], value) for key, value in made(name, encoder).encoder.state_dict().items())


@pytest.mark.parametrize("pool", ["mean", "cls"])
@pytest.mark.parametrize("name", SPECS)
def test_gradients_reach_every_parameter_that_is_trained(name: str, pool: str) -> None:
    model = made(name, EncoderSpec(dim=16, depth=2, heads=2, pool=pool))
    batch = batch_of(8)
    for valid in batch.valid_nbyx.values():
        valid[:4, 0, ::3] = False
    losses_of(model, batch).total.backward()
    silent = {n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())}
    assert silent == set()


@pytest.mark.parametrize(("name", "encoder"), ANY)
def test_what_is_invalid_never_matters(name: str, encoder: AnyEncoder) -> None:
    model, batch = made(name, encoder).eval(), batch_of(6)
    batch.valid_nbyx["s2"][:, :, ::4, ::3] = False
    batch.valid_nbyx["s1"][2] = False
    wild = {n: torch.where(batch.valid_nbyx[n], pixels, torch.nan) for n, pixels in batch.pixels_nbyx.items()}
    assert torch.equal(losses_of(model, Batch(wild, batch.valid_nbyx)).total, losses_of(model, batch).total)


@pytest.mark.parametrize(("name", "encoder"), ANY)
def test_a_batch_without_observations_has_no_loss_and_no_nan(name: str, encoder: AnyEncoder) -> None:
    model, batch = made(name, encoder), batch_of(4)
    nothing = Batch(batch.pixels_nbyx, {n: torch.zeros_like(valid) for n, valid in batch.valid_nbyx.items()})
    losses = losses_of(model, nothing)
    losses.total.backward()
    model.stepped(0.5, World.alone())
    assert losses.by_term == {}
    assert losses.total.item() == 0
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", SPECS)
def test_it_is_learnt(name: str) -> None:
    values = learnt(made(name), batch_of(16), 60)
    assert values[-1] < 0.9 * values[0]


def test_a_residual_network_learns() -> None:
    rng, px = np.random.default_rng(0), 64
    row, col = np.mgrid[:px, :px] / px
    wide, angle = rng.uniform(2, 9, (16, 1, 1)), rng.uniform(0, np.pi, (16, 1, 1))
    waves = torch.from_numpy(np.sin(2 * np.pi * wide * (np.cos(angle) * col + np.sin(angle) * row)).astype(np.float32))
    pixels = waves[:, None].repeat(1, 2, 1, 1)
    spec = SIMCLR.model_copy(update={"temperature": 0.2})
    model = build([SensorShape("s1", 2, px, 1)], RESNET, spec, seed=3)
    values = learnt(model, Batch({"s1": pixels}, {"s1": torch.ones_like(pixels).bool()}), 30)
    assert values[-1] < 0.4 * values[0]


def learnt(model: Objective, batch: Batch, steps: int) -> list[float]:
    """Losses of one batch that is learnt by heart."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    draw = drawn(model, batch)
    values = []
    for step in range(steps):
        optimizer.zero_grad()
        loss = model.terms(batch, draw, World.alone()).losses().total
        loss.backward()
        optimizer.step()
        model.stepped((step + 1) / steps, World.alone())
        values.append(loss.item())
    return values


@torch.no_grad()
def test_a_residual_network_sees_what_is_there_whoever_stands_beside() -> None:
    encoder, batch = build_encoder(SHAPES, RESNET, seed=3).eval(), batch_of(4)
    whole = encoder(batch)
    assert whole.pooled_nd.shape == (4, encoder.width)
    assert whole.sides == (1,)
    alone = encoder(
        Batch({n: p[:1] for n, p in batch.pixels_nbyx.items()}, {n: v[:1] for n, v in batch.valid_nbyx.items()})
    )
    assert torch.allclose(alone.pooled_nd, whole.pooled_nd[:1], atol=1e-5)
    without = Batch(batch.pixels_nbyx, {**batch.valid_nbyx, "s2": torch.zeros_like(batch.valid_nbyx["s2"])})
    assert torch.allclose(encoder(without).pooled_nd, encoder(batch.only(["s1"])).pooled_nd, atol=1e-5)
    assert not torch.allclose(encoder(without).pooled_nd, whole.pooled_nd, atol=1e-2)


@pytest.mark.parametrize(("name", "encoder"), ANY)
def test_resuming_is_bit_equal_to_never_having_stopped(name: str, encoder: AnyEncoder) -> None:
    config = TrainConfig(
        seed=9, steps=6, batch=8, lr=3e-3, weight_decay=0.05, warmup_steps=2, clip_norm=1.0,
        checkpoint_every_steps=3, validate_every_steps=3,
    )  # fmt: skip
    kept: dict[int, bytes] = {}

    def ended(resume: bytes | None) -> dict[str, Tensor]:
        model = made(name, encoder)
        before = None if resume is None else load_checkpoint(resume, "x")
        train(
            model, make_samples(20), make_samples(5, seed=1), config,
            lambda checkpoint: kept.__setitem__(checkpoint.step, dump_checkpoint(checkpoint)), before,
        )  # fmt: skip
        return model.state_dict()

    whole = ended(None)
    resumed = ended(kept[3])
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())


def test_nt_xent_is_that_of_its_definition() -> None:
    model, batch = build(SHAPES, CONFIG, SIMCLR, seed=3), batch_of(5)
    assert isinstance(model, SimClr)
    draw = drawn(model, batch)
    units = torch.cat(
        [model.projection(model.encoder(view(model.encoder, batch, r, SIMCLR.views)).pooled_nd) for r in draw.values()]
    )
    scores = (functional.cosine_similarity(units[:, None], units[None], dim=2) / SIMCLR.temperature).exp()
    expected = []
    for i in range(10):
        partner = (i + 5) % 10
        others = sum(scores[i, j] for j in range(10) if j != i)
        expected.append(-(scores[i, partner] / others).log())
    assert losses_of(model, batch).total.item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-5)


def test_chips_that_lack_a_sensor_are_no_candidates_of_its_pairs() -> None:
    model, batch = build(SHAPES, CONFIG, ClipSpec(projection=8), seed=3), batch_of(6)
    few = Batch({n: p[:4] for n, p in batch.pixels_nbyx.items()}, {n: v[:4] for n, v in batch.valid_nbyx.items()})
    batch.valid_nbyx["s2"][4:] = False
    assert isinstance(model, Clip)
    found, expected = losses_of(model, batch), losses_of(model, few)
    assert set(found.by_term) == {"s1+s2"}
    assert found.total.item() == pytest.approx(expected.total.item(), rel=1e-5)


def test_clip_compares_sensors_and_needs_two() -> None:
    with pytest.raises(ValueError, match="only s1"):
        build(SHAPES[:1], CONFIG, CLIP, seed=3)


def test_hidden_bands_have_no_influence_and_one_always_stays() -> None:
    model = build(SHAPES, CONFIG, ClipSpec(drop_bands=0.9), seed=3)
    assert isinstance(model, Clip)
    batch = batch_of(4)
    draw = {"s1": torch.tensor([[0.1, 0.2]] * 4), "s2": torch.tensor([[0.95, 0.1, 0.2]] * 4)}
    loud = {**batch.pixels_nbyx, "s2": batch.pixels_nbyx["s2"].clone()}
    loud["s2"][:, 1:] = 1e6
    units, exist = model.projected(Batch(loud, batch.valid_nbyx), "s2", draw)
    assert exist.all()
    assert torch.equal(units, model.projected(batch, "s2", draw)[0])
    assert model.projected(batch, "s1", draw)[1].all()


def test_the_teacher_follows_and_the_centre_is_the_mean_of_its_outputs() -> None:
    model = build(SHAPES, CONFIG, DINO.model_copy(update={"teacher_momentum": 0.5, "centre_momentum": 0.0}), seed=3)
    assert isinstance(model, Dino)
    losses_of(model, batch_of(8))
    before = [p.clone() for p in model.teacher.parameters()]
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(1.0)
    model.stepped(1e-9, World.alone())
    moved = [new - old for new, old in zip(model.teacher[0].parameters(), before, strict=False)]
    assert all(torch.allclose(step, torch.full_like(step, 0.5), atol=1e-6) for step in moved)
    views = drawn(model, batch_of(8))
    shown = [view(model.encoder, batch_of(8), views[f"view_{n}_nr"], DINO.views) for n in (0, 1)]
    start = build(SHAPES, CONFIG, DINO, seed=3)
    assert isinstance(start, Dino)
    outputs = torch.cat([start.head(start.encoder(part).pooled_nd) for part in shown])
    assert torch.allclose(model.centre_k, outputs.mean(dim=0), atol=1e-6)


def test_a_teacher_that_keeps_all_of_itself_never_learns() -> None:
    model = build(SHAPES, CONFIG, DINO.model_copy(update={"teacher_momentum": 1.0}), seed=3)
    assert isinstance(model, Dino)
    losses_of(model, batch_of(8))
    before = [p.clone() for p in model.teacher.parameters()]
    with torch.no_grad():
        model.head.prototypes_kd.add_(1.0)
    model.stepped(0.7, World.alone())
    assert all(torch.equal(old, new) for old, new in zip(before, model.teacher.parameters(), strict=True))


def heights(count: int) -> Batch:
    """The usual samples, and a raster of heights of 6 pixels a side, which no encoder sees."""
    batch = batch_of(count)
    slope = torch.linspace(-1, 1, 6).expand(count, 1, 6, 6).contiguous()
    return Batch({**batch.pixels_nbyx, "dem": slope}, {**batch.valid_nbyx, "dem": torch.ones_like(slope).bool()})


def with_elevation(weight: float) -> WithElevation:
    model = build(SHAPES, CONFIG, MAE, 3, (ElevationSpec(array="dem", weight=weight), 0))
    assert isinstance(model, WithElevation)
    return model


def test_heights_are_a_further_term() -> None:
    model, batch = with_elevation(0.25), heights(4)
    losses = losses_of(model, batch)
    main = losses_of(model.main, batch.only(["s1", "s2"]))
    assert losses.by_term["s1"].item() == pytest.approx(main.by_term["s1"].item())
    expected = main.total + 0.25 * losses.by_term["elevation"]
    assert losses.total.item() == pytest.approx(expected.item())
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.zero_()
    cells = torch.linspace(-1, 1, 6).repeat_interleave(4).reshape(4, 6).mean(dim=1)
    assert losses_of(model, batch).by_term["elevation"].item() == pytest.approx(cells.square().mean().item(), rel=1e-4)


def test_ground_without_heights_does_not_count() -> None:
    model, batch = with_elevation(0.5), heights(4)
    half = batch.valid_nbyx["dem"].clone()
    half[:, :, :, 3:] = False
    wild = torch.where(half, batch.pixels_nbyx["dem"], torch.nan)
    found = losses_of(model, Batch({**batch.pixels_nbyx, "dem": wild}, {**batch.valid_nbyx, "dem": half}))
    assert torch.isfinite(found.total)
    none = Batch(batch.pixels_nbyx, {**batch.valid_nbyx, "dem": torch.zeros_like(half)})
    assert "elevation" not in losses_of(model, none).by_term


def random_numbers(count: int, **fixed: float) -> Tensor:
    """Random numbers of views, those for size, row, column and turn as given."""
    encoder = MultiSensorViT.build(SHAPES, CONFIG, seed=0)
    found = torch.from_numpy(np.random.default_rng(5).random((count, numbers(encoder)), dtype=np.float32))
    for name, value in fixed.items():
        found[:, ("size", "row", "col", "turn").index(name)] = value
    return found


PLAIN = ViewSpec(area=(1.0, 1.0), turn=False, gain=0, shift=0)


def test_a_view_of_all_is_the_chip() -> None:
    encoder, batch = MultiSensorViT.build(SHAPES, CONFIG, seed=0), batch_of(3)
    shown = view(encoder, batch, random_numbers(3), PLAIN)
    for name, pixels in batch.pixels_nbyx.items():
        assert torch.allclose(shown.pixels_nbyx[name], pixels, atol=1e-5)
        assert shown.valid_nbyx[name].all()


@pytest.mark.parametrize("turn", range(8))
def test_turned_views_are_the_chip_s_eight_symmetries_in_all_sensors(turn: int) -> None:
    encoder, batch = MultiSensorViT.build(SHAPES, CONFIG, seed=0), batch_of(1)
    spec = PLAIN.model_copy(update={"turn": True})
    shown = view(encoder, batch, random_numbers(1, turn=(turn + 0.5) / 8), spec)
    matches = []
    for name, pixels in batch.pixels_nbyx.items():
        every = [torch.rot90(p, k, (2, 3)) for p in (pixels, pixels.flip(3)) for k in range(4)]
        matches.append([n for n, p in enumerate(every) if torch.allclose(p, shown.pixels_nbyx[name], atol=1e-5)])
    assert len(matches[0]) == 1
    assert matches[0] == matches[1]


def test_the_eight_turns_differ() -> None:
    encoder, batch = MultiSensorViT.build(SHAPES, CONFIG, seed=0), batch_of(1)
    spec = PLAIN.model_copy(update={"turn": True})
    found = [view(encoder, batch, random_numbers(1, turn=(n + 0.5) / 8), spec).pixels_nbyx["s1"] for n in range(8)]
    assert all(not torch.allclose(found[a], found[b], atol=1e-3) for a in range(8) for b in range(a))


def test_a_quarter_shows_a_quarter() -> None:
    shapes = (SensorShape("s1", 1, 16, 4),)
    encoder = MultiSensorViT.build(shapes, CONFIG, seed=0)
    ramp = torch.arange(16.0).expand(1, 1, 16, 16)
    batch = Batch({"s1": ramp}, {"s1": torch.ones_like(ramp).bool()})
    random = torch.zeros(1, numbers(encoder))
    random[:, 2] = 1.0  # column: as far right as it goes
    shown = view(encoder, batch, random, PLAIN.model_copy(update={"area": (0.25, 0.25)}), share=0.5)
    assert shown.pixels_nbyx["s1"].shape == (1, 1, 8, 8)
    assert torch.allclose(shown.pixels_nbyx["s1"][0, 0, 0], torch.arange(8.0, 16.0), atol=1e-4)


def test_dropped_sensors_are_invalid_and_one_always_stays() -> None:
    encoder, batch = MultiSensorViT.build(SHAPES, CONFIG, seed=0), batch_of(200)
    shown = view(encoder, batch, random_numbers(200), PLAIN.model_copy(update={"drop": 0.5}))
    there = torch.stack([valid.flatten(1).any(dim=1) for valid in shown.valid_nbyx.values()])
    assert there.any(dim=0).all()
    assert 0.3 < (~there.all(dim=0)).float().mean() < 0.95
    batch.valid_nbyx["s1"][:] = False  # what has only one sensor keeps it
    shown = view(encoder, batch, random_numbers(200), PLAIN.model_copy(update={"drop": 0.9}))
    assert shown.valid_nbyx["s2"].flatten(1).any(dim=1).all()
