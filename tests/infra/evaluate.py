"""Evaluates expressions of OpenTofu.

There is no `tofu` where the tests run, so this is a small interpreter of the part of the language that `infra` uses.
What it can't evaluate is an error, never a guess.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from hcl2.rules.containers import ObjectElemKeyRule, ObjectRule, TupleRule
from hcl2.rules.expressions import BinaryOpRule, ConditionalRule, ExprTermRule, UnaryOpRule
from hcl2.rules.for_expressions import ForObjectExprRule, ForTupleExprRule
from hcl2.rules.functions import FunctionCallRule
from hcl2.rules.indexing import GetAttrExprTermRule, IndexExprTermRule, ShortIndexRule
from hcl2.rules.literal_rules import FloatLitRule, IdentifierRule, IntLitRule, LiteralValueRule
from hcl2.rules.strings import InterpolationRule, StringRule

from tests.infra.functions import FUNCTIONS, EvaluationError

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "%": operator.mod,
}
_ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\"}


@runtime_checkable
class Named(Protocol):
    """A value whose attributes are looked up when they are asked for."""

    def get(self, name: str, /) -> Any:
        """An attribute or element of it."""


@dataclass(frozen=True)
class Unknown:
    """A value that is known after apply; in a string it is written as `<aws_eks_cluster.main.arn>`."""

    path: str

    def get(self, name: str) -> Unknown:
        """An attribute or element of it."""
        return Unknown(f"{self.path}[{name}]" if name.isdigit() else f"{self.path}.{name}")

    def __str__(self) -> str:
        return f"<{self.path}>"


@dataclass(frozen=True)
class Interpreter:
    """The names that an expression sees."""

    root: Callable[[str], Any]
    """The value of a name that nothing around the expression binds, such as `var`."""
    bound: Mapping[str, Any]
    """What `for`, `each`, `count` and `dynamic` bind."""

    def evaluate(self, node: Any) -> Any:
        """The value of an expression. Raises EvaluationError."""
        match node:
            case ExprTermRule():
                return self.evaluate(node.expression)
            case LiteralValueRule():
                return {"true": True, "false": False, "null": None}[str(node.token.value)]
            case IntLitRule():
                return int(str(node.token.value))
            case FloatLitRule():
                return float(str(node.token.value))
            case StringRule():
                return self._string(node)
            case TupleRule():
                return [self.evaluate(element) for element in node.elements]
            case ObjectRule():
                return {self._key(item.key): self.evaluate(item.expression) for item in node.elements}
            case ConditionalRule():
                return self.evaluate(node.if_true if self.evaluate(node.condition) else node.if_false)
            case UnaryOpRule():
                value = self.evaluate(node.expr_term)
                return not value if node.operator == "!" else -value
            case BinaryOpRule():
                return self._binary(node)
            case ForTupleExprRule() | ForObjectExprRule():
                return self._for(node)
            case FunctionCallRule():
                return self._call(node)
            case IdentifierRule():
                return self._name(str(node.token.value))
            case GetAttrExprTermRule():
                return get(self.evaluate(node.expr_term), str(node.get_attr.identifier.token.value))
            case IndexExprTermRule() if not isinstance(node.children[1], ShortIndexRule):
                return get(self.evaluate(node.children[0]), self.evaluate(node.children[1].index_expression))
        raise EvaluationError(f"{type(node).__name__} is beyond this interpreter")

    def _string(self, node: StringRule) -> Any:
        parts = [part.content for part in node.string_parts]
        if len(parts) == 1 and isinstance(parts[0], InterpolationRule):
            return self.evaluate(parts[0].expression)
        done = []
        for part in parts:
            if isinstance(part, InterpolationRule):
                value = self.evaluate(part.expression)
                done.append(str(value) if isinstance(value, Unknown) else FUNCTIONS["tostring"](value))
            else:
                done.append(re.sub(r'\\([nt"\\])', lambda found: _ESCAPES[found[1]], str(part.value)))
        return "".join(done)

    def _key(self, key: Any) -> Any:
        if not isinstance(key, ObjectElemKeyRule):
            return self.evaluate(key.expression)
        literal = isinstance(key.value, IdentifierRule)
        return str(key.value.token.value) if literal else self.evaluate(key.value)

    def _binary(self, node: BinaryOpRule) -> Any:
        sign = str(node.binary_term.binary_operator.token.value).strip()
        left = self.evaluate(node.expr_term)
        if sign == "&&":
            return bool(left) and bool(self.evaluate(node.binary_term.expr_term))
        if sign == "||":
            return bool(left) or bool(self.evaluate(node.binary_term.expr_term))
        return _OPERATORS[sign](left, self.evaluate(node.binary_term.expr_term))

    def _for(self, node: ForTupleExprRule | ForObjectExprRule) -> Any:
        first, second = node.for_intro.first_iterator, node.for_intro.second_iterator
        results: list[tuple[Any, Any]] = []
        for key, value in pairs(self.evaluate(node.for_intro.iterable)):
            names = {str(first.token.value): value}
            if second is not None:
                names = {str(first.token.value): key, str(second.token.value): value}
            inside = Interpreter(self.root, {**self.bound, **names})
            if node.condition is not None and not inside.evaluate(node.condition.condition_expr):
                continue
            key = inside.evaluate(node.key_expr) if isinstance(node, ForObjectExprRule) else None
            results.append((key, inside.evaluate(node.value_expr)))
        return dict(results) if isinstance(node, ForObjectExprRule) else [value for _, value in results]

    def _call(self, node: FunctionCallRule) -> Any:
        name = str(node.identifiers[0].token.value)
        arguments = node.arguments.arguments if node.arguments else []
        if name in ("can", "try"):
            for argument in arguments:
                try:
                    value = self.evaluate(argument)
                except (EvaluationError, LookupError):
                    continue
                return True if name == "can" else value
            if name == "can":
                return False
            raise EvaluationError("try has no argument that works")
        if name not in FUNCTIONS:
            raise EvaluationError(f"function {name} is beyond this interpreter")
        return FUNCTIONS[name](*(self.evaluate(argument) for argument in arguments))

    def _name(self, name: str) -> Any:
        return self.bound[name] if name in self.bound else self.root(name)


def get(value: Any, name: Any) -> Any:
    """`value.name` or `value[name]`."""
    match value:
        case dict() if name in value or str(name) in value:
            return value[name if name in value else str(name)]
        case list() if isinstance(name, int) and 0 <= name < len(value):
            return value[name]
        case Named() if not isinstance(value, dict):
            return value.get(str(name))
    raise EvaluationError(f"{value!r} has no {name!r}")


def pairs(value: Any, *, of_set: bool = False) -> list[tuple[Any, Any]]:
    """Keys and values to iterate over; a set's elements are their own keys."""
    match value:
        case dict():
            return sorted(value.items())
        case list():
            return [(element if of_set else index, element) for index, element in enumerate(value)]
    raise EvaluationError(f"{value!r} can't be iterated over")
