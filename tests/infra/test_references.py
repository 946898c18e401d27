"""Every name that an expression uses is declared, and everything declared is used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hcl2.walk", reason="python-hcl2 8 is not installed")

from tests.infra import schemas
from tests.infra.hcl import INFRA, MODULES, Block, Module, Reference, all_expressions, load, parse, references
from tests.infra.world import World

_BUILT_IN = frozenset({"each", "count", "path", "self"})


def _all_references(module: Module) -> Iterator[tuple[Block, Reference]]:
    for block in module.blocks:
        for tree, bound in all_expressions(_without_types(block)):
            for reference in references(tree, bound):
                yield block, reference


def _without_types(block: Block) -> Block:
    """A block without what looks like a reference and is none: types, and attributes that a change is ignored in."""
    attributes = {k: v for k, v in block.attributes.items() if (block.kind, k) != ("variable", "type")}
    attributes.pop("ignore_changes", None)
    children = tuple(_without_types(child) for child in block.blocks)
    return Block(block.kind, block.labels, attributes, children, block.path)


def _fault(module: Module, reference: Reference) -> str | None:
    match reference:
        case ("var", name, *_):
            return None if (name,) in _labels(module, "variable") else f"variable {name} is not declared"
        case ("local", name, *_):
            return None if name in module.local_values else f"local {name} is not declared"
        case ("module", name, *rest):
            return _module_fault(module, name, rest)
        case ("data", kind, name, *rest):
            return _resource_fault(module, "data", kind, name, rest)
        case (root, *_) if root in _BUILT_IN:
            return None
        case (kind, name, *rest) if "_" in kind:
            return _resource_fault(module, "resource", kind, name, rest)
    return "nothing has this name"


def _labels(module: Module, kind: str) -> set[tuple[str, ...]]:
    return {block.labels for block in module.all(kind)}


def _module_fault(module: Module, name: str, rest: list[str]) -> str | None:
    if (name,) not in _labels(module, "module"):
        return f"module {name} is not called"
    if rest and (rest[0],) not in _labels(_called(module, module.one("module", name)), "output"):
        return f"module {name} has no output {rest[0]}"
    return None


def _called(module: Module, block: Block) -> Module:
    source = World(module, {}).evaluate(block.attributes["source"])
    return load((module.folder / source).resolve())


def _resource_fault(module: Module, block_kind: str, kind: str, name: str, rest: list[str]) -> str | None:
    if (kind, name) not in _labels(module, block_kind):
        return f"{block_kind} {kind}.{name} is not declared"
    block = module.one(block_kind, kind, name)
    many = {"for_each", "count"} & set(block.attributes)
    if many and rest and rest[0] != "[]":
        return f"{kind}.{name} has {many.pop()}: it wants a key before .{rest[0]}"
    if not many and rest and rest[0] == "[]":
        return f"{kind}.{name} is one: it takes no key"
    return _attribute_fault(schemas.entry(block), rest[1:] if many else rest)


def _attribute_fault(entry: Any, rest: list[str]) -> str | None:
    for name in rest:
        if not isinstance(entry, dict):
            return None  # a map or list of plain values
        if name == "[]":
            continue
        if name not in entry["outputs"] and name not in entry.get("inputs", {}):
            return f"there is no attribute {name}"
        entry = entry["outputs"].get(name)
    return None


@pytest.mark.parametrize("folder", MODULES, ids=lambda folder: folder.name)
def test_every_reference_resolves(folder: Path) -> None:
    module = load(folder)
    found = [
        f"{block.title}: {'.'.join(reference)}: {fault}"
        for block, reference in _all_references(module)
        if (fault := _fault(module, reference)) is not None
    ]
    assert found == []


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("var.b", "variable b is not declared"),
        ("local.b", "local b is not declared"),
        ("[for x in local.a : y.z]", "nothing has this name"),
        ('"${aws_vpc.none.id}"', "resource aws_vpc.none is not declared"),
        ("aws_vpc.main.name", "there is no attribute name"),
        ("aws_vpc.main[0].id", "takes no key"),
        ("aws_subnet.all.id", "wants a key"),
        ('aws_subnet.all["x"].ident', "there is no attribute ident"),
        ("aws_eks_cluster.main.vpc_config[0].group", "there is no attribute group"),
        ("module.none.x", "module none is not called"),
        ("module.values.yml", "has no output yml"),
        ("data.aws_partition.none.partition", "data aws_partition.none is not declared"),
        ('local.a == "x" ? var.c : 1', "variable c is not declared"),
    ],
)
def test_a_fault_is_found(expression: str, fault: str) -> None:
    text = f"""
variable "a" {{}}
locals {{ a = var.a }}
resource "aws_vpc" "main" {{}}
resource "aws_eks_cluster" "main" {{}}
resource "aws_subnet" "all" {{ for_each = local.a }}
module "values" {{ source = "../modules/helm-values" }}
output "x" {{ value = {expression} }}
"""
    folder = INFRA / "aws"
    module = Module(folder, tuple(parse(text, folder / "x.tf")))
    found = [_fault(module, reference) for _, reference in _all_references(module)]
    assert any(fault in (line or "") for line in found), found


@pytest.mark.parametrize("folder", MODULES, ids=lambda folder: folder.name)
def test_what_is_declared_is_used(folder: Path) -> None:
    module = load(folder)
    used = {reference[:2] for _, reference in _all_references(_without_validations(module))}
    declared = {("var", *labels) for labels in _labels(module, "variable")}
    declared |= {("local", name) for name in module.local_values}
    assert sorted(declared - used) == []
    data = {("data", *labels) for labels in _labels(module, "data")}
    assert sorted(data - {reference[:3] for _, reference in _all_references(module)}) == []


def _without_validations(module: Module) -> Module:
    """A variable that only its own validation looks at is not used."""
    return Module(module.folder, tuple(block for block in module.blocks if block.kind != "variable"))


@pytest.mark.parametrize("folder", MODULES, ids=lambda folder: folder.name)
def test_modules_are_called_with_what_they_take(folder: Path) -> None:
    module = load(folder)
    for block in module.all("module"):
        variables = {variable.labels[0]: variable for variable in _called(module, block).all("variable")}
        given = set(block.attributes) - {"source", "depends_on"}
        assert given <= set(variables), block.title
        assert {name for name, variable in variables.items() if "default" not in variable.attributes} <= given


@pytest.mark.parametrize("folder", MODULES, ids=lambda folder: folder.name)
def test_variables_and_outputs_say_what_they_are(folder: Path) -> None:
    module = World(load(folder), {})
    for block in (*module.module.all("variable"), *module.module.all("output")):
        assert len(module.evaluate(block.attributes["description"])) > 15, block.title
        assert block.kind == "output" or "type" in block.attributes, block.title


@pytest.mark.parametrize("folder", MODULES, ids=lambda folder: folder.name)
def test_ignored_changes_name_attributes(folder: Path) -> None:
    for block in load(folder).all("resource"):
        for lifecycle in block.all("lifecycle"):
            tree = lifecycle.attributes.get("ignore_changes")
            for reference in references(tree) if tree is not None else ():
                known = schemas.entry(block)
                assert reference[0] in {*known["inputs"], *known["nested"]}, block.title
