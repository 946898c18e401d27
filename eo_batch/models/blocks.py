"""Pre-norm transformer blocks with a key mask.

Dims: `n` sample, `t` token, `d` feature, `h` head, `q` token that looks.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, tokens_ntd: Tensor, keys_n11t: Tensor | None) -> Tensor:
        """Attend to the tokens whose key is True; to all where `keys_n11t` is None."""
        n, t, d = tokens_ntd.shape
        query, key, value = self._heads(tokens_ntd)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=keys_n11t)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(n, t, d))
        return out

    def weights(self, tokens_ntd: Tensor, keys_n11t: Tensor | None) -> Tensor:
        """How much each token looks at each, `(n, h, q, t)`; what `forward` mixes by."""
        query, key, _ = self._heads(tokens_ntd)
        scores_nhqt = query @ key.transpose(2, 3) / query.shape[3] ** 0.5
        if keys_n11t is not None:
            scores_nhqt = scores_nhqt.masked_fill(~keys_n11t, -torch.inf)
        weights_nhqt: Tensor = scores_nhqt.softmax(dim=3)
        return weights_nhqt

    def _heads(self, tokens_ntd: Tensor) -> tuple[Tensor, ...]:
        n, t, d = tokens_ntd.shape
        qkv = self.qkv(tokens_ntd).reshape(n, t, 3, self.heads, d // self.heads)
        return tuple(qkv.permute(2, 0, 3, 1, 4).unbind(0))


class Block(nn.Module):
    """Attention, then a two-layer perceptron, each on normalised input and added to its input."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = round(dim * mlp_ratio)
        self.norm_attention = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, tokens_ntd: Tensor, keys_n11t: Tensor | None) -> Tensor:
        """Same shape as given."""
        tokens_ntd = tokens_ntd + self.attention(self.norm_attention(tokens_ntd), keys_n11t)
        out: Tensor = tokens_ntd + self.mlp(self.norm_mlp(tokens_ntd))
        return out


class Transformer(nn.Module):
    """Blocks and a last norm."""

    def __init__(self, dim: int, depth: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(dim, heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens_ntd: Tensor, mask_nt: Tensor) -> Tensor:
        """Tokens after all blocks. No token is influenced by one whose mask is False.

        A sample without any token attends to its (meaningless) tokens instead of to nothing, which would be
        NaN; the caller drops its output.
        """
        keys_n11t = _keys(mask_nt)
        for block in self.blocks:
            tokens_ntd = block(tokens_ntd, keys_n11t)
        out: Tensor = self.norm(tokens_ntd)
        return out

    def attention(self, tokens_ntd: Tensor, mask_nt: Tensor) -> Tensor:
        """How much each token looks at each in the last block, `(n, h, q, t)`."""
        keys_n11t = _keys(mask_nt)
        for block in self.blocks[:-1]:
            tokens_ntd = block(tokens_ntd, keys_n11t)
        last = self.blocks[-1]
        assert isinstance(last, Block)
        return last.attention.weights(last.norm_attention(tokens_ntd), keys_n11t)


def _keys(mask_nt: Tensor) -> Tensor | None:
    """Which tokens are looked at; None for all of them."""
    if bool(mask_nt.all()):
        return None
    return (mask_nt | ~mask_nt.any(dim=1, keepdim=True))[:, None, None, :]


def initialise(module: nn.Module) -> None:
    """Xavier-uniform matrices and zero biases, the initialisation of the masked-autoencoder paper
    (He et al. 2022, appendix A.1)."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def masked_mean(values_ntd: Tensor, mask_nt: Tensor) -> Tensor:
    """Mean over the tokens whose mask is True; 0 where there is none."""
    weights = mask_nt.to(values_ntd.dtype)[:, :, None]
    kept = torch.where(mask_nt[:, :, None], values_ntd, 0.0)
    return kept.sum(dim=1) / weights.sum(dim=1).clamp_min(1.0)
