"""One vision transformer over the patches of several sensors, any of which can be missing.

Each sensor has its own patch embedding and a learned sensor code; positions are coded in the frame of the
chip, so that sensors with different pixel sizes align. Missing data is a mask: a patch of which less than
half is valid is no token, and within a token invalid pixels are 0 (the mean, after standardisation) beside a
learned code of how much of each band is missing.

Dims: `n` sample, `b` band, `y` row, `x` column, `t` token, `d` feature, `p` pixel within a patch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from eo_batch.models.batch import Batch
from eo_batch.models.blocks import Transformer, initialise, masked_mean
from eo_batch.models.patches import patchify, sincos_positions

MIN_VALID_SHARE = 0.5
"""A patch with a smaller valid share is dropped: it would be told from its holes rather than from its
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
class EncoderConfig:
    """Size of the transformer."""

    dim: int
    """Length of a token; a multiple of 4 and of `heads`."""

    depth: int
    """Number of blocks."""

    heads: int
    """Attention heads."""

    mlp_ratio: float = 4.0
    """Hidden width of a block, in multiples of `dim`."""


@dataclass(frozen=True)
class Tokens:
    """Patches as tokens, sensors in the order of the encoder, each row-major."""

    values_ntd: Tensor
    """float; finite everywhere, meaningless where the mask is False."""

    mask_nt: Tensor
    """bool: the token exists."""


@dataclass(frozen=True)
class Encoded:
    """What the encoder makes of a batch."""

    tokens: Tokens
    """One vector for each patch."""

    pooled_nd: Tensor
    """Mean over the tokens that exist: the embedding. Zeros where there is none."""

    embeddable_n: Tensor
    """bool: the sample has at least one token, so that its embedding means something."""


class PatchEmbedding(nn.Module):
    """Patches of one sensor to tokens."""

    positions_td: Tensor

    def __init__(self, shape: SensorShape, finest_per_side: int, dim: int) -> None:
        super().__init__()
        self.shape = shape
        self.pixels = nn.Linear(shape.patch_values, dim)
        self.missing = nn.Linear(shape.bands, dim, bias=False)
        self.sensor_d = nn.Parameter(torch.randn(dim) * 0.02)
        positions_td = sincos_positions(shape.patches_per_side, finest_per_side, dim)
        self.register_buffer("positions_td", positions_td, persistent=False)

    def forward(self, pixels_nbyx: Tensor, valid_nbyx: Tensor) -> Tokens:
        """Tokens of the sensor; invalid pixels have no influence, whatever they hold (NaN too)."""
        filled_nbyx = torch.where(valid_nbyx, pixels_nbyx, 0.0)
        patches_ntbp = patchify(filled_nbyx, self.shape.patch_px)
        valid_ntb = patchify(valid_nbyx.to(patches_ntbp.dtype), self.shape.patch_px).mean(dim=3)
        values_ntd = self.pixels(patches_ntbp.flatten(2)) + self.missing(1.0 - valid_ntb)
        return Tokens(values_ntd + self.sensor_d + self.positions_td, valid_ntb.mean(dim=2) >= MIN_VALID_SHARE)


class MultiSensorViT(nn.Module):
    """The encoder. `build` makes one whose weights depend on the seed alone."""

    def __init__(self, shapes: Sequence[SensorShape], config: EncoderConfig) -> None:
        super().__init__()
        self.shapes = tuple(shapes)
        self.config = config
        finest = max(shape.patches_per_side for shape in self.shapes)
        self.embeddings = nn.ModuleDict(
            {shape.name: PatchEmbedding(shape, finest, config.dim) for shape in self.shapes}
        )
        self.transformer = Transformer(config.dim, config.depth, config.heads, config.mlp_ratio)
        initialise(self)

    @classmethod
    def build(cls, shapes: Sequence[SensorShape], config: EncoderConfig, seed: int) -> "MultiSensorViT":
        """A fresh encoder; the same seed gives the same weights, and torch's own random state stays
        untouched."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(shapes, config)

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
        """The encoder's sensors that the batch holds, in the encoder's order. ValueError where they do not
        fit."""
        names = {shape.name for shape in self.shapes}
        strangers = sorted(set(batch.pixels_nbyx) - names)
        if strangers or not batch.pixels_nbyx:
            msg = f"the encoder knows the sensors {sorted(names)}, the batch has {sorted(batch.pixels_nbyx)}"
            raise ValueError(msg)
        given = tuple(shape for shape in self.shapes if shape.name in batch.pixels_nbyx)
        for shape in given:
            found = tuple(batch.pixels_nbyx[shape.name].shape[1:])
            if found != (shape.bands, shape.px, shape.px):
                wanted = (shape.bands, shape.px, shape.px)
                msg = f"sensor {shape.name}: expected (bands, rows, columns) {wanted}, got {found}"
                raise ValueError(msg)
        return given

    def encode(self, tokens: Tokens) -> Tensor:
        """Run the transformer over the tokens `(n, t, d)`; only tokens that exist are attended to."""
        encoded_ntd: Tensor = self.transformer(tokens.values_ntd, tokens.mask_nt)
        return encoded_ntd

    def forward(self, batch: Batch) -> Encoded:
        """Embed a batch. Finite for every input; samples with no token are reported in `embeddable_n`."""
        tokens = self.tokenise(batch)
        encoded = Tokens(self.encode(tokens), tokens.mask_nt)
        pooled_nd = masked_mean(encoded.values_ntd, encoded.mask_nt)
        return Encoded(encoded, pooled_nd, encoded.mask_nt.any(dim=1))
