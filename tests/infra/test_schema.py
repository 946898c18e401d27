"""Every resource, data source and provider block says what its provider's schema allows, and all that it demands."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("hcl2.walk", reason="python-hcl2 8 is not installed")

from tests.infra import schemas
from tests.infra.hcl import INFRA, MODULES, Block, load, parse
from tests.infra.world import World

_PACKAGES = os.environ.get("EO_BATCH_CDKTF")
"""site-packages that hold the cdktf packages; read here because tests see no EO_BATCH_ variables."""


def _blocks() -> list[Block]:
    kinds = ("resource", "data", "provider")
    return [block for folder in MODULES for block in load(folder).blocks if block.kind in kinds]


@pytest.mark.parametrize("block", _blocks(), ids=lambda block: block.title)
def test_arguments_are_those_of_the_schema(block: Block) -> None:
    assert list(schemas.faults(block, schemas.entry(block))) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('name = "a"\nrole_arn = "b"\nvpc_config {\nsubnet_ids = ["c"]\n}\nzone = "d"', "zone is no argument"),
        ('name = "a"\nvpc_config {\nsubnet_ids = ["c"]\n}', "role_arn is required"),
        ('name = "a"\nrole_arn = "b"', "vpc_config is required"),
        ('name = "a"\nrole_arn = "b"\nvpc_config {\n}', "vpc_config.subnet_ids is required"),
        ('name = "a"\nrole_arn = "b"\nvpc_config {\nsubnet_ids = ["c"]\npublic = true\n}', "public is no argument"),
        ('name = "a"\nrole_arn = "b"\nvpc_config = { subnet_ids = ["c"] }', "vpc_config is a block"),
        ('name = "a"\nrole_arn = "b"\nvpc_config {\nsubnet_ids = "c"\n}', "takes a stringList, not a single value"),
        ('name = ["a"]\nrole_arn = "b"\nvpc_config {\nsubnet_ids = ["c"]\n}', "takes a string, not a list"),
        ('name = "a"\nrole_arn = "b"\narn = "x"\nvpc_config {\nsubnet_ids = ["c"]\n}', "it can only be read"),
        ('name = "a"\nrole_arn = "b"\nnode {\n}\nvpc_config {\nsubnet_ids = ["c"]\n}', "node is no block"),
        (
            'name = "a"\nrole_arn = "b"\nvpc_config {\nsubnet_ids = ["c"]\n}\nvpc_config {\nsubnet_ids = ["c"]\n}',
            "only once",
        ),
        (
            'name = "a"\nrole_arn = "b"\ndynamic "vpc_config" {\nfor_each = [1]\ncontent {\nids = 1\n}\n}',
            "vpc_config.ids is no argument",
        ),
        ('name = "a"\nrole_arn = "b"\nlifecycle {\nprevent = true\n}\nvpc_config {\nsubnet_ids = ["c"]\n}', "prevent"),
    ],
)
def test_a_fault_is_found(text: str, fault: str) -> None:
    (block,) = parse(f'resource "aws_eks_cluster" "x" {{\n{text}\n}}\n', Path("x/x.tf"))
    found = list(schemas.faults(block, schemas.entry(block)))
    assert any(fault in line for line in found), found


def test_objects_are_looked_into() -> None:
    text = 'provider "helm" {\nkubernetes = {\nhost = "h"\nexec = { command = "c" }\nhots = 1\n}\n}\n'
    (block,) = parse(text, Path("x/x.tf"))
    found = list(schemas.faults(block, schemas.entry(block)))
    assert [line.split(".", 2)[-1] for line in found] == [
        "kubernetes.exec.api_version is required",
        "kubernetes.hots is no argument",
    ]


@pytest.mark.parametrize("folder", MODULES, ids=lambda folder: folder.name)
def test_providers_are_pinned_to_the_checked_schema(folder: Path) -> None:
    """From the version whose schema was checked to the next major version, which may take arguments away."""
    module = World(load(folder), {})
    (terraform,) = module.module.all("terraform")
    assert module.evaluate(terraform.attributes["required_version"]) == ">= 1.9"
    pins = module.rendered(terraform).get("required_providers", [{}])[0]
    blocks = [block for block in module.module.blocks if block.kind in ("resource", "data", "provider")]
    assert set(pins) == {block.labels[0].split("_")[0] for block in blocks}
    for name, pin in pins.items():
        known = schemas.provider(name)
        major = int(known["version"].split(".")[0])
        assert pin == {"source": known["provider"], "version": f">= {known['version']}, < {major + 1}.0.0"}


def test_the_schemas_are_those_of_the_packages() -> None:
    """Extracting anew changes nothing, so neither the files nor the list of types in use has gone stale."""
    packages = _PACKAGES or _installed()
    if packages is None:
        pytest.skip("the cdktf-cdktf-provider-* packages are not installed (1.4 GB); EO_BATCH_CDKTF may name them")
    script = INFRA / "schema" / "extract.py"
    done = subprocess.run(
        [sys.executable, str(script), "--check", "--packages", packages], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_type_is_left_over() -> None:
    """The files hold the types in use and no others: what is not used is not checked by anyone."""
    used = {(block.kind, block.labels[0]) for block in _blocks() if block.kind != "provider"}
    names = [path.stem for path in (INFRA / "schema").glob("*.json")]
    kept = {
        (kind, name)
        for provider in names
        for kind, key in (("resource", "resources"), ("data", "data"))
        for name in schemas.provider(provider)[key]
    }
    assert kept == used


def _installed() -> str | None:
    spec = find_spec("cdktf_cdktf_provider_aws")
    return None if spec is None or spec.origin is None else str(Path(spec.origin).parents[1])
