"""What a trained model is: a document that people and catalogues read, and from which the encoder is built again.

The properties are those of the STAC Machine Learning Model extension (MLM, version 1.4); what MLM has no word for
stands under `eo-batch:model`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from pydantic import TypeAdapter

from eo_batch.core.errors import DataError
from eo_batch.core.learning import AnyEncoder
from eo_batch.models.checkpoints import load_weights
from eo_batch.models.encoder import Encoder, SensorShape
from eo_batch.models.inputs import BandScaling
from eo_batch.models.objectives.build import build_encoder
from eo_batch.models.samples import InputArray

_ARCHITECTURES = {"vit": "Vision transformer over several sensors", "resnet18": "ResNet-18 over several sensors"}
_ENCODERS: TypeAdapter[AnyEncoder] = TypeAdapter(AnyEncoder)


@dataclass(frozen=True)
class ModelCard:
    """One trained model."""

    name: str
    """What a person calls it."""

    seed: int
    """Seed of weights, batches and masks."""

    arrays: tuple[InputArray, ...]
    """What it sees, in its order."""

    encoder: AnyEncoder
    """The encoder: the section of the spec."""

    objective: Mapping[str, Any]
    """What it was trained for: the section of the spec."""

    hyperparameters: Mapping[str, Any]
    """Everything else that training depended on."""

    weights: str
    """Key of the weights, relative to the stage's prefix."""

    weights_sha256: str
    """SHA-256 of the weights file."""

    untrained_sha256: str
    """SHA-256 of the untrained twin's weights as a file."""

    def shapes(self) -> tuple[SensorShape, ...]:
        """Sizes of what it sees."""
        return tuple(array.shape for array in self.arrays)

    def untrained(self) -> Encoder:
        """The encoder before training."""
        return build_encoder(self.shapes(), self.encoder, self.seed)

    def trained(self, weights: bytes) -> Encoder:
        """The encoder after training. Raises DataError where these are not its weights."""
        encoder = self.untrained()
        encoder.load_state_dict(load_weights(weights, self.weights, self.weights_sha256))
        return encoder

    def to_bytes(self) -> bytes:
        """UTF-8 JSON of the item properties."""
        model = self.untrained()
        properties: dict[str, Any] = {
            "mlm:name": self.name,
            "mlm:architecture": f"{_ARCHITECTURES[self.encoder.kind]}, trained by {self.objective['kind']}",
            "mlm:tasks": ["similarity-search"],
            "mlm:framework": "pytorch",
            "mlm:framework_version": torch.__version__,
            "mlm:pretrained": True,
            "mlm:total_parameters": sum(p.numel() for p in model.parameters()),
            "mlm:input": [_mlm_input(array) for array in self.arrays],
            "mlm:output": [
                {
                    "name": "embedding",
                    "tasks": ["similarity-search"],
                    "result": {
                        "shape": [-1, model.width],
                        "dim_order": ["batch", "feature"],
                        "data_type": "float32",
                    },
                }
            ],
            "mlm:hyperparameters": dict(self.hyperparameters),
            "eo-batch:model": {
                "seed": self.seed,
                "arrays": [asdict(array) for array in self.arrays],
                "encoder": self.encoder.model_dump(mode="json"),
                "objective": dict(self.objective),
                "weights": self.weights,
                "weights_sha256": self.weights_sha256,
                "untrained_sha256": self.untrained_sha256,
            },
        }
        return json.dumps(properties, indent=1, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, content: bytes, where: str) -> "ModelCard":
        """Read `to_bytes`'s document. Raises DataError if it is none."""
        try:
            properties = json.loads(content)
            own = properties["eo-batch:model"]
            return cls(
                name=properties["mlm:name"],
                seed=own["seed"],
                arrays=tuple(_array(array) for array in own["arrays"]),
                encoder=_ENCODERS.validate_python(own["encoder"]),
                objective=own["objective"],
                hyperparameters=properties["mlm:hyperparameters"],
                weights=own["weights"],
                weights_sha256=own["weights_sha256"],
                untrained_sha256=own["untrained_sha256"],
            )
        except (ValueError, KeyError, TypeError) as error:
            msg = f"{where} is not a model card of this version ({error!r}); delete its receipt to train again"
            raise DataError(msg) from error


def _mlm_input(array: InputArray) -> dict[str, Any]:
    pairs = zip(array.scaling.mean_b, array.scaling.std_b, strict=True)
    scaling = [{"type": "z-score", "mean": mean, "stddev": std} for mean, std in pairs]
    entry: dict[str, Any] = {
        "name": array.shape.name,
        "bands": list(array.bands),
        "input": {
            "shape": [-1, array.shape.bands, array.shape.px, array.shape.px],
            "dim_order": ["batch", "bands", "height", "width"],
            "data_type": "float32",
        },
        "value_scaling": scaling,
        "resize_type": None,
    }
    if array.scaling.scale == "db":
        entry["pre_processing_function"] = {"format": "gdal-calc", "expression": "10*log10(A)"}
    return entry


def _array(values: Mapping[str, Any]) -> InputArray:
    scaling = values["scaling"]
    return InputArray(
        shape=SensorShape(**values["shape"]),
        bands=tuple(values["bands"]),
        static=values["static"],
        scaling=BandScaling(scaling["scale"], tuple(scaling["mean_b"]), tuple(scaling["std_b"])),
    )
