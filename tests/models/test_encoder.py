"""The encoder: what is missing has no influence, what is there has its place."""

import numpy as np
import pytest
import torch

from eo_batch.models.batch import Batch
from eo_batch.models.encoder import MultiSensorViT, SensorShape
from eo_batch.models.patches import patchify, positions, unpatchify
from tests.models.conftest import CONFIG, SHAPES, make_samples


def with_invalid(batch: Batch, name: str, valid: torch.Tensor, fill: float) -> Batch:
    """The batch with pixels of one sensor made invalid, holding `fill`."""
    pixels = torch.where(valid, batch.pixels_nbyx[name], torch.tensor(fill))
    return Batch({**batch.pixels_nbyx, name: pixels}, {**batch.valid_nbyx, name: valid})


def test_patches_are_cut_row_major_and_put_back():
    values = torch.arange(2 * 3 * 8 * 8, dtype=torch.float32).reshape(2, 3, 8, 8)
    patches = patchify(values, 4)
    assert patches.shape == (2, 4, 3, 16)
    assert torch.equal(patches[0, 1, 2].reshape(4, 4), values[0, 2, 0:4, 4:8])  # second patch: right of the first
    assert torch.equal(patches[1, 2, 0].reshape(4, 4), values[1, 0, 4:8, 0:4])
    assert torch.equal(unpatchify(patches, 4), values)


def test_patches_at_one_place_share_their_position_whatever_the_pixel_size():
    fine, coarse = (positions(side, 6, 32, torch.device("cpu")) for side in (6, 2))
    # The centre of a coarse patch is that of the middle one of 3 x 3 fine patches.
    assert torch.allclose(coarse[0], fine[1 * 6 + 1], atol=1e-6)
    assert torch.allclose(coarse[3], fine[4 * 6 + 4], atol=1e-6)
    distances = torch.cdist(fine, fine) + 10 * torch.eye(36)
    assert distances.min() > 0.1  # no two places look alike


def test_equal_seeds_give_equal_encoders_and_leave_torch_alone():
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    first = MultiSensorViT.build(SHAPES, CONFIG, 5).state_dict()
    again = MultiSensorViT.build(SHAPES, CONFIG, 5).state_dict()
    other = MultiSensorViT.build(SHAPES, CONFIG, 6).state_dict()
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(
        first["transformer.blocks.0.attention.qkv.weight"], other["transformer.blocks.0.attention.qkv.weight"]
    )


@torch.no_grad()
def test_a_missing_sensor_is_the_same_as_one_never_given(encoder):
    batch = make_samples(4).read(range(4))
    nothing = torch.zeros_like(batch.valid_nbyx["s2"])
    masked = encoder(with_invalid(batch, "s2", nothing, 0.0))
    absent = encoder(Batch({"s1": batch.pixels_nbyx["s1"]}, {"s1": batch.valid_nbyx["s1"]}))
    both = encoder(batch)
    assert torch.allclose(masked.pooled_nd, absent.pooled_nd, atol=1e-6)
    assert not torch.allclose(both.pooled_nd, absent.pooled_nd, atol=1e-2)


@torch.no_grad()
@pytest.mark.parametrize("fill", [0.0, 1e9, float("nan"), float("inf")])
def test_what_an_invalid_pixel_holds_never_matters(encoder, fill):
    batch = make_samples(3).read(range(3))
    valid = torch.from_numpy(np.random.default_rng(2).random(batch.valid_nbyx["s1"].shape) < 0.7)
    valid[0, :, :8] = False  # whole patches too
    reference = encoder(with_invalid(batch, "s1", valid, -1.0))
    changed = encoder(with_invalid(batch, "s1", valid, fill))
    assert torch.equal(reference.pooled_nd, changed.pooled_nd)
    assert torch.equal(reference.tokens.mask_nt, changed.tokens.mask_nt)
    assert torch.isfinite(changed.tokens.values_ntd).all()


