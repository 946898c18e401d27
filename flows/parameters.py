"""Types of the flows' parameters. Prefect's server checks them before it takes a flow run, and shows them as a form."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from eo_batch.core.spec import RunSpec

_BARE = r"^[^?@]+$"
_DAY = r"^\d{4}-\d{2}-\d{2}$"


class _Strict:
    """Says in JSON Schema what the server would not know otherwise.

    Addresses come without query and user, either of which can hold a secret: Prefect keeps parameters in its database,
    shows them to all who may look, and writes wrong ones into logs. It does not look at the format of dates.
    """

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        found = handler(core)
        spec = handler.resolve_ref_schema(found)
        sensor = handler.resolve_ref_schema(spec["properties"]["sensors"]["additionalProperties"])
        for section in (spec, sensor):
            address = next(kind for kind in section["properties"]["catalog"]["anyOf"] if kind["type"] == "string")
            address["pattern"] = _BARE
        time = handler.resolve_ref_schema(spec["properties"]["time"])
        for day in (time["properties"]["start"], time["properties"]["end"]):
            day["pattern"] = _DAY
        return found


def _without_secrets(spec: RunSpec) -> RunSpec:
    sensors = {f"sensors.{name}.catalog": sensor.catalog for name, sensor in spec.sensors.items()}
    for field, address in {"catalog": spec.catalog, **sensors}.items():
        if address is not None and set("?@") & set(address):
            raise ValueError(
                f"{field} has a query or a user in its address, which can hold a secret, and parameters of flow runs "
                "are not kept secret; leave it out, and give credentials to the worker's environment"
            )
    return spec


Spec = Annotated[RunSpec, _Strict(), AfterValidator(_without_secrets)]
"""A run spec whose addresses hold no secret."""

StoreUrl = Annotated[str, Field(pattern=_BARE)]
"""Folder or URL of the store, without credentials."""

RunName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]

Engine = Literal["prefect", "argo"]
"""Who keeps the graph of stages: the flow, one task a stage, or one Argo workflow that the flow follows."""

Stage = Literal["plan", "chips", "publish", "pretrain", "embed", "probe", "report"]

Price = Annotated[float, Field(ge=0)]
"""An amount in any currency."""

Days = Annotated[int, Field(ge=0)]
