"""Telling the right partner from all others of a batch. Dims: `n` sample of a part, `m` sample of the whole batch."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Projection(nn.Module):
    """From an embedding to what is compared: a hidden layer, or none where `hidden` is 0."""

    def __init__(self, width: int, hidden: int, length: int) -> None:
        super().__init__()
        if hidden:
            self.layers = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, length))
        else:
            self.layers = nn.Sequential(nn.Linear(width, length, bias=False))

    def forward(self, values_nd: Tensor) -> Tensor:
        """Unit vectors."""
        return functional.normalize(self.layers(values_nd), dim=1)


def cross_entropy_sum(scores_nm: Tensor, partner_n: Tensor, counts_n: Tensor) -> Tensor:
    """Sum of the cross entropies of the rows that count; candidates that do not count have a score of -inf."""
    if not bool(counts_n.any()):
        return torch.where(torch.isfinite(scores_nm), scores_nm, 0.0).sum() * 0.0  # a gradient of 0 rather than none
    return functional.cross_entropy(scores_nm[counts_n], partner_n[counts_n], reduction="sum")
