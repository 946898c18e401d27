"""What a run may choose about pretraining, embedding and probing. Values only: nothing here knows torch.

Lengths of a patch are given in pixels of the grid (`grid.chip_px` of them make a chip); an array whose pixels
are coarser gets proportionally fewer pixels a patch, so that a patch is the same ground in every sensor.
"""

from typing import Annotated, Self

from pydantic import Field, model_validator

from eo_batch.core.section import Section


class EncoderSpec(Section):
    """Size of the vision transformer and of the decoder that only pretraining uses."""

    dim: Annotated[int, Field(ge=4, multiple_of=4)] = 96
    """Length of a token and of an embedding; a multiple of 4 (sine and cosine of two coordinates)."""

    depth: Annotated[int, Field(ge=1)] = 2
    """Transformer blocks of the encoder."""

    heads: Annotated[int, Field(ge=1)] = 4
    """Attention heads of the encoder; must divide `dim`."""

    mlp_ratio: Annotated[float, Field(gt=0)] = 4.0
    """Width of a block's hidden layer, in multiples of `dim`."""

    patch_px: Annotated[int, Field(ge=1)] = 8
    """Side of a patch, pixels of the grid; must divide `grid.chip_px`."""

    decoder_dim: Annotated[int, Field(ge=4, multiple_of=4)] = 96
    """Length of a token in the decoder; a multiple of 4."""

    decoder_depth: Annotated[int, Field(ge=1)] = 1
    """Transformer blocks of the decoder."""

    decoder_heads: Annotated[int, Field(ge=1)] = 4
    """Attention heads of the decoder; must divide `decoder_dim`."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        for dim, heads in (("dim", "heads"), ("decoder_dim", "decoder_heads")):
            size, count = getattr(self, dim), getattr(self, heads)
            if size % count:
                msg = f"encoder.{heads}={count} does not divide encoder.{dim}={size}; choose a divisor"
                raise ValueError(msg)
        return self


class PretrainSpec(Section):
    """Masked-autoencoder pretraining: one encoder for each seed, on chips that no probe is tested on."""

    arrays: tuple[str, ...] = ()
    """Cube arrays that the encoder sees, such as `s1_10m`; empty means all that hold measurements."""

    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    """One model is trained for each; a seed fixes the weights, the batches and the masks."""

    steps: Annotated[int, Field(ge=1)] = 400
    """Optimiser steps."""

    batch: Annotated[int, Field(ge=1)] = 64
    """Samples a step; a sample is one chip in one time bin."""

    lr: Annotated[float, Field(gt=0)] = 4e-3
    """Peak learning rate of AdamW; reached after the warm-up, then falls to 0 along a cosine."""

    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """Decoupled weight decay of AdamW; not applied to biases, norms and embeddings."""

    warmup_steps: Annotated[int, Field(ge=0)] = 40
    """Steps over which the learning rate rises linearly from 0."""

    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    """Largest norm of the gradient; a longer one is shortened to it."""

    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.6
    """Share of a sample's valid patches that the encoder does not see and must be reconstructed."""

    normalise_targets: bool = True
    """Whether a patch is reconstructed relative to its own mean and deviation (finer detail, no level)."""

    encoder: EncoderSpec = EncoderSpec()
    """Size of the networks."""

    checkpoint_every_steps: Annotated[int, Field(ge=1)] = 100
    """Steps between checkpoints: the most that a killed trainer loses."""

    validate_every_steps: Annotated[int, Field(ge=1)] = 50
    """Steps between two measurements of the validation loss."""

    val_fraction: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Share of the training chips that is only validated on; all time bins of a chip go the same way."""

    memory_gb: Annotated[float, Field(ge=0)] = 2.0
    """Samples are kept in memory where they fit in this many GB, else read from the cube at every step; the
    numbers come out the same."""

    threads: Annotated[int, Field(ge=1)] = 1
    """Threads of torch. Results are byte-identical only for equal numbers of threads."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.seeds)) != len(self.seeds):
            msg = f"pretrain.seeds={list(self.seeds)} names a seed twice; name each once"
            raise ValueError(msg)
        if len(set(self.arrays)) != len(self.arrays):
            msg = f"pretrain.arrays={list(self.arrays)} names an array twice; name each once"
            raise ValueError(msg)
        if self.warmup_steps >= self.steps:
            msg = (
                f"pretrain.warmup_steps={self.warmup_steps} leaves nothing of pretrain.steps={self.steps}; "
                f"use at most {max(self.steps - 1, 0)}, commonly {self.steps // 10}"
            )
            raise ValueError(msg)
        return self


class EmbedSpec(Section):
    """Embedding of every chip by every pretrained encoder and its untrained twin."""

    batch: Annotated[int, Field(ge=1)] = 256
    """Samples at once; bounds the memory, changes no result beyond the last bits."""

    threads: Annotated[int, Field(ge=1)] = 1
    """Threads of torch. Results are byte-identical only for equal numbers of threads."""


class ProbeSpec(Section):
    """Linear probe: how much of a label a ridge regression reads from frozen embeddings."""

    target: str = "labels"
    """Label sensor whose per-chip class proportions are predicted."""

    classes: tuple[int, ...] = ()
    """Codes of the classes that count; empty means all that vary in both the training and the test chips."""

    ridge_alphas: Annotated[tuple[float, ...], Field(min_length=1)] = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
    """Strengths of the ridge penalty to choose from, for features of unit variance; chosen for each encoder
    by cross-validation within the training chips."""

    folds: Annotated[int, Field(ge=2)] = 5
    """Folds of that cross-validation; a block of neighbouring chips is never divided between folds."""

    min_label_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Chips with a smaller share of labelled pixels are left out of the probe."""

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if min(self.ridge_alphas) <= 0:
            msg = f"probe.ridge_alphas={list(self.ridge_alphas)} holds a value that is not positive"
            raise ValueError(msg)
        return self
