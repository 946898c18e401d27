"""Examples are accepted; what can't work is refused before anything is made, with the variable's name and a remedy."""

from __future__ import annotations

from typing import Any

import pytest

from tests.infra.conftest import Applied

UUID = "00000000-0000-0000-0000-000000000000"


@pytest.mark.parametrize("cloud", ["aws", "azure", "gcp"])
def test_the_example_is_accepted(applied: Applied, cloud: str) -> None:
    assert applied(cloud).problems() == []


@pytest.mark.parametrize(
    ("cloud", "variable", "value"),
    [
        ("aws", "budget", {"usd": 500, "email": "you@example.org"}),
        ("aws", "expire_after_days", None),
        ("aws", "kubernetes_version", "1.35"),
        ("aws", "region", "us-gov-west-1"),
        ("aws", "vpc_cidr", "10.0.0.0/18"),
        ("aws", "zones", ["a", "d"]),
        ("azure", "budget", {"amount": 1, "email": "a@b.org", "start": "2026-12-01T00:00:00Z"}),
        ("azure", "zones", []),
        ("gcp", "budget", {"billing_account": "012345-6789AB-CDEF01", "amount": 10}),
        ("gcp", "bucket", "a_bucket.of-mine"),
    ],
)
def test_other_good_values_are_accepted(applied: Applied, cloud: str, variable: str, value: Any) -> None:
    assert applied(cloud, **{variable: value}).problems() == []


@pytest.mark.parametrize(
    ("cloud", "variable", "value"),
    [
        ("aws", "abort_uploads_after_days", 0),
        ("aws", "ami_alias", "al2023"),
        ("aws", "api_cidrs", []),
        ("aws", "api_cidrs", ["0.0.0.0/0"]),
        ("aws", "api_cidrs", ["203.0.113.7"]),
        ("aws", "bucket", "Capital"),
        ("aws", "budget", {"usd": 0, "email": "you@example.org"}),
        ("aws", "budget", {"usd": 10, "email": "you"}),
        ("aws", "expire_after_days", 0),
        ("aws", "image_tag", "a/b"),
        ("aws", "kubernetes_version", "1.34.1"),
        ("aws", "log_retention_days", 31),
        ("aws", "name", "EO"),
        ("aws", "node_disk_gib", 20),
        ("aws", "region", "us-west-2a"),
        ("aws", "system_instance_types", []),
        ("aws", "vpc_cidr", "10.0.0.0/24"),
        ("aws", "vpc_cidr", "10.0.0.0"),
        ("aws", "zones", ["a"]),
        ("aws", "zones", ["us-west-2a", "us-west-2b"]),
        ("azure", "api_cidrs", ["0.0.0.0/0"]),
        ("azure", "budget", {"amount": 1, "email": "a@b.org", "start": "2026-12-15T00:00:00Z"}),
        ("azure", "cpu_spot", {"vm_size": "Standard_D8as_v5", "max_nodes": 0, "disk_gib": 128}),
        ("azure", "expire_after_days", 0),
        ("azure", "gpu_spot", {"vm_size": "Standard_NC4as_T4_v3", "max_nodes": 1, "disk_gib": 10}),
        ("azure", "gpu_train", {"vm_size": "Standard_NC4as_T4_v3", "max_nodes": 0, "disk_gib": 128}),
        ("azure", "image_tag", ""),
        ("azure", "kubernetes_version", "1"),
        ("azure", "name", "a name"),
        ("azure", "region", "West Europe"),
        ("azure", "replication", "GRS"),
        ("azure", "sku_tier", "Premium"),
        ("azure", "subscription_id", "my subscription"),
        ("azure", "unique", "k-7"),
        ("azure", "zones", ["4"]),
        ("gcp", "abort_uploads_after_days", 0),
        ("gcp", "api_cidrs", ["0.0.0.0/0"]),
        ("gcp", "bucket", "Capital"),
        ("gcp", "budget", {"billing_account": "mine", "amount": 10}),
        ("gcp", "cpu_spot", {"machine_type": "n2d-standard-8", "max_nodes": 1, "disk_gib": 10}),
        ("gcp", "expire_after_days", -1),
        (
            "gcp",
            "gpu_spot",
            {"machine_type": "g2-standard-8", "gpu_type": "nvidia-l4", "gpus": 0, "max_nodes": 1, "disk_gib": 100},
        ),
        (
            "gcp",
            "gpu_train",
            {"machine_type": "g2-standard-8", "gpu_type": "nvidia-l4", "gpus": 1, "max_nodes": 0, "disk_gib": 100},
        ),
        ("gcp", "image_tag", "-"),
        ("gcp", "name", "a-very-long-name-for-a-cluster"),
        ("gcp", "project", "My project"),
        ("gcp", "region", "europe-west4-a"),
        ("gcp", "release_channel", "EXTENDED"),
        ("gcp", "zones", ["europe-west4-a"]),
    ],
)
def test_what_can_not_work_is_refused(applied: Applied, cloud: str, variable: str, value: Any) -> None:
    problems = applied(cloud, **{variable: value}).problems()
    assert len(problems) == 1
    name, message = problems[0].split(": ", 1)
    assert name == variable
    assert variable in message


def test_every_validation_is_tried(applied: Applied) -> None:
    """The table above has a value for each variable with a validation."""
    mark = next(mark for mark in test_what_can_not_work_is_refused.pytestmark if mark.name == "parametrize")
    tried = {(cloud, variable) for cloud, variable, _ in mark.args[1]}
    checked = {
        (cloud, block.labels[0])
        for cloud in ("aws", "azure", "gcp")
        for block in applied(cloud).module.all("variable")
        if block.all("validation")
    }
    assert checked - tried == set()


@pytest.mark.parametrize(
    ("cloud", "variable", "value"),
    [("aws", "zones", "a"), ("gcp", "cpu_spot", {"machine_type": "n2d-standard-8"}), ("azure", "protect", "maybe")],
)
def test_values_of_another_type_are_refused(applied: Applied, cloud: str, variable: str, value: Any) -> None:
    from tests.infra.functions import EvaluationError

    with pytest.raises(EvaluationError):
        applied(cloud, **{variable: value}).problems()
