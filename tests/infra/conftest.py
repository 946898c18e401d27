"""The clouds' modules with the values of their `terraform.tfvars.example`, and what a cloud would say of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.infra.world import World

_KNOWN: dict[str, dict[str, Any]] = {
    "aws": {
        "data.aws_caller_identity.current.account_id": "123456789012",
        "data.aws_partition.current.partition": "aws",
    },
    "azure": {},
    "gcp": {"data.google_project.current.number": "123456789"},
}

Applied = Callable[..., "World"]


@pytest.fixture
def applied() -> Applied:
    """`applied("aws", bucket="b")`: the module of a cloud, its example's values, and some of one's own."""
    pytest.importorskip("hcl2.walk", reason="python-hcl2 8 is not installed")
    from tests.infra.hcl import INFRA, assignments, load
    from tests.infra.world import World

    def make(cloud: str, **variables: Any) -> World:
        module = load(INFRA / cloud)
        text = (INFRA / cloud / "terraform.tfvars.example").read_text(encoding="utf-8")
        example = {name: World(module, {}).evaluate(tree) for name, tree in assignments(text).items()}
        return World(module, {**example, **variables}, _KNOWN[cloud])

    return make
