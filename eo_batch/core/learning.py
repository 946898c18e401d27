"""What a run may choose about pretraining, embedding and probing. Values only: nothing here knows torch.

Lengths of a patch are given in pixels of the grid (`grid.chip_px` of them make a chip); an array whose pixels
are coarser gets proportionally fewer pixels a patch, so that a patch is the same ground in every sensor.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from eo_batch.core.section import Section

SIZES: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "tiny": {"dim": 192, "depth": 12, "heads": 3},
        "small": {"dim": 384, "depth": 12, "heads": 6},
        "base": {"dim": 768, "depth": 12, "heads": 12},
        "large": {"dim": 1024, "depth": 24, "heads": 16},
    }
)
"""Vision transformers by the names that the field gives them (Touvron et al. 2021, arXiv 2012.12877, table 1;
Dosovitskiy et al. 2021, arXiv 2010.11929, table 1)."""


class TransformerSpec(Section):
    """Size of a transformer."""

    dim: Annotated[int, Field(ge=4, multiple_of=4)] = 96
    """Length of a token; a multiple of 4 (sine and cosine of two coordinates)."""

    depth: Annotated[int, Field(ge=1)] = 1
    """Transformer blocks."""

    heads: Annotated[int, Field(ge=1)] = 4
    """Attention heads; must divide `dim`."""

    mlp_ratio: Annotated[float, Field(gt=0)] = 4.0
    """Width of a block's hidden layer, in multiples of `dim`."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.dim % self.heads:
            msg = f"heads={self.heads} does not divide dim={self.dim}; choose a divisor"
            raise ValueError(msg)
        return self


