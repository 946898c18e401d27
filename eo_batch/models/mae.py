"""Masked autoencoding over the patches of all sensors (He et al. 2022, arXiv 2111.06377).

The encoder sees a random part of a sample's tokens; a light decoder reconstructs the pixels of the others.
Only valid pixels of masked tokens count. Which tokens are masked is decided by noise that the caller draws.

Dims: `n` sample, `b` band, `y` row, `x` column, `t` token, `v` visible token, `d` feature, `p` pixel of a
patch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from eo_batch.models.batch import Batch
from eo_batch.models.blocks import Transformer, initialise
from eo_batch.models.encoder import EncoderConfig, MultiSensorViT, SensorShape, Tokens
from eo_batch.models.patches import patchify, sincos_positions, unpatchify

EPSILON = 1e-4
"""Added to the variance of a patch before it divides: a flat patch has no detail to be magnified."""


@dataclass(frozen=True)
class MaeConfig:
    """The objective and the decoder."""

    mask_ratio: float
    """Share of the tokens that are masked, in (0, 1)."""

    normalise_targets: bool
    """Reconstruct every band of a patch relative to its own mean and deviation."""

    decoder: EncoderConfig
    """Size of the decoder."""


@dataclass(frozen=True)
class Masking:
    """Which tokens the encoder sees."""

    order_nv: Tensor
    """Indices of the visible tokens, padded where a sample has fewer than another."""

    present_nv: Tensor
    """bool: not padding."""

    masked_nt: Tensor
    """bool: exists and is hidden."""


@dataclass(frozen=True)
class Losses:
    """Mean squared errors over valid pixels of masked tokens."""

    total: Tensor
    """Mean over the sensors that had anything to reconstruct; what is minimised."""

    by_sensor: Mapping[str, Tensor]
    """One scalar for each of those sensors."""


@dataclass(frozen=True)
class SquaredErrors:
    """Sums over valid pixels of masked tokens. Those of a batch's parts add up to its own; their means would not,
    since parts hold unequal numbers of pixels."""

    sums: Mapping[str, Tensor]
    """One scalar for each sensor of the batch; 0 for one that had nothing to reconstruct."""

    counts: Mapping[str, Tensor]
    """int64: how many values each is the sum of."""

    def losses(self, counts: Mapping[str, Tensor] | None = None) -> Losses:
        """Mean errors. Given the `counts` of a whole batch, this part's share in them: shares add up to the losses of
        the whole batch, and their gradients to its gradient."""
        whole = self.counts if counts is None else counts
        by_sensor = {name: total / whole[name] for name, total in self.sums.items() if int(whole[name])}
        if not by_sensor:
            # A batch without any observation teaches nothing, and its gradient is 0 rather than absent.
            return Losses(torch.stack(list(self.sums.values())).sum(), {})
        return Losses(torch.stack(list(by_sensor.values())).mean(), by_sensor)


@dataclass(frozen=True)
class Reconstruction:
    """For a person to look at."""

    pixels_nbyx: Mapping[str, Tensor]
    """Standardised pixels: as given where visible, as predicted where masked."""

    masked_nyx: Mapping[str, Tensor]
    """bool: the pixel was predicted."""

    def to(self, device: torch.device | str) -> "Reconstruction":
        """The same reconstruction on another device."""
        return Reconstruction(
            {name: pixels.to(device) for name, pixels in self.pixels_nbyx.items()},
            {name: masked.to(device) for name, masked in self.masked_nyx.items()},
        )


def choose_masking(valid_nt: Tensor, noise_nt: Tensor, mask_ratio: float) -> Masking:
    """Hide the share `mask_ratio` of the tokens that exist, those with the largest noise; at least one
    stays."""
    existing_n = valid_nt.sum(dim=1)
    visible_n = torch.minimum((existing_n * (1.0 - mask_ratio)).round().clamp_min(1.0), existing_n).long()
    order_nt = torch.where(valid_nt, noise_nt, torch.inf).argsort(dim=1, stable=True)
    longest = max([1, *visible_n.tolist()])
    order_nv = order_nt[:, :longest]
    present_nv = torch.arange(longest, device=order_nv.device)[None, :] < visible_n[:, None]
    seen_nt = torch.zeros_like(valid_nt).scatter(1, order_nv, present_nv)
    return Masking(order_nv, present_nv, valid_nt & ~seen_nt)


class MaskedAutoencoder(nn.Module):
    """Encoder, decoder and loss."""

    def __init__(self, encoder: MultiSensorViT, config: MaeConfig) -> None:
        super().__init__()
        self.encoder = encoder
        self.config = config
        dim = config.decoder.dim
        self.narrow = nn.Linear(encoder.config.dim, dim)
        self.hidden_d = nn.Parameter(torch.randn(dim) * 0.02)
        self.transformer = Transformer(dim, config.decoder.depth, config.decoder.heads, config.decoder.mlp_ratio)
        self.sensors = nn.ParameterDict({shape.name: torch.randn(dim) * 0.02 for shape in encoder.shapes})
        self.heads = nn.ModuleDict({s.name: nn.Linear(dim, s.patch_values) for s in encoder.shapes})
        finest = max(shape.patches_per_side for shape in encoder.shapes)
        for shape in encoder.shapes:
            positions_td = sincos_positions(shape.patches_per_side, finest, dim)
            self.register_buffer(f"positions_{shape.name}", positions_td, persistent=False)
        for part in (self.narrow, self.transformer, self.heads):
            initialise(part)

    @classmethod
    def build(
        cls, shapes: Sequence[SensorShape], encoder: EncoderConfig, config: MaeConfig, seed: int
    ) -> "MaskedAutoencoder":
        """A fresh model. Its encoder is that of `MultiSensorViT.build` with the same seed: its untrained
        twin."""
        untrained = MultiSensorViT.build(shapes, encoder, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(untrained, config)

    def forward(self, batch: Batch, noise_nt: Tensor) -> Losses:
        """Losses of a batch. `noise_nt` is uniform noise for each token of the batch's sensors."""
        return self.errors(batch, noise_nt).losses()

    def errors(self, batch: Batch, noise_nt: Tensor) -> SquaredErrors:
        """What the losses of a batch, or of a batch of which this is a part, are made of. A part may be empty."""
        masking, predicted = self._predict(batch, noise_nt)
        sums: dict[str, Tensor] = {}
        counts: dict[str, Tensor] = {}
        for shape, (first, last) in self._spans(batch):
            targets_ntbp, valid_ntbp, _, _ = self._targets(batch, shape)
            counted_ntbp = valid_ntbp & masking.masked_nt[:, first:last, None, None]
            errors_ntbp = torch.where(counted_ntbp, predicted[shape.name] - targets_ntbp, 0.0)
            sums[shape.name] = errors_ntbp.square().sum()
            counts[shape.name] = counted_ntbp.sum()
        return SquaredErrors(sums, counts)

    @torch.no_grad()
    def reconstruct(self, batch: Batch, noise_nt: Tensor) -> Reconstruction:
        """Fill the masked patches. With normalised targets the decoder predicts no level: each band of a
        patch gets its own true mean and deviation back, so that the picture shows the detail that was
        predicted."""
        masking, predicted = self._predict(batch, noise_nt)
        pixels_nbyx: dict[str, Tensor] = {}
        masked_nyx: dict[str, Tensor] = {}
        for shape, (first, last) in self._spans(batch):
            _, _, mean_ntb1, std_ntb1 = self._targets(batch, shape)
            filled_nbyx = unpatchify(predicted[shape.name] * std_ntb1 + mean_ntb1, shape.patch_px)
            hidden_nt11 = masking.masked_nt[:, first:last, None, None]
            hidden_n1yx = unpatchify(hidden_nt11.expand(-1, -1, 1, shape.patch_px**2), shape.patch_px)
            pixels_nbyx[shape.name] = torch.where(hidden_n1yx, filled_nbyx, batch.pixels_nbyx[shape.name])
            masked_nyx[shape.name] = hidden_n1yx[:, 0]
        return Reconstruction(pixels_nbyx, masked_nyx)

    def token_count(self, batch: Batch) -> int:
        """Number of tokens `t` of the batch's sensors, which noise must be drawn for."""
        return sum(shape.patches for shape in self.encoder.shapes_of(batch))

    def _spans(self, batch: Batch) -> list[tuple[SensorShape, tuple[int, int]]]:
        """The batch's sensors and where their tokens lie."""
        spans, first = [], 0
        for shape in self.encoder.shapes_of(batch):
            spans.append((shape, (first, first + shape.patches)))
            first += shape.patches
        return spans

    def _predict(self, batch: Batch, noise_nt: Tensor) -> tuple[Masking, dict[str, Tensor]]:
        """The masking, and for each sensor its predicted patches `(n, t, b, p)`, hidden or not."""
        tokens = self.encoder.tokenise(batch)
        masking = choose_masking(tokens.mask_nt, noise_nt, self.config.mask_ratio)
        index_nvd = masking.order_nv[:, :, None].expand(-1, -1, tokens.values_ntd.shape[2])
        visible = Tokens(tokens.values_ntd.gather(1, index_nvd), masking.present_nv)
        narrow_nvd = self.narrow(self.encoder.encode(visible))
        shown_nvd = torch.where(masking.present_nv[:, :, None], narrow_nvd, self.hidden_d)
        index_nvd = masking.order_nv[:, :, None].expand(-1, -1, shown_nvd.shape[2])
        blank_ntd = self.hidden_d.expand(*tokens.mask_nt.shape, -1)
        full_ntd = blank_ntd.scatter(1, index_nvd, shown_nvd)
        codes_td = [
            self.get_buffer(f"positions_{shape.name}") + self.sensors[shape.name]
            for shape in self.encoder.shapes_of(batch)
        ]
        decoded_ntd = self.transformer(full_ntd + torch.cat(codes_td), tokens.mask_nt)
        predicted = {
            shape.name: self.heads[shape.name](decoded_ntd[:, first:last]).unflatten(2, (shape.bands, -1))
            for shape, (first, last) in self._spans(batch)
        }
        return masking, predicted

    def _targets(self, batch: Batch, shape: SensorShape) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Targets and validity `(n, t, b, p)`, and the mean and deviation `(n, t, b, 1)` taken out of
        them."""
        valid_nbyx = batch.valid_nbyx[shape.name]
        pixels_nbyx = torch.where(valid_nbyx, batch.pixels_nbyx[shape.name], 0.0)
        valid_ntbp = patchify(valid_nbyx, shape.patch_px)
        pixels_ntbp = patchify(pixels_nbyx, shape.patch_px)
        if not self.config.normalise_targets:
            zero = torch.zeros_like(pixels_ntbp[..., :1])
            return pixels_ntbp, valid_ntbp, zero, torch.ones_like(zero)
        count_ntb1 = valid_ntbp.sum(dim=3, keepdim=True).clamp_min(1)
        mean_ntb1 = pixels_ntbp.sum(dim=3, keepdim=True) / count_ntb1
        centred_ntbp = torch.where(valid_ntbp, pixels_ntbp - mean_ntb1, 0.0)
        std_ntb1 = (centred_ntbp.square().sum(dim=3, keepdim=True) / count_ntb1 + EPSILON).sqrt()
        return centred_ntbp / std_ntb1, valid_ntbp, mean_ntb1, std_ntb1
