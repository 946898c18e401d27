"""What `infra/schema/*.json` says about blocks, and where a block differs from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from hcl2.rules.containers import ObjectElemKeyRule, ObjectRule, TupleRule
from hcl2.rules.expressions import ExprTermRule
from hcl2.rules.literal_rules import FloatLitRule, IntLitRule, LiteralValueRule
from hcl2.rules.strings import StringRule

from tests.infra.hcl import INFRA, Block, label

_META = frozenset({"count", "for_each", "provider", "depends_on"})
_LIFECYCLE = frozenset({"create_before_destroy", "prevent_destroy", "ignore_changes", "replace_triggered_by"})
_CONTAINERS = ("List", "Set", "Map")


@cache
def provider(name: str) -> dict[str, Any]:
    """The file of one provider, such as `aws`."""
    found: dict[str, Any] = json.loads((INFRA / "schema" / f"{name}.json").read_text(encoding="utf-8"))
    return found


def entry(block: Block) -> dict[str, Any]:
    """The schema of a resource, data source or provider block. Raises LookupError for an unknown type."""
    name = block.labels[0]
    known = provider(name.split("_", 1)[0])
    if block.kind == "provider":
        found = known["config"]
    else:
        found = known["resources" if block.kind == "resource" else "data"].get(name)
    if found is None:
        raise LookupError(f"{block.title}: no schema of {name}; run infra/schema/extract.py")
    return dict(found)


def faults(block: Block, schema: dict[str, Any]) -> Iterator[str]:
    """Where a block's arguments and sub-blocks are not what its schema says."""
    yield from _faults(block, schema, block.title, top=True)


def _faults(block: Block, schema: dict[str, Any], where: str, *, top: bool) -> Iterator[str]:
    inputs: dict[str, str] = schema.get("inputs", {})
    nested: dict[str, Any] = schema.get("nested", {})
    for name, tree in block.attributes.items():
        if top and name in _META:
            continue
        if name in inputs:
            yield from _misfit(tree, inputs[name].rstrip("!"), f"{where}.{name}")
        elif name in nested and nested[name]["kind"] in ("objects", "single"):
            for item in _objects(tree):
                yield from _object_faults(item, nested[name], f"{where}.{name}")
        elif name in nested:
            yield f"{where}.{name} is a block, not an argument: write it without ="
        else:
            yield f"{where}.{name} is no argument" + (", it can only be read" if name in schema["outputs"] else "")
    seen: list[str] = []
    for child in block.blocks:
        if top and child.kind == "lifecycle":
            yield from (f"{where}.lifecycle.{name} is unknown" for name in set(child.attributes) - _LIFECYCLE)
            continue
        name, body = (child.labels[0], child.all("content")[0]) if child.kind == "dynamic" else (child.kind, child)
        if name not in nested:
            yield f"{where}.{name} is no block" + (": write it with =" if name in inputs else "")
            continue
        if nested[name]["kind"] == "objects":
            yield f"{where}.{name} is an argument: write it with ="
        if nested[name]["kind"] == "block" and name in seen and child.kind != "dynamic":
            yield f"{where}.{name} may be there only once"
        seen.append(name)
        yield from _faults(body, {"outputs": {}, **nested[name]}, f"{where}.{name}", top=False)
    yield from _missing(schema, {*block.attributes, *seen}, where)


def _missing(schema: dict[str, Any], given: set[str], where: str) -> Iterator[str]:
    needed = [name for name, kind in schema.get("inputs", {}).items() if kind.endswith("!")]
    needed += [name for name, child in schema.get("nested", {}).items() if child.get("required")]
    yield from (f"{where}.{name} is required" for name in sorted(set(needed) - given))


def _objects(tree: Any) -> Iterator[ObjectRule]:
    """The literal objects that an argument gives; expressions are not looked into."""
    inner = tree.expression if isinstance(tree, ExprTermRule) else tree
    if isinstance(inner, ObjectRule):
        yield inner
    elif isinstance(inner, TupleRule):
        for element in inner.elements:
            yield from _objects(element)


def _object_faults(item: ObjectRule, schema: dict[str, Any], where: str) -> Iterator[str]:
    names: set[str] = set()
    known = {**schema.get("inputs", {}), **schema.get("nested", {})}
    for element in item.elements:
        if not isinstance(element.key, ObjectElemKeyRule):
            continue
        name = label(element.key.value)
        names.add(name)
        if name not in known:
            yield f"{where}.{name} is no argument"
        elif name in schema.get("nested", {}):
            for child in _objects(element.expression):
                yield from _object_faults(child, schema["nested"][name], f"{where}.{name}")
        else:
            yield from _misfit(element.expression, str(known[name]).rstrip("!"), f"{where}.{name}")
    yield from _missing(schema, names, where)


def _misfit(tree: Any, kind: str, where: str) -> Iterator[str]:
    """A literal whose shape its argument can't take; HCL converts among strings, numbers and booleans by itself."""
    inner = tree.expression if isinstance(tree, ExprTermRule) else tree
    many = kind.endswith(_CONTAINERS)
    if isinstance(inner, TupleRule) and not kind.endswith(("List", "Set")) and kind != "any":
        yield f"{where} takes a {kind}, not a list"
    elif isinstance(inner, ObjectRule) and not kind.endswith("Map") and kind != "any":
        yield f"{where} takes a {kind}, not an object"
    elif isinstance(inner, StringRule | IntLitRule | FloatLitRule) and many:
        yield f"{where} takes a {kind}, not a single value"
    elif isinstance(inner, StringRule | IntLitRule | FloatLitRule) and kind == "boolean":
        yield f"{where} takes true or false"
    elif isinstance(inner, LiteralValueRule) and str(inner.token) in ("true", "false") and (many or kind == "number"):
        yield f"{where} takes a {kind}, not true or false"
