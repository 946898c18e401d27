"""The functions of OpenTofu that `infra` calls, as far as it uses them. A call of any other is an error."""

from __future__ import annotations

import base64
import ipaddress
import itertools
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml


class EvaluationError(Exception):
    """What OpenTofu would refuse; `can` and `try` catch it."""


def _regex(pattern: str, string: str) -> Any:
    found = re.search(pattern, string) if isinstance(string, str) else None
    if found is None:
        raise EvaluationError(f"{string!r} does not match {pattern}")
    return found.groups() or found[0]


def _network(cidr: str) -> ipaddress.IPv4Network:
    if not isinstance(cidr, str) or "/" not in cidr:
        raise EvaluationError(f"{cidr!r} is no CIDR block")
    try:
        return ipaddress.IPv4Network(cidr, strict=False)
    except ValueError as error:
        raise EvaluationError(str(error)) from error


def _cidrhost(cidr: str, number: int) -> str:
    return str(_network(cidr)[number])


def _cidrsubnet(cidr: str, bits: int, number: int) -> str:
    network = _network(cidr)
    if network.prefixlen + bits > 32 or number >= 2**bits:
        raise EvaluationError(f"{cidr} has no subnet {number} with {bits} more bits")
    size = 2 ** (32 - network.prefixlen - bits)
    return f"{network.network_address + number * size}/{network.prefixlen + bits}"


def _tonumber(value: Any) -> Any:
    try:
        return value if isinstance(value, int | float) else int(value)
    except (TypeError, ValueError) as error:
        raise EvaluationError(f"{value!r} is no number") from error


def _tostring(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise EvaluationError(f"{value!r} is no string")


def _coalesce(*values: Any) -> Any:
    for value in values:
        if value not in (None, ""):
            return value
    raise EvaluationError("coalesce has no value left")


def _jsonencode(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _yamlencode(value: Any) -> str:
    return yaml.safe_dump(json.loads(_jsonencode(value)), sort_keys=True)


def _toset(values: Any) -> list[Any]:
    """Sets are sorted lists without repetitions here: they compare and iterate as OpenTofu's do."""
    return sorted(set(values))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "alltrue": all,
    "base64decode": lambda value: base64.b64decode(value).decode(),
    "cidrhost": _cidrhost,
    "cidrsubnet": _cidrsubnet,
    "coalesce": _coalesce,
    "concat": lambda *lists: [value for values in lists for value in values],
    "contains": lambda values, value: value in values,
    "file": lambda path: Path(path).read_text(encoding="utf-8"),
    "floor": math.floor,
    "join": lambda separator, values: separator.join(values),
    "jsonencode": _jsonencode,
    "keys": lambda mapping: sorted(mapping),
    "length": len,
    "merge": lambda *maps: {key: value for mapping in maps for key, value in mapping.items()},
    "regex": _regex,
    "replace": lambda string, old, new: string.replace(old, new),
    "setproduct": lambda *sets: [list(pair) for pair in itertools.product(*sets)],
    "split": lambda separator, string: string.split(separator),
    "startswith": lambda string, start: string.startswith(start),
    "tonumber": _tonumber,
    "toset": _toset,
    "tostring": _tostring,
    "trimsuffix": lambda string, end: string.removesuffix(end),
    "values": lambda mapping: [mapping[key] for key in sorted(mapping)],
    "yamldecode": yaml.safe_load,
    "yamlencode": _yamlencode,
}
"""All but `can` and `try`, which have to catch errors in their arguments."""
