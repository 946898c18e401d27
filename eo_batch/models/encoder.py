"""One vision transformer over the patches of several sensors, any of which can be missing.

Each sensor has its own patch embedding and a learned sensor code; positions are coded in the frame of the
chip, so that sensors with different pixel sizes align. Missing data is a mask: a patch of which less than
half is valid is no token, and within a token invalid pixels are 0 (the mean, after standardisation) beside a
learned code of how much of each band is missing.

Chips may be given smaller than the encoder's own, all sensors by the same share: positions are then those of a whole
chip in larger pixels.

Dims: `n` sample, `b` band, `y` row, `x` column, `t` token, `d` feature, `p` pixel within a patch, `h` head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn

from eo_batch.core.learning import EncoderSpec
from eo_batch.models.batch import Batch
from eo_batch.models.blocks import Transformer, initialise, masked_mean
from eo_batch.models.patches import patchify, positions

MIN_VALID_SHARE = 0.5
"""A patch is dropped if no band has at least this valid share: it would be told from its holes rather than from its
ground."""


@dataclass(frozen=True)
class SensorShape:
    """One sensor as the encoder sees it."""

    name: str
    """Key in a batch: the name of the cube array."""

    bands: int
    """Number of bands."""

    px: int
    """Side of a chip, pixels of this sensor."""

    patch_px: int
    """Side of a patch, pixels of this sensor; divides `px`."""

    def __post_init__(self) -> None:
        if self.bands < 1 or self.patch_px < 1 or self.px % self.patch_px:
            msg = f"sensor {self.name}: {self.px} px do not divide into patches of {self.patch_px} px"
            raise ValueError(msg)

    @property
    def patches_per_side(self) -> int:
        """Patches along one side of a chip."""
        return self.px // self.patch_px

    @property
    def patches(self) -> int:
        """Patches of a chip: the sensor's number of tokens."""
        return self.patches_per_side**2

    @property
    def patch_values(self) -> int:
        """Numbers in a patch, all bands."""
        return self.bands * self.patch_px**2


@dataclass(frozen=True)
class Tokens:
    """Patches as tokens, sensors in the order of the encoder, each row-major."""

    values_ntd: Tensor
    """float; finite everywhere, meaningless where the mask is False."""

    mask_nt: Tensor
    """bool: the token exists."""


@dataclass(frozen=True)
class Encoded:
    """What an encoder makes of a batch."""

    tokens: Tokens
    """One vector for each patch."""

    sides: tuple[int, ...]
    """How many tokens lie along a side of the chip, for each square of tokens, in their order."""

    pooled_nd: Tensor
    """The embedding. Meaningless where there is no token."""

    embeddable_n: Tensor
    """bool: the sample has at least one token, so that its embedding means something."""


class Encoder(nn.Module):
    """What every objective and every stage asks of an encoder."""

    shapes: tuple[SensorShape, ...]
    width: int
    """Length of tokens and of the embedding."""

    def forward(self, batch: Batch) -> Encoded:
        """Embed a batch. Finite for every input; samples with no token are reported in `embeddable_n`."""
        raise NotImplementedError


def shapes_of(shapes: Sequence[SensorShape], batch: Batch) -> tuple[SensorShape, ...]:
    """The encoder's sensors that the batch holds, in the encoder's order. ValueError where they do not
    fit."""
    names = {shape.name for shape in shapes}
    strangers = sorted(set(batch.pixels_nbyx) - names)
    if strangers or not batch.pixels_nbyx:
        msg = f"the encoder knows the sensors {sorted(names)}, the batch has {sorted(batch.pixels_nbyx)}"
        raise ValueError(msg)
    given = tuple(shape for shape in shapes if shape.name in batch.pixels_nbyx)
    share = Fraction(batch.pixels_nbyx[given[0].name].shape[3], given[0].px)
    for shape in given:
        found, side = tuple(batch.pixels_nbyx[shape.name].shape[1:]), shape.patches_per_side * share
        px = int(side) * shape.patch_px
        if side.denominator != 1 or found != (shape.bands, px, px):
            wanted = (shape.bands, shape.px, shape.px)
            msg = f"sensor {shape.name}: expected (bands, rows, columns) {wanted}, got {found}"
            raise ValueError(msg)
    return given


class PatchEmbedding(nn.Module):
    """Patches of one sensor to tokens."""

    def __init__(self, shape: SensorShape, finest_per_side: int, dim: int) -> None:
        super().__init__()
        self.shape = shape
        self._finest, self._dim = finest_per_side, dim
        self.pixels = nn.Linear(shape.patch_values, dim)
        self.missing = nn.Linear(shape.bands, dim, bias=False)
        self.sensor_d = nn.Parameter(torch.randn(dim) * 0.02)

    def forward(self, pixels_nbyx: Tensor, valid_nbyx: Tensor) -> Tokens:
        """Tokens of the sensor; invalid pixels have no influence, whatever they hold (NaN too)."""
        filled_nbyx = torch.where(valid_nbyx, pixels_nbyx, 0.0)
        patches_ntbp = patchify(filled_nbyx, self.shape.patch_px)
        valid_ntb = patchify(valid_nbyx.to(patches_ntbp.dtype), self.shape.patch_px).mean(dim=3)
        values_ntd = self.pixels(patches_ntbp.flatten(2)) + self.missing(1.0 - valid_ntb)
        side = pixels_nbyx.shape[3] // self.shape.patch_px
        positions_td = positions(side, self._finest, self._dim, values_ntd.device)
        return Tokens(values_ntd + self.sensor_d + positions_td, (valid_ntb >= MIN_VALID_SHARE).any(dim=2))


