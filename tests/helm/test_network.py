"""Who may speak to whom: NetworkPolicies, put to the test of single connections as their rules say it.

The cluster of the tests does not enforce them, so what they admit is worked out here.
"""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from tests.helm.render import Manifest, of_kind, pods, rendered, template

ANYWHERE = "203.0.113.7"
NODE_METADATA = "169.254.169.254"
POD_IDENTITY = "169.254.170.23"
KUBERNETES = "10.0.0.1"

RUNNER = {"app.kubernetes.io/name": "eo-batch", "eo-batch.io/stage": "chips"}
DRIVER = {"eo-batch.io/account": "driver"}
SWEEPER = {"eo-batch.io/account": "sweeper"}
ARGO = {"workflows.argoproj.io/workflow": "run-abc"}
SCHEDULER = {"dask.org/component": "scheduler"}
WEB = {"eo-batch.io/account": "web"}


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "Exists"
        wanted = wanted and expression["key"] in labels
    return wanted


def may_send(values: str, labels: dict[str, str], to: str, port: int, protocol: str = "TCP", *argv: str) -> bool:
    """Whether a pod of the namespace with these labels may open a connection to an address outside of it."""
    policies = [found["spec"] for found in of_kind(rendered(values, *argv), "NetworkPolicy")]
    holding = [policy for policy in policies if "Egress" in policy["policyTypes"]]
    holding = [policy for policy in holding if selects(policy["podSelector"], labels)]
    assert holding, "nothing holds for this pod, so it may do anything"
    return any(_admits(rule, to, port, protocol) for policy in holding for rule in policy["egress"])


def _admits(rule: dict[str, Any], to: str, port: int, protocol: str) -> bool:
    if "ports" in rule and {"protocol": protocol, "port": port} not in rule["ports"]:
        return False
    if "to" not in rule:
        return True
    blocks = [peer["ipBlock"]["cidr"] for peer in rule["to"] if "ipBlock" in peer]
    return any(ipaddress.ip_address(to) in ipaddress.ip_network(block) for block in blocks)


@pytest.mark.parametrize("pod", [RUNNER, DRIVER, SWEEPER, ARGO, SCHEDULER, WEB, {}])
def test_all_reach_names_and_stores_and_nothing_odd(pod: dict[str, str]) -> None:
    assert may_send("keys", pod, ANYWHERE, 53, "UDP")
    assert may_send("keys", pod, ANYWHERE, 53, "TCP")
    assert may_send("keys", pod, ANYWHERE, 443)
    assert may_send("keys", pod, ANYWHERE, 8333), "the store's own port"
    assert not may_send("keys", pod, ANYWHERE, 22)
    assert not may_send("keys", pod, ANYWHERE, 80)
    assert not may_send("eks", pod, ANYWHERE, 8333)
    assert may_send("eks", pod, ANYWHERE, 8080, "TCP", "--set", "networkPolicies.egressPorts={443,8080}")


def test_only_those_with_rights_there_reach_the_kubernetes_api() -> None:
    assert [may_send("all", pod, KUBERNETES, 6443) for pod in (DRIVER, SWEEPER, ARGO)] == [True, True, True]
    assert [may_send("all", pod, KUBERNETES, 6443) for pod in (RUNNER, SCHEDULER, WEB, {})] == [False] * 4


def test_only_drivers_reach_prefect_and_argo() -> None:
    for port in (4200, 2746):
        assert may_send("keys", DRIVER, ANYWHERE, port)
        for pod in (RUNNER, SWEEPER, ARGO, SCHEDULER, WEB):
            assert not may_send("keys", pod, ANYWHERE, port), f"{pod} reaches port {port}"
    assert not may_send("minimal", DRIVER, ANYWHERE, 2746, "TCP", "--set", "networkPolicies.enabled=true")


@pytest.mark.parametrize(
    ("values", "to", "port", "may"),
    [
        ("eks", POD_IDENTITY, 80, True),
        ("eks", NODE_METADATA, 80, False),
        ("gke", NODE_METADATA, 80, True),
        ("gke", "169.254.169.252", 988, True),
        ("gke", POD_IDENTITY, 80, False),
        ("aks", NODE_METADATA, 80, False),
        ("aks", POD_IDENTITY, 80, False),
    ],
)
def test_pods_are_handed_their_own_identity_and_never_that_of_the_node(
    values: str, to: str, port: int, may: bool
) -> None:
    assert may_send(values, RUNNER, to, port) is may


def test_only_the_namespace_itself_comes_in_the_operator_to_schedulers_and_who_may_to_the_web() -> None:
    policies = of_kind(rendered("all"), "NetworkPolicy")
    ingress = {found["metadata"]["name"]: found["spec"] for found in policies if "ingress" in found["spec"]}
    assert ingress.keys() == {"eo-batch", "eo-batch-dask-scheduler", "eo-batch-web"}
    assert ingress["eo-batch"]["podSelector"] == {}
    assert ingress["eo-batch"]["ingress"] == [{"from": [{"podSelector": {}}]}]
    operator = ingress["eo-batch-dask-scheduler"]
    assert operator["podSelector"] == {"matchLabels": SCHEDULER}
    assert operator["ingress"][0]["from"] == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "dask-operator"}}}
    ]
    web = ingress["eo-batch-web"]
    assert web["podSelector"] == {"matchLabels": WEB}
    (rule,) = web["ingress"]
    assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}]
    assert rule["ports"] == [{"protocol": "TCP", "port": 8000}]
    shut = of_kind(rendered("keys"), "NetworkPolicy")
    assert "eo-batch-web" not in {found["metadata"]["name"] for found in shut}


def test_the_charts_pods_are_those_that_policies_mean() -> None:
    accounts = {where: pod["metadata"]["labels"]["eo-batch.io/account"] for where, pod in pods(rendered("all"))}
    assert accounts == {
        "Deployment eo-batch-prefect-worker": "driver",
        "Deployment eo-batch-web": "web",
        "work pool": "driver",
        "CronJob eo-batch-sweeper": "sweeper",
        "Pod eo-batch-check-store": "runner",
        "Pod eo-batch-check-sweeper": "sweeper",
    }


@pytest.mark.parametrize(
    ("url", "port"), [("http://s3", 80), ("https://s3.example.com/x", 443), ("http://[fd00::1]:9000", 9000)]
)
def test_ports_are_those_of_the_urls(url: str, port: int) -> None:
    assert may_send("default", RUNNER, ANYWHERE, port, "TCP", "--set", f"store.endpoint={url}")


def test_policies_can_be_left_to_others() -> None:
    assert template("minimal").returncode == 0
    assert of_kind(rendered("minimal"), "NetworkPolicy") == []
