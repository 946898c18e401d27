"""Types of variables: what a value becomes, with defaults of optional attributes, or why it is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hcl2.rules.containers import ObjectRule
from hcl2.rules.expressions import ExprTermRule
from hcl2.rules.functions import FunctionCallRule
from hcl2.rules.literal_rules import IdentifierRule

from tests.infra.functions import EvaluationError

_PRIMITIVES: dict[str, tuple[type, ...]] = {"string": (str,), "number": (int, float), "bool": (bool,)}


def convert(node: Any, value: Any, evaluate: Callable[[Any], Any]) -> Any:
    """`value` as the type that `node` writes. Values that only a cloud knows pass. Raises EvaluationError."""
    if isinstance(node, ExprTermRule):
        node = node.expression
    if value is None or hasattr(value, "path"):
        return value
    if isinstance(node, IdentifierRule):
        name = str(node.token.value)
        allowed = _PRIMITIVES[name]
        if not isinstance(value, allowed) or (isinstance(value, bool) and name != "bool"):
            raise EvaluationError(f"{value!r} is no {name}")
        return value
    if not isinstance(node, FunctionCallRule):
        raise EvaluationError(f"{type(node).__name__} is no type")
    name = str(node.identifiers[0].token.value)
    inner = node.arguments.arguments[0]
    match name:
        case "list" | "set" if isinstance(value, list):
            elements = [convert(inner, element, evaluate) for element in value]
            return sorted(set(elements)) if name == "set" else elements
        case "map" if isinstance(value, dict):
            return {key: convert(inner, element, evaluate) for key, element in value.items()}
        case "object" if isinstance(value, dict):
            return _object(inner.expression, value, evaluate)
    raise EvaluationError(f"{value!r} is no {name}")


def _object(node: ObjectRule, value: dict[str, Any], evaluate: Callable[[Any], Any]) -> dict[str, Any]:
    done = {}
    for element in node.elements:
        name = str(element.key.value.token.value)
        kind, optional, default = element.expression, False, None
        inner = kind.expression if isinstance(kind, ExprTermRule) else kind
        if isinstance(inner, FunctionCallRule) and str(inner.identifiers[0].token.value) == "optional":
            arguments = inner.arguments.arguments
            kind, optional = arguments[0], True
            default = evaluate(arguments[1]) if len(arguments) > 1 else None
        if name not in value and not optional:
            raise EvaluationError(f"attribute {name} is missing")
        given = value.get(name)
        done[name] = convert(kind, default if given is None else given, evaluate)
    return done
