"""The chart's WorkflowTemplate is the one that eo-batch renders from the chart's own profile: no drift between
`argo submit --from` and `eo-batch run --on argo.yaml`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from eo_batch.core.placement import parse_placement
from eo_batch.runners.workflow import workflow_template
from tests.helm.render import VALUES, Manifest, named, of_kind, profiles, rendered

ODD = (
    *("--set", "env.HOME=/tmp/home", "--set", "deadlineSeconds=5000"),
    *("--set", "stages.probe.pool=gpu-spot"),
    *(f"--set=stages.probe.{key}=1" for key in ("shards_per_pod", "parallelism", "nodes")),
)
"""What no set of values has: a variable that rendering sets too, and a step on a pool of GPUs."""


def comparable(template: Manifest) -> dict[str, Any]:
    """A template with the profile that it quotes as what it says, and not how."""
    spec: dict[str, Any] = template["spec"] | {"arguments": {"parameters": []}}
    for parameter in template["spec"]["arguments"]["parameters"]:
        quoted = parameter["name"] == "profile"
        value = parse_placement(parameter["value"]) if quoted else parameter.get("value")
        spec["arguments"]["parameters"].append(parameter | {"value": value})
    return spec


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Everything that a value holds, by where it stands; entries of lists that have names, by those."""
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from leaves(part, f"{path}.{key}")
    elif isinstance(value, list) and value:
        for number, part in enumerate(value):
            name = part.get("name", number) if isinstance(part, dict) else number
            yield from leaves(part, f"{path}[{number} {name}]")
    else:
        yield path, value


@pytest.mark.parametrize("values", sorted(set(VALUES) - {"minimal"}))
@pytest.mark.parametrize("more", [(), ODD], ids=["", "odd"])
def test_both_renderings_are_the_same(values: str, more: tuple[str, ...]) -> None:
    objects = rendered(values, *more)
    ours = workflow_template(parse_placement(profiles(objects)["argo"]))
    charts = named(objects, "WorkflowTemplate", ours["metadata"]["name"])
    assert charts["metadata"]["namespace"] == ours["metadata"]["namespace"]
    assert charts["apiVersion"] == ours["apiVersion"]
    here, there = dict(leaves(comparable(charts))), dict(leaves(comparable(ours)))
    differ = {path: (here.get(path), there.get(path)) for path in here.keys() | there.keys()}
    assert {path: both for path, both in differ.items() if both[0] != both[1]} == {}, "chart, then eo-batch"


def test_it_comes_with_argo_only() -> None:
    assert of_kind(rendered("minimal"), "WorkflowTemplate") == []