@torch.no_grad()
def test_patches_less_than_half_valid_are_no_tokens(encoder):
    batch = make_samples(1).read([0])
    valid = torch.ones_like(batch.valid_nbyx["s1"])
    valid[0, :, 0:2, 0:4] = False  # first patch: exactly half
    valid[0, :, 0:2, 4:8] = False  # second patch: just less than half
    valid[0, :, 2, 4] = False
    valid[0, 1:, 0:4, 8:12] = False  # third patch: one band alone is whole
    mask = encoder(with_invalid(batch, "s1", valid, 0.0)).tokens.mask_nt[0]
    assert mask[0]
    assert not mask[1]
    assert mask[2:].all()


@torch.no_grad()
def test_holes_are_told_apart_from_zeros(encoder):
    batch = make_samples(1).read([0])
    holes = torch.ones_like(batch.valid_nbyx["s1"])
    holes[0, :, 0, :] = False
    zeros = Batch({**batch.pixels_nbyx, "s1": torch.where(holes, batch.pixels_nbyx["s1"], 0.0)}, batch.valid_nbyx)
    with_holes = encoder(with_invalid(batch, "s1", holes, 0.0))
    assert not torch.allclose(with_holes.pooled_nd, encoder(zeros).pooled_nd, atol=1e-4)


@torch.no_grad()
def test_a_sample_without_any_token_is_finite_and_reported(encoder):
    batch = make_samples(3).read(range(3))
    empty = {name: valid.clone() for name, valid in batch.valid_nbyx.items()}
    for valid in empty.values():
        valid[1] = False
    result = encoder(Batch(batch.pixels_nbyx, empty))
    assert result.embeddable_n.tolist() == [True, False, True]
    assert torch.equal(result.pooled_nd[1], torch.zeros(CONFIG.dim))
    assert torch.isfinite(result.tokens.values_ntd).all()
    alone = encoder(batch)
    assert torch.allclose(result.pooled_nd[[0, 2]], alone.pooled_nd[[0, 2]], atol=1e-6)


@torch.no_grad()
def test_samples_do_not_influence_one_another(encoder):
    samples = make_samples(6)
    together = encoder(samples.read(range(6))).pooled_nd
    alone = torch.cat([encoder(samples.read([i])).pooled_nd for i in range(6)])
    assert torch.allclose(together, alone, atol=1e-6)


def test_misfits_are_refused_naming_the_sensor(encoder):
    batch = make_samples(2).read(range(2))
    with pytest.raises(ValueError, match=r"dem"):
        encoder(Batch({"dem": batch.pixels_nbyx["s1"]}, {"dem": batch.valid_nbyx["s1"]}))
    with pytest.raises(ValueError, match=r"s2.*\(3, 8, 8\).*\(2, 16, 16\)"):
        encoder(Batch({"s2": batch.pixels_nbyx["s1"]}, {"s2": batch.valid_nbyx["s1"]}))
    with pytest.raises(ValueError, match="10 px do not divide into patches of 4 px"):
        SensorShape("s1", 2, 10, 4)


@torch.no_grad()
@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_attention_is_shared_among_the_patches_that_are_there(pool):
    encoder = MultiSensorViT.build(SHAPES, CONFIG.model_copy(update={"pool": pool}), seed=3).eval()
    batch = make_samples(2).read(range(2))
    valid = torch.ones_like(batch.valid_nbyx["s1"])
    valid[0, :, :4, :4] = False  # the first patch of the first chip
    looks, sides = encoder.attention(with_invalid(batch, "s1", valid, 0.0))
    assert looks.shape == (2, CONFIG.heads, sum(side**2 for side in sides))
    assert (looks[0, :, 0] == 0).all()
    assert (looks[1, :, 0] > 0).all()
    assert torch.allclose(looks.sum(dim=2), torch.ones(2, CONFIG.heads), atol=1e-6)


@torch.no_grad()
def test_attention_is_what_the_last_block_mixes_by(encoder):
    batch = make_samples(2).read(range(2))
    tokens = encoder.tokenise(batch)
    last = encoder.transformer.blocks[-1]
    values = tokens.values_ntd
    for block in encoder.transformer.blocks[:-1]:
        values = block(values, None)
    given = last.norm_attention(values)
    weights = encoder.transformer.attention(tokens.values_ntd, tokens.mask_nt)
    _, _, held = last.attention._heads(given)
    mixed = last.attention.out((weights @ held).transpose(1, 2).flatten(2))
    assert torch.allclose(mixed, last.attention(given, None), atol=1e-5)
