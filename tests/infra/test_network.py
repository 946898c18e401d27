"""Address ranges lie where they should and do not overlap."""

from __future__ import annotations

from ipaddress import IPv4Network
from itertools import combinations

import pytest

from tests.infra.conftest import Applied


def _disjoint(ranges: list[IPv4Network]) -> bool:
    return not any(one.overlaps(other) for one, other in combinations(ranges, 2))


@pytest.mark.parametrize(("cidr", "zones"), [("10.20.0.0/16", ["a", "b", "c"]), ("10.0.16.0/20", ["a", "b"])])
def test_aws_subnets_fill_the_network(applied: Applied, cidr: str, zones: list[str]) -> None:
    aws = applied("aws", vpc_cidr=cidr, zones=zones)
    found = {
        kind: [IPv4Network(each.get("cidr_block")) for each in aws.instances("aws_subnet", kind).values()]
        for kind in ("private", "public")
    }
    assert [len(subnets) for subnets in found.values()] == [len(zones)] * 2
    assert _disjoint([*found["private"], *found["public"]])
    network = IPv4Network(cidr)
    assert all(subnet.subnet_of(network) for subnets in found.values() for subnet in subnets)
    # A quarter each: pods take an address each. AWS makes no subnet smaller than a /28.
    assert all(subnet.prefixlen == network.prefixlen + 2 for subnet in found["private"])
    assert all(subnet.prefixlen <= 28 for subnet in found["public"])


@pytest.mark.parametrize(("each_zone", "gateways"), [(False, 1), (True, 3)])
def test_aws_nat_gateways(applied: Applied, each_zone: bool, gateways: int) -> None:
    aws = applied("aws", nat_gateway_per_zone=each_zone)
    assert len(aws.instances("aws_nat_gateway", "main")) == gateways
    used = {str(route.get("nat_gateway_id")) for route in aws.instances("aws_route", "private").values()}
    assert len(used) == gateways


def test_google_cloud_ranges(applied: Applied) -> None:
    gcp = applied("gcp")
    subnet = gcp.rendered(gcp.module.one("resource", "google_compute_subnetwork", "nodes"))
    ranges = [subnet["ip_cidr_range"], *(each["ip_cidr_range"] for each in subnet["secondary_ip_range"])]
    ranges.append(gcp.local("control_plane_cidr"))
    assert len(ranges) == 4
    assert _disjoint([IPv4Network(each) for each in ranges])
    cluster = gcp.rendered(gcp.module.one("resource", "google_container_cluster", "main"))
    names = {each["range_name"] for each in subnet["secondary_ip_range"]}
    assert set(cluster["ip_allocation_policy"][0].values()) == names
    (firewall,) = gcp.instances("google_compute_firewall", "webhooks").values()
    assert firewall.get("source_ranges") == [cluster["private_cluster_config"][0]["master_ipv4_cidr_block"]]


def test_azure_ranges(applied: Applied) -> None:
    azure = applied("azure")
    (space,) = azure.rendered(azure.module.one("resource", "azurerm_virtual_network", "main"))["address_space"]
    (nodes,) = azure.rendered(azure.module.one("resource", "azurerm_subnet", "nodes"))["address_prefixes"]
    cluster = azure.rendered(azure.module.one("resource", "azurerm_kubernetes_cluster", "main"))
    (profile,) = cluster["network_profile"]
    assert IPv4Network(nodes).subnet_of(IPv4Network(space))
    assert _disjoint([IPv4Network(each) for each in (space, profile["pod_cidr"], profile["service_cidr"])])
    assert IPv4Network(f"{profile['dns_service_ip']}/32").subnet_of(IPv4Network(profile["service_cidr"]))
    # The API knows the nodes by the address of their NAT gateway.
    (access,) = cluster["api_server_access_profile"]
    assert access["authorized_ip_ranges"] == ["203.0.113.7/32", "<azurerm_public_ip.nat.ip_address>/32"]
