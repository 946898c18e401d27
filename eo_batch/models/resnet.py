"""ResNet-18 over several sensors, any of which can be missing (He et al. 2016, arXiv 1512.03385).

Each sensor has a first layer of its own, which also sees which of its pixels are valid; coarser sensors are brought to
the finest one's grid after it, and those that a chip has are averaged. All else is shared. Normalisation is by groups
of channels (Wu and He 2018, arXiv 1803.08494) instead of by batch: what a chip's embedding is must not depend on the
chips beside it, nor on how many processes share a batch. Written here because torchvision's ResNet has one input, and
torchvision would be needed for nothing else.

Dims: `n` sample, `s` sensor, `b` band, `c` channel, `y` row, `x` column, `t` cell of the last map, `d` feature.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from eo_batch.core.learning import ResNetSpec
from eo_batch.models.batch import Batch
from eo_batch.models.blocks import masked_mean
from eo_batch.models.encoder import MIN_VALID_SHARE, Encoded, Encoder, SensorShape, Tokens, shapes_of

_GROUPS = 8
_BLOCKS = (2, 2, 2, 2)
"""Blocks of each stage, which make it 18 layers deep."""


class ResNet18(Encoder):
    """The network; its tokens are the cells of the last map, a 32nd of the finest sensor's pixels along each side."""

    def __init__(self, shapes: Sequence[SensorShape], spec: ResNetSpec) -> None:
        super().__init__()
        self.shapes, self.spec = tuple(shapes), spec
        self.width = 8 * spec.width
        self.stems = nn.ModuleDict(
            {s.name: nn.Conv2d(2 * s.bands, spec.width, 7, stride=2, padding=3, bias=False) for s in self.shapes}
        )
        self.norm = nn.GroupNorm(_GROUPS, spec.width)
        stages: list[nn.Module] = []
        given = spec.width
        for number, blocks in enumerate(_BLOCKS):
            wanted = spec.width * 2**number
            for block in range(blocks):
                stages.append(_Block(given, wanted, 2 if number and not block else 1))
                given = wanted
        self.stages = nn.Sequential(*stages)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, batch: Batch) -> Encoded:
        """See `Encoder.forward`."""
        shapes = shapes_of(self.shapes, batch)
        finest = max(batch.pixels_nbyx[shape.name].shape[3] for shape in shapes)
        maps, there = [], []
        for shape in shapes:
            valid_nbyx = batch.valid_nbyx[shape.name]
            filled_nbyx = torch.where(valid_nbyx, batch.pixels_nbyx[shape.name], 0.0)
            found = self.stems[shape.name](torch.cat([filled_nbyx, valid_nbyx.to(filled_nbyx.dtype)], dim=1))
            maps.append(_at(found, -(-finest // 2)))
            there.append(valid_nbyx.flatten(1).any(dim=1))
        exists_ns = torch.stack(there, dim=1)
        weight_ns = exists_ns.to(maps[0].dtype) / exists_ns.sum(dim=1, keepdim=True).clamp_min(1)
        joined_ncyx = sum(weight_ns[:, s, None, None, None] * found for s, found in enumerate(maps))
        last_ncyx = self.stages(functional.max_pool2d(self.norm(joined_ncyx).relu(), 3, stride=2, padding=1))
        side = last_ncyx.shape[3]
        mask_nt = torch.stack([_held(batch.valid_nbyx[shape.name], side) for shape in shapes]).any(dim=0)
        tokens = Tokens(last_ncyx.flatten(2).transpose(1, 2), mask_nt)
        pooled_nd = masked_mean(tokens.values_ntd, tokens.mask_nt)
        return Encoded(tokens, (side,), pooled_nd, mask_nt.any(dim=1))


class _Block(nn.Module):
    """Two convolutions, added to what they are given."""

    def __init__(self, given: int, wanted: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(given, wanted, 3, stride=stride, padding=1, bias=False)
        self.first_norm = nn.GroupNorm(_GROUPS, wanted)
        self.second = nn.Conv2d(wanted, wanted, 3, padding=1, bias=False)
        self.second_norm = nn.GroupNorm(_GROUPS, wanted)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or given != wanted:
            self.shortcut = nn.Sequential(
                nn.Conv2d(given, wanted, 1, stride=stride, bias=False), nn.GroupNorm(_GROUPS, wanted)
            )

    def forward(self, values_ncyx: Tensor) -> Tensor:
        found = self.second_norm(self.second(self.first_norm(self.first(values_ncyx)).relu()))
        out: Tensor = (found + self.shortcut(values_ncyx)).relu()
        return out


def _at(map_ncyx: Tensor, side: int) -> Tensor:
    """A coarser map with as many cells as another: each repeated, which has a deterministic gradient on GPUs too."""
    return map_ncyx if map_ncyx.shape[3] == side else functional.interpolate(map_ncyx, (side, side), mode="nearest")


def _held(valid_nbyx: Tensor, side: int) -> Tensor:
    """Which cells of a grid over the chip hold enough valid pixels of any band, (n, t)."""
    share = functional.adaptive_avg_pool2d(valid_nbyx.to(torch.float32), side)
    return (share >= MIN_VALID_SHARE).any(dim=1).flatten(1)
