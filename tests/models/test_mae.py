"""The objective: what counts, what is hidden, what can be learnt."""

import pytest
import torch

from eo_batch.models.batch import Batch
from eo_batch.models.encoder import MultiSensorViT
from eo_batch.models.objectives.mae import choose_masking
from eo_batch.models.patches import unpatchify
from tests.models.conftest import CONFIG, SHAPES, drawn, fresh_mae, losses_of, make_samples


def test_the_share_of_existing_tokens_is_hidden():
    valid = torch.ones(3, 20, dtype=torch.bool)
    valid[1, 10:] = False
    valid[2] = False
    masking = choose_masking(valid, torch.rand(3, 20, generator=torch.Generator().manual_seed(0)), 0.6)
    assert masking.masked_nt.sum(dim=1).tolist() == [12, 6, 0]
    assert masking.present_nv.sum(dim=1).tolist() == [8, 4, 0]
    assert not (masking.masked_nt & ~valid).any()
    seen = [set(masking.order_nv[n][masking.present_nv[n]].tolist()) for n in range(2)]
    for n in range(2):
        hidden = set(masking.masked_nt[n].nonzero().flatten().tolist())
        assert seen[n] | hidden == set(valid[n].nonzero().flatten().tolist())
        assert not seen[n] & hidden


def test_one_token_always_stays_visible():
    valid = torch.zeros(1, 8, dtype=torch.bool)
    valid[0, 5] = True
    masking = choose_masking(valid, torch.zeros(1, 8), 0.9)
    assert masking.order_nv[0, 0] == 5
    assert not masking.masked_nt.any()


@torch.no_grad()
@pytest.mark.parametrize("normalise", [True, False])
def test_only_hidden_valid_pixels_count(normalise):
    mae = fresh_mae(normalise_targets=normalise).eval()
    batch = make_samples(4).read(range(4))
    valid = torch.ones_like(batch.valid_nbyx["s2"])
    valid[:, :, ::4, ::3] = False
    wild = Batch(
        {**batch.pixels_nbyx, "s2": torch.where(valid, batch.pixels_nbyx["s2"], torch.tensor(float("nan")))},
        {**batch.valid_nbyx, "s2": valid},
    )
    calm = Batch(
        {**batch.pixels_nbyx, "s2": torch.where(valid, batch.pixels_nbyx["s2"], 0.0)},
        {**batch.valid_nbyx, "s2": valid},
    )
    assert torch.equal(losses_of(mae, wild).total, losses_of(mae, calm).total)


@torch.no_grad()
def test_the_loss_is_the_mean_squared_error_of_what_reconstruct_shows():
    """Two independent ways to one number: the loss, and the picture it is the loss of."""
    mae = fresh_mae(normalise_targets=False).eval()
    batch = make_samples(4).read(range(4))
    losses, shown = losses_of(mae, batch), mae.reconstruct(batch, drawn(mae, batch))
    for shape in SHAPES:
        hidden = shown.masked_nyx[shape.name][:, None].expand_as(batch.pixels_nbyx[shape.name])
        errors = (shown.pixels_nbyx[shape.name] - batch.pixels_nbyx[shape.name])[hidden]
        assert torch.allclose(losses.by_term[shape.name], errors.square().mean(), rtol=1e-5)
        visible = ~hidden
        assert torch.equal(shown.pixels_nbyx[shape.name][visible], batch.pixels_nbyx[shape.name][visible])
    assert torch.allclose(losses.total, torch.stack(list(losses.by_term.values())).mean())


@torch.no_grad()
def test_hidden_pixels_reach_nothing_but_the_target(mae):
    batch = make_samples(2).read(range(2))
    draw = drawn(mae, batch)
    before = mae.reconstruct(batch, draw)
    hidden = before.masked_nyx["s1"][:, None]
    changed = Batch(
        {
            **batch.pixels_nbyx,
            "s1": torch.where(hidden, batch.pixels_nbyx["s1"].flip(3), batch.pixels_nbyx["s1"]),
        },
        batch.valid_nbyx,
    )
    predicted = mae._predict(batch, draw["noise_nt"])[1]
    again = mae._predict(changed, draw["noise_nt"])[1]
    assert all(torch.equal(predicted[name], again[name]) for name in predicted)
    assert not torch.equal(changed.pixels_nbyx["s1"], batch.pixels_nbyx["s1"])


@torch.no_grad()
def test_normalised_targets_ignore_level_and_contrast_of_a_patch(mae):
    batch = make_samples(2).read(range(2))
    shape = SHAPES[0]
    target, _, _, _ = mae._targets(batch, shape)
    louder = Batch({**batch.pixels_nbyx, "s1": 5.0 * batch.pixels_nbyx["s1"] + 3.0}, batch.valid_nbyx)
    again, _, mean, std = mae._targets(louder, shape)
    assert torch.allclose(target, again, atol=2e-2)
    assert torch.allclose(unpatchify(again * std + mean, 4), louder.pixels_nbyx["s1"], atol=1e-4)
    assert torch.allclose(target.mean(dim=3), torch.zeros(()), atol=1e-5)


def test_gradients_reach_every_parameter(mae):
    losses_of(mae, make_samples(4).read(range(4))).total.backward()
    silent = [n for n, p in mae.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # With nothing missing, the code for what is missing has nothing to learn.
    assert silent == ["encoder.embeddings.s1.missing.weight", "encoder.embeddings.s2.missing.weight"]


def test_a_batch_without_observations_has_no_loss_and_no_nan(mae):
    batch = make_samples(2).read(range(2))
    nothing = Batch(batch.pixels_nbyx, {name: torch.zeros_like(v) for name, v in batch.valid_nbyx.items()})
    losses = losses_of(mae, nothing)
    losses.total.backward()
    assert losses.by_term == {}
    assert losses.total.item() == 0
    assert all(torch.isfinite(p.grad).all() for p in mae.parameters() if p.grad is not None)


def test_the_encoder_starts_as_its_untrained_twin(mae):
    twin = MultiSensorViT.build(SHAPES, CONFIG, seed=3).state_dict()
    assert all(torch.equal(twin[key], value) for key, value in mae.encoder.state_dict().items())


def test_one_batch_can_be_learnt_by_heart(mae):
    batch = make_samples(8).read(range(8))
    optimizer = torch.optim.AdamW(mae.parameters(), lr=3e-3)
    first = losses_of(mae, batch).total.item()
    for _ in range(250):
        optimizer.zero_grad()
        loss = losses_of(mae, batch).total
        loss.backward()
        optimizer.step()
    assert first > 0.9
    assert loss.item() < 0.25 * first
