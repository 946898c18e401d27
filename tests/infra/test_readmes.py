"""The instructions name what is there: outputs, variables, files; and their commands are shell."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("hcl2.walk", reason="python-hcl2 8 is not installed")

from tests.infra.hcl import CLOUDS, INFRA, load

READMES = sorted(INFRA.rglob("README.md"))


def _commands(path: Path) -> str:
    """The indented lines outside of fences."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return "\n".join(line[4:] if line.startswith("    ") else "" for line in text.splitlines())


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.parent.name)
def test_commands_are_shell(path: Path) -> None:
    commands = _commands(path)
    assert commands.strip()
    done = subprocess.run(["bash", "-n"], input=commands, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.parent.name)
def test_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("cloud", CLOUDS)
def test_outputs_and_variables_exist(cloud: str) -> None:
    text = (INFRA / cloud / "README.md").read_text(encoding="utf-8")
    module = load(INFRA / cloud)
    outputs = {block.labels[0] for block in module.all("output")}
    variables = {block.labels[0] for block in module.all("variable")}
    used = set(re.findall(r"tofu (?:-chdir=\S+ )?output -(?:raw|json) (\w+)", text))
    assert {"helm_values", "namespace", "registries", "use_cluster"} <= used <= outputs
    assert set(re.findall(r"-var (\w+)=", text)) == {"protect"} <= variables
    assert set(re.findall(r"tofu -chdir=(\S+)", text)) == {f"infra/{cloud}"}


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.parent.name)
def test_what_was_not_done_is_said(path: Path) -> None:
    text = " ".join(path.read_text(encoding="utf-8").split())
    assert "hecked against provider schemas; never applied to a cloud account by this project's tests" in text