class EncoderSpec(TransformerSpec):
    """The vision transformer that is pretrained, and whose output is the embedding."""

    kind: Literal["vit"] = "vit"
    """Names this encoder; it is the one that is taken where none is named."""

    size: Literal["tiny", "small", "base", "large"] | None = None
    """Sets `dim`, `depth` and `heads` to those of ViT-Ti, ViT-S, ViT-B or ViT-L, where they are not given."""

    depth: Annotated[int, Field(ge=1)] = 2
    """Transformer blocks."""

    patch_px: Annotated[int, Field(ge=1)] = 8
    """Side of a patch, pixels of the grid; must divide `grid.chip_px`."""

    pool: Literal["mean", "cls"] = "mean"
    """What the embedding is: the mean over all patches, or a token of its own that attends to them, whose attention
    can be looked at."""

    @model_validator(mode="before")
    @classmethod
    def _of_size(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("size") in SIZES:
            return {**SIZES[given["size"]], **given}
        return given


class ResNetSpec(Section):
    """ResNet-18: convolutions, for small chips and contrastive objectives (He et al. 2016, arXiv 1512.03385)."""

    kind: Literal["resnet18"] = "resnet18"
    """Names this encoder."""

    width: Annotated[int, Field(ge=8, multiple_of=8)] = 64
    """Channels of the first stage; the embedding has eight times as many."""

    @property
    def patch_px(self) -> int:
        """Chips may have any size."""
        return 1


def _kind_of(other: str) -> Discriminator:
    """Sections told apart by their `kind`, which is `other` where none is given."""
    return Discriminator(lambda given: given.get("kind", other) if isinstance(given, dict) else given.kind)


AnyEncoder = Annotated[Annotated[EncoderSpec, Tag("vit")] | Annotated[ResNetSpec, Tag("resnet18")], _kind_of("vit")]


class MaeSpec(Section):
    """Masked autoencoding: patches are hidden, and their pixels are filled in (He et al. 2022, arXiv 2111.06377)."""

    kind: Literal["mae"] = "mae"
    """Names this objective."""

    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.6
    """Share of a sample's valid patches that the encoder does not see and must be reconstructed."""

    normalise_targets: bool = True
    """Whether a patch is reconstructed relative to its own mean and deviation (finer detail, no level)."""

    decoder: TransformerSpec = TransformerSpec()
    """Size of the decoder, which only pretraining uses."""


class ViewSpec(Section):
    """How random views of a chip are made: the same part of all sensors, turned, with another contrast."""

    area: tuple[float, float] = (0.25, 1.0)
    """Least and largest share of the chip's area that a view shows."""

    turn: bool = True
    """Whether views are turned by quarters and mirrored."""

    gain: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """A view's standardised pixels are multiplied by 1 ± this much at most, a number for each sensor."""

    shift: Annotated[float, Field(ge=0)] = 0.2
    """What is added to them lies within ± this much, in deviations."""

    drop: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the views from which a sensor is left out, each sensor by itself; never all of them."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not 0 < self.area[0] <= self.area[1] <= 1:
            msg = f"area={list(self.area)} must be two shares of the chip, the smaller one first, above 0 and at most 1"
            raise ValueError(msg)
        return self


class DinoSpec(Section):
    """Self-distillation: views of a chip are told apart from other chips by agreeing with a teacher, which follows the
    encoder slowly (Caron et al. 2021, arXiv 2104.14294)."""

    kind: Literal["dino"] = "dino"
    """Names this objective."""

    prototypes: Annotated[int, Field(ge=2)] = 1024
    """Length of the output that teacher and student compare."""

    hidden: Annotated[int, Field(ge=1)] = 256
    """Width of the head's hidden layers."""

    bottleneck: Annotated[int, Field(ge=1)] = 64
    """Length of the unit vector that the last layer compares with the prototypes."""

    student_temperature: Annotated[float, Field(gt=0)] = 0.1
    """Divides the student's outputs before their softmax."""

    teacher_temperature: Annotated[float, Field(gt=0)] = 0.04
    """Divides the teacher's; lower is sharper."""

    centre_momentum: Annotated[float, Field(ge=0, le=1)] = 0.9
    """How much of the centre, which is taken out of the teacher's outputs, stays at each step."""

    teacher_momentum: Annotated[float, Field(ge=0, le=1)] = 0.996
    """How much of the teacher stays at each step; rises to 1 along a cosine. At 1 the teacher never learns."""

    views: ViewSpec = ViewSpec(area=(0.4, 1.0))
    """The two large views, which the teacher sees too; their `area` is [0.4, 1.0] where nothing is given."""

    local_views: Annotated[int, Field(ge=0)] = 4
    """Small views, which only the student sees."""

    local: ViewSpec = ViewSpec(area=(0.05, 0.4))
    """How small views are made; their `area` is [0.05, 0.4] where nothing is given."""

    local_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Side of a small view's image, as a share of the chip's; rounded to whole patches."""


class SimClrSpec(Section):
    """Two views of a chip are told apart from those of all other chips of the batch (Chen et al. 2020, arXiv
    2002.05709)."""

    kind: Literal["simclr"] = "simclr"
    """Names this objective."""

    temperature: Annotated[float, Field(gt=0)] = 0.5
    """Divides the cosine of two views before the softmax."""

    hidden: Annotated[int, Field(ge=1)] = 128
    """Width of the projection's hidden layer."""

    projection: Annotated[int, Field(ge=1)] = 64
    """Length of what is compared."""

    views: ViewSpec = ViewSpec()
    """How the two views are made."""


class ClipSpec(Section):
    """What the sensors of a chip show is matched among all chips of the batch, for every pair of sensors that a chip
    has (Radford et al. 2021, arXiv 2103.00020, with images of other sensors in place of texts)."""

    kind: Literal["clip"] = "clip"
    """Names this objective."""

    projection: Annotated[int, Field(ge=1)] = 64
    """Length of what is compared; each sensor has a projection of its own."""

    temperature: Annotated[float, Field(gt=0)] = 0.07
    """Divides the cosine before the softmax at the start; it is learnt."""

    drop_bands: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of a sensor's bands that are hidden, each by itself; one always stays."""


ObjectiveSpec = MaeSpec | DinoSpec | SimClrSpec | ClipSpec
AnyObjective = Annotated[
    Annotated[MaeSpec, Tag("mae")]
    | Annotated[DinoSpec, Tag("dino")]
    | Annotated[SimClrSpec, Tag("simclr")]
    | Annotated[ClipSpec, Tag("clip")],
    _kind_of("mae"),
]


class ElevationSpec(Section):
    """Heights that the encoder does not see are read from its patches, besides the objective."""

    array: str
    """Cube array that holds them, such as `dem_30m`; it is no input of the encoder."""

    band: str = "elevation"
    """Band of that array."""

    weight: Annotated[float, Field(gt=0)] = 0.5
    """Weight of the mean squared error of standardised heights, beside 1 for the objective."""


class PretrainSpec(Section):
    """Pretraining: one encoder for each seed, on chips that no probe is tested on."""

    objective: AnyObjective = MaeSpec()
    """What the encoder is trained for."""

    elevation: ElevationSpec | None = None
    """Heights as a further task."""

    arrays: tuple[str, ...] = ()
    """Cube arrays that the encoder sees, such as `s1_10m`; empty means all that hold measurements."""

    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    """One model is trained for each; a seed fixes the weights, the batches, the masks and the views."""

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

    encoder: AnyEncoder = EncoderSpec()
    """What is trained."""

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
        if self.objective.kind == "mae" and self.encoder.kind != "vit":
            msg = f"pretrain.objective: mae hides patches, and {self.encoder.kind} has none; choose another objective"
            raise ValueError(msg)
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
