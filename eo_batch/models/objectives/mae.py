"""Masked autoencoding over the patches of all sensors (He et al. 2022, arXiv 2111.06377).

The encoder sees a random part of a sample's tokens; a light decoder reconstructs the pixels of the others.
Only valid pixels of masked tokens count.

Dims: `n` sample, `b` band, `y` row, `x` column, `t` token, `v` visible token, `d` feature, `p` pixel of a
patch.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from eo_batch.core.learning import MaeSpec
from eo_batch.models.batch import Batch
from eo_batch.models.blocks import Transformer, initialise
from eo_batch.models.encoder import MultiSensorViT, SensorShape, Tokens
from eo_batch.models.objectives.base import Draw, Objective, Terms, uniform
from eo_batch.models.patches import patchify, positions, unpatchify
from eo_batch.models.world import World

EPSILON = 1e-4
"""Added to the variance of a patch before it divides: a flat patch has no detail to be magnified."""


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


class MaskedAutoencoder(Objective):
    """Encoder, decoder and loss: mean squared errors over valid pixels of masked tokens, a term for each sensor."""

    encoder: MultiSensorViT

    def __init__(self, encoder: MultiSensorViT, spec: MaeSpec) -> None:
        super().__init__()
        self.encoder = encoder
        self.spec = spec
        decoder, dim = spec.decoder, spec.decoder.dim
        self.narrow = nn.Linear(encoder.width, dim)
        self.hidden_d = nn.Parameter(torch.randn(dim) * 0.02)
        self.transformer = Transformer(dim, decoder.depth, decoder.heads, decoder.mlp_ratio)
        self.sensors = nn.ParameterDict({shape.name: torch.randn(dim) * 0.02 for shape in encoder.shapes})
        self.heads = nn.ModuleDict({s.name: nn.Linear(dim, s.patch_values) for s in encoder.shapes})
        self._finest = max(shape.patches_per_side for shape in encoder.shapes)
        for part in (self.narrow, self.transformer, self.heads):
            initialise(part)

    def draw(self, random: np.random.Generator, batch: Batch, count: int) -> Draw:
        """Noise for each token of the batch's sensors: those with the largest are masked."""
        return {"noise_nt": uniform(random, count, sum(shape.patches for shape in self.encoder.shapes_of(batch)))}

    def terms(self, batch: Batch, draw: Draw, world: World) -> Terms:
        """See `Objective.terms`."""
        masking, predicted = self._predict(batch, draw["noise_nt"])
        sums: dict[str, Tensor] = {}
        counts: dict[str, Tensor] = {}
        for shape, (first, last) in self._spans(batch):
            targets_ntbp, valid_ntbp, _, _ = self._targets(batch, shape)
            counted_ntbp = valid_ntbp & masking.masked_nt[:, first:last, None, None]
            errors_ntbp = torch.where(counted_ntbp, predicted[shape.name] - targets_ntbp, 0.0)
            sums[shape.name] = errors_ntbp.square().sum()
            counts[shape.name] = counted_ntbp.sum()
        return Terms(sums, counts)

    @torch.no_grad()
    def reconstruct(self, batch: Batch, draw: Draw) -> Reconstruction:
        """Fill the masked patches. With normalised targets the decoder predicts no level: each band of a
        patch gets its own true mean and deviation back, so that the picture shows the detail that was
        predicted."""
        masking, predicted = self._predict(batch, draw["noise_nt"])
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
        masking = choose_masking(tokens.mask_nt, noise_nt, self.spec.mask_ratio)
        index_nvd = masking.order_nv[:, :, None].expand(-1, -1, tokens.values_ntd.shape[2])
        visible = Tokens(tokens.values_ntd.gather(1, index_nvd), masking.present_nv)
        narrow_nvd = self.narrow(self.encoder.encode(visible))
        shown_nvd = torch.where(masking.present_nv[:, :, None], narrow_nvd, self.hidden_d)
        index_nvd = masking.order_nv[:, :, None].expand(-1, -1, shown_nvd.shape[2])
        blank_ntd = self.hidden_d.expand(*tokens.mask_nt.shape, -1)
        full_ntd = blank_ntd.scatter(1, index_nvd, shown_nvd)
        codes_td = [
            positions(shape.patches_per_side, self._finest, self.hidden_d.shape[0], self.hidden_d.device)
            + self.sensors[shape.name]
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
        if not self.spec.normalise_targets:
            zero = torch.zeros_like(pixels_ntbp[..., :1])
            return pixels_ntbp, valid_ntbp, zero, torch.ones_like(zero)
        count_ntb1 = valid_ntbp.sum(dim=3, keepdim=True).clamp_min(1)
        mean_ntb1 = pixels_ntbp.sum(dim=3, keepdim=True) / count_ntb1
        centred_ntbp = torch.where(valid_ntbp, pixels_ntbp - mean_ntb1, 0.0)
        std_ntb1 = (centred_ntbp.square().sum(dim=3, keepdim=True) / count_ntb1 + EPSILON).sqrt()
        return centred_ntbp / std_ntb1, valid_ntbp, mean_ntb1, std_ntb1
