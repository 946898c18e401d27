"""Least privilege: what the Roles grant is the table in `rights`, and nobody has more than a Role of the namespace."""

from __future__ import annotations

import pytest

from tests.helm.render import VALUES, Manifest, named, of_kind, rendered
from tests.helm.rights import Right, rights

SECTIONS = {
    "minimal": [],
    "default": ["argo"],
    "keys": ["argo"],
    "eks": ["argo", "kueue"],
    "gke": ["argo", "kueue"],
    "aks": ["argo", "kueue"],
    "all": ["argo", "jobset", "dask", "kueue"],
}


def granted(objects: tuple[Manifest, ...], account: str) -> set[Right]:
    """What Roles that are bound to an account grant."""
    found: set[Right] = set()
    subject = {"kind": "ServiceAccount", "name": f"eo-batch-{account}", "namespace": "eo-batch"}
    for binding in of_kind(objects, "RoleBinding"):
        if subject in binding["subjects"]:
            assert binding["roleRef"]["kind"] == "Role"
            for rule in named(objects, "Role", binding["roleRef"]["name"])["rules"]:
                assert rule.keys() <= {"apiGroups", "resources", "resourceNames", "verbs"}
                for group in rule["apiGroups"]:
                    for resource in rule["resources"]:
                        for name in rule.get("resourceNames", [None]):
                            what = resource if name is None else f"{resource}/{name}"
                            found |= {(group, what, verb) for verb in rule["verbs"]}
    return found


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("account", ["runner", "driver", "workflow", "sweeper", "web"])
def test_accounts_may_do_what_they_have_to_and_nothing_else(values: str, account: str) -> None:
    wanted = rights(account, SECTIONS[values])
    if account == "sweeper" and values == "minimal":
        wanted = set()
    assert granted(rendered(values), account) == wanted


@pytest.mark.parametrize("values", VALUES)
def test_nothing_is_granted_beyond_the_namespace(values: str) -> None:
    objects = rendered(values)
    assert of_kind(objects, "ClusterRole", "ClusterRoleBinding") == []
    for role in of_kind(objects, "Role"):
        assert role["metadata"]["namespace"] == "eo-batch"
        text = str(role["rules"])
        assert "*" not in text
        assert "secrets" not in text
    bound = [binding["subjects"] for binding in of_kind(objects, "RoleBinding")]
    assert all(len(subjects) == 1 for subjects in bound)


def test_those_without_rights_get_no_token() -> None:
    objects = rendered("all")
    for who in ("runner", "web"):
        assert named(objects, "ServiceAccount", f"eo-batch-{who}")["automountServiceAccountToken"] is False
    web = named(objects, "Deployment", "eo-batch-web")["spec"]["template"]
    for pod in (named(objects, "Pod", "eo-batch-check-store"), web):
        assert pod["spec"]["automountServiceAccountToken"] is False


def test_a_queue_of_ones_own_may_be_looked_at() -> None:
    objects = rendered("default", "--set", "pools.cpu-spot.queue=batch")
    assert of_kind(objects, "LocalQueue") == []
    assert granted(objects, "driver") == rights("driver", ["argo", "kueue"])
