"""The interpreter that the other tests lean on says what OpenTofu's documentation says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hcl2.walk", reason="python-hcl2 8 is not installed")

from tests.infra.evaluate import Unknown
from tests.infra.functions import EvaluationError
from tests.infra.hcl import Module, assignments, parse
from tests.infra.variable_types import convert
from tests.infra.world import World

MODULE = """
variable "on" {
  type    = bool
  default = true
}

variable "zones" {
  type    = list(string)
  default = ["b", "a"]
}

variable "pool" {
  type    = object({ name = string, size = optional(number, 3), note = optional(string) })
  default = { name = "x" }
}

locals {
  nested = { "a/b" = { list = [10, 20] } }
}

resource "aws_subnet" "each" {
  for_each   = toset(var.zones)
  cidr_block = "10.0.${length(each.key)}.0/24"
}

resource "aws_eip" "some" {
  count  = var.on ? 2 : 0
  domain = "vpc-${count.index}"
}

resource "aws_vpc" "main" {
  cidr_block = "10.0.0.0/16"
}
"""


def _world(**variables: Any) -> World:
    return World(Module(Path("x"), tuple(parse(MODULE, Path("x/x.tf")))), variables)


def _value(expression: str, **variables: Any) -> Any:
    return _world(**variables).evaluate(assignments(f"x = {expression}\n")["x"])


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 2 * 3", 7),
        ("!false && 1 < 2 || false", True),
        ("null == null", True),
        ("var.on ? [1] : []", [1]),
        ('"a-${var.pool.size}-${var.on}"', "a-3-true"),
        ('"${var.zones}"', ["b", "a"]),
        (r'"say \"hi\"\n"', 'say "hi"\n'),
        (r'can(regex("^\\d+$", "12"))', True),
        ('can(regex("^x", "12"))', False),
        ('regex("(a)(.)", "xaby")', ("a", "b")),
        ('local.nested["a/b"].list[1]', 20),
        ("[for zone in var.zones : upper(zone)]", EvaluationError),
        ('{ for index, zone in var.zones : zone => index if zone != "b" }', {"a": 1}),
        ("[for key, value in { z = 1, a = 2 } : key]", ["a", "z"]),
        ('toset(["b", "a", "b"])', ["a", "b"]),
        ("merge({ a = 1 }, { a = 2, b = 3 })", {"a": 2, "b": 3}),
        ("values({ z = 1, a = 2 })", [2, 1]),
        ("try(local.nested.none, 7)", 7),
        ("try(local.none, local.nested.none)", EvaluationError),
        ('cidrsubnet("10.20.0.0/16", 2, 3)', "10.20.192.0/18"),
        ('cidrsubnet("10.20.0.0/16", 8, 194)', "10.20.194.0/24"),
        ('cidrsubnet("10.20.0.0/30", 4, 0)', EvaluationError),
        ('can(cidrhost("10.20.0.0", 0))', False),
        ('coalesce(null, "", "x")', "x"),
        ('setproduct(["a", "b"], [1])', [["a", 1], ["b", 1]]),
        ("yamlencode({ b = [aws_vpc.main.arn], a = null })", "a: null\nb:\n- <aws_vpc.main.arn>\n"),
        ("aws_vpc.main.cidr_block", "10.0.0.0/16"),
        ("aws_vpc.main.id", Unknown("aws_vpc.main.id")),
        ('"${aws_vpc.main.id}/x"', "<aws_vpc.main.id>/x"),
        ('aws_subnet.each["a"].cidr_block', "10.0.1.0/24"),
        ("[for subnet in aws_subnet.each : subnet.id][1]", Unknown('aws_subnet.each["b"].id')),
        ('aws_subnet.each["c"].id', EvaluationError),
        ("aws_eip.some[1].domain", "vpc-1"),
        ("aws_eip.some[2].domain", EvaluationError),
        ("var.none", EvaluationError),
        ("data.aws_partition.current.partition", Unknown("data.aws_partition.current.partition")),
    ],
)
def test_expressions(expression: str, value: Any) -> None:
    if value is EvaluationError:
        with pytest.raises(EvaluationError):
            _value(expression)
    else:
        assert _value(expression) == value


def test_variables_replace_defaults() -> None:
    assert _world(on=False).instances("aws_eip", "some") == {}
    assert _value("var.pool", pool={"name": "y", "size": 5}) == {"name": "y", "size": 5, "note": None}


def test_unknown_variables_are_refused() -> None:
    with pytest.raises(EvaluationError, match="no variables"):
        _value("var.on", of=True)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("string", 1),
        ("number", "1"),
        ("number", True),
        ("bool", "yes"),
        ("list(string)", "a"),
        ("list(string)", [1]),
        ("map(number)", {"a": "b"}),
        ("object({ a = string })", {}),
        ("object({ a = optional(string) })", {"a": 1}),
    ],
)
def test_values_of_another_type_are_refused(kind: str, value: Any) -> None:
    with pytest.raises(EvaluationError):
        convert(assignments(f"x = {kind}\n")["x"], value, lambda node: None)
