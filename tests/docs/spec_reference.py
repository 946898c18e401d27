"""docs/spec.md from the JSON Schema: `python -m tests.docs.spec_reference` writes it, a test holds it to the schema."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from eo_batch.core.specfile import json_schema

PAGE = Path(__file__).resolve().parents[2] / "docs" / "spec.md"
_HEAD = """# The run spec

Written by `python -m tests.docs.spec_reference` from the JSON Schema (`eo-batch schema`); do not edit. Unknown keys are
refused. On the command line a field is `section.field=value`, with YAML values; an entry of a mapping is one more part,
as in `sensors.s2.max_cloud_pct=40`.
"""
_SECTIONS = {
    "AreaSpec": "area",
    "TimeSpec": "time",
    "EventSpec": "time.event",
    "GridSpec": "grid",
    "SensorSpec": "sensors.<name>",
    "SplitSpec": "split",
    "LimitSpec": "limits",
    "PretrainSpec": "pretrain",
    "EncoderSpec": "pretrain.encoder, kind: vit",
    "ResNetSpec": "pretrain.encoder, kind: resnet18",
    "MaeSpec": "pretrain.objective, kind: mae",
    "TransformerSpec": "pretrain.objective.decoder",
    "DinoSpec": "pretrain.objective, kind: dino",
    "SimClrSpec": "pretrain.objective, kind: simclr",
    "ClipSpec": "pretrain.objective, kind: clip",
    "ViewSpec": "pretrain.objective.views",
    "ElevationSpec": "pretrain.elevation",
    "EmbedSpec": "embed",
    "ProbeSpec": "probe",
}
"""Where each section stands in a spec, in the order in which they are shown."""
_BOUNDS = {
    "minimum": "≥ {}",
    "maximum": "≤ {}",
    "exclusiveMinimum": "> {}",
    "exclusiveMaximum": "< {}",
    "multipleOf": "multiple of {}",
    "minProperties": "not empty",
}


def page() -> str:
    """The text of docs/spec.md. Raises KeyError for a section that `_SECTIONS` does not place."""
    schema = json.loads(json_schema())
    sections = schema["$defs"]
    if set(sections) != set(_SECTIONS):
        raise KeyError(f"sections without a place: {set(sections) ^ set(_SECTIONS)}")
    parts = [_HEAD, _table(schema)]
    for name, place in _SECTIONS.items():
        parts.append(f"## `{place}`\n\n{sections[name]['description']}\n\n{_table(sections[name])}")
    return "\n".join(parts)


def _table(section: dict[str, Any]) -> str:
    required = set(section.get("required", ()))
    rows = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for name, field in section["properties"].items():
        about = " ".join([*field.get("description", "").split(), _below(field)]).strip()
        about = about.replace("|", "\\|").replace("<days>", "&lt;days&gt;")
        rows.append(f"| `{name}` | {_kind(field)} | {_default(field, name in required)} | {about} |")
    return "\n".join(rows) + "\n"


def _below(field: dict[str, Any]) -> str:
    """Where a field that is a section is shown."""
    holders = [field, *field.get("anyOf", ()), *field.get("oneOf", ()), field.get("additionalProperties")]
    places = [_SECTIONS[h["$ref"].rsplit("/", 1)[1]] for h in holders if isinstance(h, dict) and "$ref" in h]
    if not places:
        return ""
    # An anchor is the heading without what is no letter; spaces become hyphens.
    links = [f"[`{place}`](#{re.sub(r'[^a-z ]', '', place).replace(' ', '-')})" for place in places]
    return f"See {', '.join(links)}."


def _kind(field: dict[str, Any]) -> str:
    if "$ref" in field or "oneOf" in field:
        return "section"
    if "const" in field:
        return f"`{field['const']}`"
    if "anyOf" in field:
        return " or ".join(_kind(option) for option in field["anyOf"] if option.get("type") != "null")
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    kind = str(field["type"])
    if kind == "array":
        inner = field.get("items") or field["prefixItems"][0]
        least, most = field.get("minItems"), field.get("maxItems")
        number = f"{most} × " if least == most and most else ""
        kind = f"list of {number}{_kind(inner)}" + (", not empty" if least and not number else "")
    elif kind == "object" and isinstance(field.get("additionalProperties"), dict):
        kind = f"mapping to {_kind(field['additionalProperties'])}"
    elif "format" in field:
        kind = str(field["format"])
    bounds = [words.format(f"{field[key]:g}") for key, words in _BOUNDS.items() if key in field]
    return ", ".join([kind, *bounds])


def _default(field: dict[str, Any], required: bool) -> str:
    if required:
        return "required"
    value = field.get("default")
    if "$ref" in field:
        return "as below"
    if "oneOf" in field:
        return f"`kind: {value['kind']}`"
    if value is None or value in ("", [], {}):
        return "–"
    return f"`{json.dumps(value)}`"


if __name__ == "__main__":
    PAGE.write_text(page())
