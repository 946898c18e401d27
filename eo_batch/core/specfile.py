"""Run specs from YAML text and dotted overrides, with errors that a person can act on."""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from pydantic import ValidationError

from eo_batch.core.errors import SpecError
from eo_batch.core.spec import RunSpec


def parse_spec(text: str, overrides: Sequence[str] = (), where: str = "spec") -> RunSpec:
    """The spec of a YAML document with `a.b=value` overrides (values are YAML) applied in order.

    Raises SpecError naming every wrong field, its value and what to do.
    """
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SpecError(f"{where} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise SpecError(f"{where} holds no spec; it must be a mapping with name, area, time and sensors")
    for override in overrides:
        _apply(document, override)
    try:
        return RunSpec.model_validate(document)
    except ValidationError as error:
        raise SpecError(f"{where}: " + "; ".join(_lines(error))) from error


def dump_spec(spec: RunSpec) -> str:
    """YAML that `parse_spec` reads back to an equal spec; defaults are written out."""
    return yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def json_schema() -> str:
    """JSON Schema of the run spec, for editors."""
    schema = RunSpec.model_json_schema()
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2)


def _apply(document: dict[str, Any], override: str) -> None:
    path, sign, text = override.partition("=")
    if not sign or not re.fullmatch(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*", path):
        raise SpecError(f"override {override!r} is not of the form section.field=value, such as grid.chip_px=224")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SpecError(f"override {override!r}: {text!r} is not YAML; quote it") from error
    *parents, last = path.split(".")
    here: Any = document
    for name in parents:
        if here.get(name) is None:
            here[name] = {}
        here = here[name]
        if not isinstance(here, dict):
            raise SpecError(f"override {override!r}: {name} is a value, not a section, so nothing is below it")
    here[last] = value


def _lines(error: ValidationError) -> list[str]:
    lines = []
    for problem in error.errors():
        field, _ = _place(problem["loc"])
        value = problem.get("input")
        message = problem["msg"].removeprefix("Value error, ")
        match problem["type"]:
            case "extra_forbidden":
                _, known = _place(problem["loc"][:-1])
                near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1, cutoff=0.5)
                remedy = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(sorted(known))}"
                lines.append(f"{field}={_short(value)} is not a known key; {remedy}")
            case "missing":
                lines.append(f"{field} is missing; add it")
            case "value_error":
                # Our own messages say field, value and remedy, but a section does not know where it stands.
                top = str(problem["loc"][0]) if problem["loc"] else ""
                lines.append(message if message.startswith(top) else f"{field}: {message}")
            case _:
                lines.append(f"{field}={_short(value)}: {message[0].lower()}{message[1:]}")
    return lines


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _place(location: Sequence[int | str]) -> tuple[str, list[str]]:
    """What a person calls a place in the spec, and the keys of the section there, by walking the JSON Schema. Where a
    section is of one of several kinds, pydantic puts the kind into the path; nobody writes it there."""
    root = RunSpec.model_json_schema()
    here, names = _resolved(root, root), []
    for part in location:
        kinds = [_resolved(kind, root) for kind in here.get("oneOf", ())]
        if kinds:
            here = next(kind for kind in kinds if kind["properties"]["kind"]["const"] == part)
            continue
        names.append(str(part))
        properties = here.get("properties", {})
        below = properties.get(part) if part in properties else here.get("additionalProperties") or here.get("items")
        here = _resolved(below if isinstance(below, Mapping) else {}, root)
    return ".".join(names), list(here.get("properties", {}))


def _resolved(node: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    for option in node.get("anyOf", []):
        if "$ref" in option:
            node = option
    reference = node.get("$ref")
    if isinstance(reference, str):
        return dict(root["$defs"][reference.rsplit("/", 1)[-1]])
    return node
