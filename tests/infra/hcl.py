"""Modules of OpenTofu as blocks, and the names that their expressions refer to.

`python-hcl2` parses; an expression stays the parser's own tree, which `references` and `evaluate` walk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import hcl2
from hcl2.rules.abstract import LarkRule
from hcl2.rules.base import AttributeRule, BlockRule, BodyRule
from hcl2.rules.containers import ObjectElemKeyRule
from hcl2.rules.expressions import ExprTermRule
from hcl2.rules.for_expressions import ForIntroRule, ForObjectExprRule, ForTupleExprRule
from hcl2.rules.functions import FunctionCallRule
from hcl2.rules.indexing import (
    AttrSplatExprTermRule,
    FullSplatExprTermRule,
    GetAttrExprTermRule,
    GetAttrRule,
    IndexExprTermRule,
    ShortIndexRule,
)
from hcl2.rules.literal_rules import IdentifierRule
from hcl2.rules.strings import HeredocTemplateRule, StringRule

INFRA = Path(__file__).resolve().parents[2] / "infra"
MODULES = tuple(sorted({path.parent for path in INFRA.rglob("*.tf")}))
"""Every folder with `.tf` files."""
CLOUDS = ("aws", "azure", "gcp")
"""Folders that people apply."""

Reference = tuple[str, ...]
"""The names of a traversal from its root: `("var", "name")`; `[]` stands for an index or a splat."""


@dataclass(frozen=True)
class Block:
    """One block: `resource "aws_vpc" "main" { … }` has kind `resource` and two labels."""

    kind: str
    labels: tuple[str, ...]
    attributes: dict[str, Any]
    """Name → the parser's tree of the expression, in the order of the file."""
    blocks: tuple[Block, ...]
    path: Path = field(compare=False)
    """The file it stands in."""

    @property
    def title(self) -> str:
        """How it is named in messages."""
        return " ".join([f"{self.path.parent.name}/{self.path.name}:", self.kind, *self.labels])

    def all(self, kind: str) -> tuple[Block, ...]:
        """Its direct sub-blocks of one kind."""
        return tuple(block for block in self.blocks if block.kind == kind)


@dataclass(frozen=True)
class Module:
    """All blocks of one folder."""

    folder: Path
    blocks: tuple[Block, ...]

    def all(self, kind: str) -> tuple[Block, ...]:
        """Top-level blocks of one kind."""
        return tuple(block for block in self.blocks if block.kind == kind)

    def one(self, kind: str, *labels: str) -> Block:
        """The block with these labels. Raises LookupError unless there is exactly one."""
        found = [block for block in self.all(kind) if block.labels == labels]
        if len(found) != 1:
            raise LookupError(f"{self.folder.name} has {len(found)} blocks {kind} {' '.join(labels)}")
        return found[0]

    @property
    def local_values(self) -> dict[str, Any]:
        """Expressions of all `locals` blocks."""
        return {name: tree for block in self.all("locals") for name, tree in block.attributes.items()}


@cache
def load(folder: Path) -> Module:
    """Parse the `.tf` files of a folder, once."""
    blocks: list[Block] = []
    for path in sorted(folder.glob("*.tf")):
        blocks += parse(path.read_text(encoding="utf-8"), path)
    return Module(folder, tuple(blocks))


def parse(text: str, path: Path) -> list[Block]:
    """The top-level blocks of a file's text."""
    return list(_body(hcl2.parses(text).body, path)[1])


def assignments(text: str) -> dict[str, Any]:
    """Names and expressions of a `.tfvars` file's text."""
    return _body(hcl2.parses(text).body, Path("terraform.tfvars"))[0]


def _body(body: BodyRule, path: Path) -> tuple[dict[str, Any], tuple[Block, ...]]:
    attributes: dict[str, Any] = {}
    blocks: list[Block] = []
    for child in body.children:
        if isinstance(child, AttributeRule):
            attributes[_name(child.identifier)] = child.expression
        elif isinstance(child, BlockRule):
            kind, *labels = (label(node) for node in child.labels)
            blocks.append(Block(kind, tuple(labels), *_body(child.body, path), path))
    return attributes, tuple(blocks)


def _name(node: Any) -> str:
    return str(node.token.value)


def label(node: Any) -> str:
    """The characters of a block's label or an object's key, quoted or bare."""
    return text(node) if isinstance(node, StringRule) else _name(node)


def text(node: StringRule) -> str:
    """The characters of a string without interpolations."""
    parts = []
    for part in node.string_parts:
        content = part.content
        if isinstance(content, LarkRule):
            raise ValueError("the string has an interpolation")
        parts.append(str(content.value))
    return "".join(parts)


def traversal(node: Any) -> tuple[list[str], list[Any]] | None:
    """Names from the root of a traversal, and the expressions used as indexes in it; None if it is none.

    `a.b["x"].c` is `["a", "b", "[]", "c"]` with `["x"]`; names after the result of a function have no root.
    """
    match node:
        case ExprTermRule() if not node.parentheses:
            return traversal(node.expression)
        case IdentifierRule():
            return [_name(node)], []
        case GetAttrExprTermRule():
            found = traversal(node.expr_term)
            return None if found is None else ([*found[0], _name(node.get_attr.identifier)], found[1])
        case IndexExprTermRule():
            found = traversal(node.children[0])
            index = node.children[1]
            inner = [] if isinstance(index, ShortIndexRule) else [index.index_expression]
            return None if found is None else ([*found[0], "[]"], [*found[1], *inner])
        case AttrSplatExprTermRule() | FullSplatExprTermRule():
            found = traversal(node.expr_term)
            names = [_name(attr.identifier) for attr in node.attr_splat.children if isinstance(attr, GetAttrRule)]
            return None if found is None else ([*found[0], "[]", *names], found[1])
        case _:
            return None


def references(node: Any, bound: frozenset[str] = frozenset()) -> Iterator[Reference]:
    """Every traversal in an expression, without those that start at a name bound by a `for`."""
    found = traversal(node)
    if found is not None:
        names, indexes = found
        if names[0] not in bound:
            yield tuple(names)
        for index in indexes:
            yield from references(index, bound)
        return
    match node:
        case ForTupleExprRule() | ForObjectExprRule():
            intro = node.for_intro
            yield from references(intro.iterable, bound)
            names = [name for name in (intro.first_iterator, intro.second_iterator) if name is not None]
            inside = bound | {_name(name) for name in names}
            for child in node.children:
                if isinstance(child, LarkRule) and not isinstance(child, ForIntroRule):
                    yield from references(child, inside)
        case FunctionCallRule():
            for argument in node.arguments.arguments if node.arguments else []:
                yield from references(argument, bound)
        case ObjectElemKeyRule() if isinstance(node.value, IdentifierRule):
            return  # a bare key is its own name
        case HeredocTemplateRule():
            raise ValueError("heredocs are not looked into; use yamlencode, jsonencode or a file")
        case _:
            for child in getattr(node, "children", None) or []:
                if child is not None:
                    yield from references(child, bound)


def all_expressions(block: Block) -> Iterator[tuple[Any, frozenset[str]]]:
    """Every expression in a block and its sub-blocks, with the names that `dynamic` blocks around it bind."""
    yield from _expressions(block, frozenset())


def _expressions(block: Block, bound: frozenset[str]) -> Iterator[tuple[Any, frozenset[str]]]:
    for tree in block.attributes.values():
        yield tree, bound
    for child in block.blocks:
        yield from _expressions(child, bound | ({child.labels[0]} if child.kind == "dynamic" else set()))