class MultiSensorViT(Encoder):
    """The transformer. `build` makes one whose weights depend on the seed alone."""

    def __init__(self, shapes: Sequence[SensorShape], spec: EncoderSpec) -> None:
        super().__init__()
        self.shapes = tuple(shapes)
        self.spec = spec
        self.width = spec.dim
        finest = max(shape.patches_per_side for shape in self.shapes)
        self.embeddings = nn.ModuleDict({shape.name: PatchEmbedding(shape, finest, spec.dim) for shape in self.shapes})
        self.transformer = Transformer(spec.dim, spec.depth, spec.heads, spec.mlp_ratio)
        self.cls_d = nn.Parameter(torch.randn(spec.dim) * 0.02) if spec.pool == "cls" else None
        initialise(self)

    @classmethod
    def build(cls, shapes: Sequence[SensorShape], spec: EncoderSpec, seed: int) -> "MultiSensorViT":
        """A fresh encoder; the same seed gives the same weights, and torch's own random state stays
        untouched."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(shapes, spec)

    def tokenise(self, batch: Batch) -> Tokens:
        """Tokens of the batch's sensors, before the transformer."""
        parts = [
            self.embeddings[shape.name](batch.pixels_nbyx[shape.name], batch.valid_nbyx[shape.name])
            for shape in self.shapes_of(batch)
        ]
        return Tokens(
            torch.cat([part.values_ntd for part in parts], dim=1),
            torch.cat([part.mask_nt for part in parts], dim=1),
        )

    def shapes_of(self, batch: Batch) -> tuple[SensorShape, ...]:
        """See `shapes_of`."""
        return shapes_of(self.shapes, batch)

    def encode(self, tokens: Tokens) -> Tensor:
        """Run the transformer over the tokens `(n, t, d)`; only tokens that exist are attended to."""
        return self._run(tokens)[0]

    def forward(self, batch: Batch) -> Encoded:
        """See `Encoder.forward`."""
        tokens = self.tokenise(batch)
        values_ntd, pooled_nd = self._run(tokens)
        return Encoded(Tokens(values_ntd, tokens.mask_nt), self._sides(batch), pooled_nd, tokens.mask_nt.any(dim=1))

    def _run(self, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """Encoded tokens and the embedding."""
        asked = self._with_cls(tokens)
        values_ntd: Tensor = self.transformer(asked.values_ntd, asked.mask_nt)
        if self.cls_d is None:
            return values_ntd, masked_mean(values_ntd, tokens.mask_nt)
        return values_ntd[:, 1:], values_ntd[:, 0]

    def attention(self, batch: Batch) -> tuple[Tensor, tuple[int, ...]]:
        """How much each head of the last block looks at each patch, `(n, h, t)`, and `Encoded.sides`: the token of its
        own where there is one, else all patches on average. Patches that do not exist get 0, the others add up to 1."""
        tokens = self.tokenise(batch)
        asked = self._with_cls(tokens)
        weights_nhqt = self.transformer.attention(asked.values_ntd, asked.mask_nt)
        if self.cls_d is None:
            asked_n1q1 = tokens.mask_nt[:, None, :, None]
            looks_nht = torch.where(asked_n1q1, weights_nhqt, 0.0).sum(dim=2) / asked_n1q1.sum(dim=2).clamp_min(1)
        else:
            looks_nht = weights_nhqt[:, :, 0, 1:]
        looks_nht = torch.where(tokens.mask_nt[:, None], looks_nht, 0.0)
        return looks_nht / looks_nht.sum(dim=2, keepdim=True).clamp_min(1e-12), self._sides(batch)

    def _with_cls(self, tokens: Tokens) -> Tokens:
        """The tokens after the one of the whole chip, where there is one. It exists where any of them does."""
        if self.cls_d is None:
            return tokens
        cls_n1d = self.cls_d.expand(len(tokens.mask_nt), 1, -1)
        return Tokens(
            torch.cat([cls_n1d, tokens.values_ntd], dim=1),
            torch.cat([tokens.mask_nt.any(dim=1, keepdim=True), tokens.mask_nt], dim=1),
        )

    def _sides(self, batch: Batch) -> tuple[int, ...]:
        return tuple(batch.pixels_nbyx[shape.name].shape[3] // shape.patch_px for shape in self.shapes_of(batch))
