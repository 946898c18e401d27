"""The chart's WorkflowTemplate is the one that eo-batch renders from the chart's own profile: no drift between
`argo submit --from` and `eo-batch run --on argo.yaml`.
"""

from __future__ import annotations

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


@pytest.mark.parametrize("values", sorted(set(VALUES) - {"minimal"}))
@pytest.mark.parametrize("more", [(), ODD], ids=["", "odd"])
def test_both_renderings_are_the_same(values: str, more: tuple[str, ...]) -> None:
    objects = rendered(values, *more)
    ours = workflow_template(parse_placement(profiles(objects)["argo"]))
    charts = named(objects, "WorkflowTemplate", ours["metadata"]["name"])
    assert charts["metadata"]["namespace"] == ours["metadata"]["namespace"]
    assert comparable(charts) == comparable(ours)
    assert charts["apiVersion"] == ours["apiVersion"]


def test_it_comes_with_argo_only() -> None:
    assert of_kind(rendered("minimal"), "WorkflowTemplate") == []
