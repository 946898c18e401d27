"""A module with the values of its variables: what `tofu console` would say before the first apply."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tests.infra.evaluate import Interpreter, Unknown, pairs
from tests.infra.functions import EvaluationError
from tests.infra.hcl import Block, Module, load
from tests.infra.variable_types import convert


@dataclass(frozen=True)
class Instance:
    """One resource: attributes that its block gives are evaluated, the others are unknown."""

    world: World
    block: Block
    each: Mapping[str, Any]
    path: str

    def get(self, name: str) -> Any:
        """An attribute."""
        if f"{self.path}.{name}" in self.world.known:
            return self.world.known[f"{self.path}.{name}"]
        if name in self.block.attributes:
            return self.world.evaluate(self.block.attributes[name], self.each)
        return Unknown(f"{self.path}.{name}")


@dataclass
class World:
    """A module with the values of its variables."""

    module: Module
    variables: Mapping[str, Any]
    known: Mapping[str, Any] = field(default_factory=dict)
    """What a cloud would say, by path: `data.aws_availability_zones.open.names` → list."""
    modules: dict[str, World] = field(default_factory=dict)

    @cached_property
    def _values(self) -> dict[str, Any]:
        declared = {block.labels[0]: block for block in self.module.all("variable")}
        if surplus := set(self.variables) - set(declared):
            raise EvaluationError(f"{self.module.folder.name} has no variables {sorted(surplus)}")
        values = {}
        for name, block in declared.items():
            if name not in self.variables and "default" not in block.attributes:
                raise EvaluationError(f"{self.module.folder.name}: variable {name} is not set")
            given = self.variables[name] if name in self.variables else self.evaluate(block.attributes["default"])
            values[name] = convert(block.attributes["type"], given, self.evaluate)
        return values

    def problems(self) -> list[str]:
        """Error messages of all validations of variables that fail."""
        checks = [(check, block) for block in self.module.all("variable") for check in block.all("validation")]
        return [
            f"{block.labels[0]}: {self.evaluate(check.attributes['error_message'])}"
            for check, block in checks
            if self.evaluate(check.attributes["condition"]) is not True
        ]

    def output(self, name: str) -> Any:
        """The value of an output."""
        return self.evaluate(self.module.one("output", name).attributes["value"])

    def local(self, name: str) -> Any:
        """The value of a local."""
        return self.evaluate(self.module.local_values[name])

    def instances(self, kind: str, name: str) -> dict[str, Instance]:
        """The resources of one block by key; the key of a single one is empty."""
        block = self.module.one("resource", kind, name)
        path = f"{kind}.{name}"
        if "for_each" in block.attributes:
            return {
                str(key): Instance(self, block, {"each": {"key": key, "value": value}}, f'{path}["{key}"]')
                for key, value in pairs(self.evaluate(block.attributes["for_each"]), of_set=True)
            }
        if "count" in block.attributes:
            count = self.evaluate(block.attributes["count"])
            return {str(i): Instance(self, block, {"count": {"index": i}}, f"{path}[{i}]") for i in range(count)}
        return {"": Instance(self, block, {}, path)}

    def child(self, name: str) -> World:
        """The module that a `module` block calls, with the values that it is given."""
        if name not in self.modules:
            block = self.module.one("module", name)
            arguments = {key: tree for key, tree in block.attributes.items() if key not in ("source", "depends_on")}
            source = (self.module.folder / self.evaluate(block.attributes["source"])).resolve()
            self.modules[name] = World(load(source), {key: self.evaluate(tree) for key, tree in arguments.items()})
        return self.modules[name]

    def blocks(self, block: Block, scope: Mapping[str, Any]) -> list[tuple[Block, Mapping[str, Any]]]:
        """Sub-blocks of a block, `dynamic` ones unrolled, each with the names that are bound in it."""
        found: list[tuple[Block, Mapping[str, Any]]] = []
        for child in block.blocks:
            if child.kind != "dynamic":
                found.append((child, scope))
                continue
            content = child.all("content")[0]
            body = Block(child.labels[0], (), content.attributes, content.blocks, child.path)
            for key, value in pairs(self.evaluate(child.attributes["for_each"], scope)):
                found.append((body, {**scope, child.labels[0]: {"key": key, "value": value}}))
        return found

    def rendered(self, block: Block, scope: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A block as nested dicts: attributes evaluated, sub-blocks as lists."""
        scope = scope or {}
        found: dict[str, Any] = {name: self.evaluate(tree, scope) for name, tree in block.attributes.items()}
        for child, bound in self.blocks(block, scope):
            if child.kind != "lifecycle":
                found.setdefault(child.kind, []).append(self.rendered(child, bound))
        return found

    def evaluate(self, node: Any, bound: Mapping[str, Any] | None = None) -> Any:
        """The value of an expression; `bound` holds what `each`, `count` and `dynamic` bind."""
        return Interpreter(self._root, bound or {}).evaluate(node)

    def _root(self, name: str) -> Any:
        match name:
            case "var":
                return self._values
            case "local":
                return _Lazy(self.local)
            case "path":
                return {"module": str(self.module.folder)}
            case "module":
                return _Lazy(lambda called: _Lazy(self.child(called).output))
            case "data":
                return _Lazy(lambda kind: _Lazy(lambda label: _Known(self, f"data.{kind}.{label}")))
        return _Lazy(lambda label: self._resource(name, label))

    def _resource(self, kind: str, label: str) -> Any:
        found = self.instances(kind, label)
        return found[""] if list(found) == [""] else found


@dataclass(frozen=True)
class _Lazy:
    """A namespace whose members are looked up when they are asked for."""

    get: Callable[[str], Any]


@dataclass(frozen=True)
class _Known:
    """A data source: attributes that the test gives, else unknown."""

    world: World
    path: str

    def get(self, name: str) -> Any:
        path = f"{self.path}.{name}"
        return self.world.known.get(path, Unknown(path))
