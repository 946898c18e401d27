"""Writes down what the providers accept, for the resources that this folder uses: one JSON file a provider.

    python infra/schema/extract.py --packages VENV/lib/python3.11/site-packages

The source is the PyPI packages `cdktf-cdktf-provider-{aws,google,azurerm,helm,kubernetes}`: each carries, as generated
JavaScript with type declarations, the schema that `tofu providers schema` would print. They weigh more than 1 GB
together, so only the facts about the types in use are kept here, and `tests/infra` checks every block against them.
The packages are not imported, only read.

A file holds `provider`, `version`, `package`, and under `config`, `resources` and `data` one entry a type:

| key | what |
|---|---|
| `inputs` | argument → type; `!` marks a required one |
| `nested` | nested block → entry like this one, with `kind` and, if it must be there, `required` |
| `outputs` | attribute that can be read → type, or an entry with `outputs` of its own |

`kind` is `block` (at most one), `blocks` (any number), `objects` (written with `=`) or `single` (a block or an object:
the packages do not say which; `timeouts` is the usual one).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PROVIDERS = ("aws", "azurerm", "google", "helm", "kubernetes")
"""In the order of `<name>_…` prefixes of types; the file of each is `<name>.json`."""

_BLOCK = re.compile(r'^(resource|data)\s+"((?:aws|azurerm|google|helm|kubernetes)_\w+)"', re.MULTILINE)
_VERSION = re.compile(r"providerVersion: '([^']+)'")
_DECLARED = re.compile(r"\{@link \S+?#(\S+) [^}]*\}(?:(?!\*/).)*\*/\s*readonly (\w+)(\??):", re.DOTALL)
_INTERFACE = re.compile(r"^export interface (\w+) [^{]*\{\n(.*?)^\}", re.DOTALL | re.MULTILINE)
_FUNCTION = re.compile(r"^function (\w+)ToHclTerraform\(struct\) \{\n(.*?)^\}", re.DOTALL | re.MULTILINE)
_CLASS = re.compile(r"^class (\w+) extends cdktf\.\w+ \{\n(.*?)^\}", re.DOTALL | re.MULTILINE)
_ARGUMENT = re.compile(
    r"^ +(\w+): \{\n\s+value: ([^\n]+),\n\s+isBlock: (true|false),"
    r"\n\s+type: \"(\w+)\",\n\s+storageClassType: \"(\w+)\"",
    re.MULTILINE,
)
_READ = re.compile(r"this\.get(\w*)Attribute\(['\"](\w+)['\"]\)|interpolationForAttribute\(['\"](\w+)['\"]\)")
_READ_NESTED = re.compile(r"= new (?:\w+\.)?(\w+)\(this, \"(\w+)\"")
_ELEMENT = re.compile(r"return new (?:\w+\.)?(\w+OutputReference)\(")
_WRITES = re.compile(r"(\w+)ToHclTerraform")
_MAPPED = re.compile(r"listMapperHcl\([^\n]*ToHclTerraform\)?, (true|false)\)")


@dataclass(frozen=True)
class Sources:
    """The generated files of one type."""

    script: str
    """All JavaScript of its folder."""
    declarations: str
    """All TypeScript declarations of its folder."""


def used_types(folder: Path) -> set[tuple[str, str]]:
    """`("resource" | "data", type)` of every block in the `.tf` files below `folder`."""
    return {pair for path in sorted(folder.rglob("*.tf")) for pair in _BLOCK.findall(path.read_text(encoding="utf-8"))}


def extract(provider: str, packages: Path, used: set[tuple[str, str]]) -> dict[str, Any]:
    """The entry of one provider. Raises SystemExit where its package is missing or does not know a type."""
    archives = sorted(packages.glob(f"cdktf_cdktf_provider_{provider}/_jsii/*.jsii.tgz"))
    if len(archives) != 1:
        raise SystemExit(f"{packages} has no cdktf-cdktf-provider-{provider}; pip install it there")
    wanted = {_folder(provider, kind, name): (kind, name) for kind, name in sorted(used) if _of(provider, name)}
    sources = _read(archives[0], {"provider", *wanted})
    if missing := [name for folder, (_, name) in wanted.items() if folder not in sources]:
        raise SystemExit(f"{archives[0].name} does not know {', '.join(missing)}")
    entry: dict[str, Any] = {
        "provider": f"hashicorp/{provider}",
        "version": _provider_version(sources["provider"]),
        "package": archives[0].name.removesuffix(".jsii.tgz").replace("provider-", "cdktf-cdktf-provider-"),
        "config": _type(sources["provider"]),
        "resources": {},
        "data": {},
    }
    for folder, (kind, name) in wanted.items():
        entry["resources" if kind == "resource" else "data"][name] = _type(sources[folder])
    return entry


def _of(provider: str, name: str) -> bool:
    return name.split("_", 1)[0] == provider


def _folder(provider: str, kind: str, name: str) -> str:
    slug = name.replace("_", "-")
    return f"data-{slug}" if kind == "data" else slug.removeprefix(f"{provider}-")


def _read(archive: Path, folders: set[str]) -> dict[str, Sources]:
    script: dict[str, list[str]] = {}
    declarations: dict[str, list[str]] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = member.name.split("/")
            if len(parts) < 4 or parts[1] != "lib" or parts[2] not in folders or not member.isfile():
                continue
            into = declarations if member.name.endswith(".d.ts") else script if member.name.endswith(".js") else None
            handle = tar.extractfile(member) if into is not None else None
            if into is not None and handle is not None:
                into.setdefault(parts[2], []).append(handle.read().decode("utf-8"))
    return {folder: Sources("\n".join(script[folder]), "\n".join(declarations[folder])) for folder in script}


def _provider_version(sources: Sources) -> str:
    found = set(_VERSION.findall(sources.script))
    if len(found) != 1:
        raise SystemExit(f"the package names {len(found)} provider versions, not one; its layout has changed")
    return found.pop()


def _type(sources: Sources) -> dict[str, Any]:
    """One resource, data source or provider configuration."""
    required = {name: _required(body) for name, body in _INTERFACE.findall(sources.declarations)}
    functions = dict(_FUNCTION.findall(sources.script))
    classes = dict(_CLASS.findall(sources.script))
    main = next(name for name, body in classes.items() if "synthesizeHclAttributes()" in body)
    body = classes[main].split("synthesizeHclAttributes()", 1)[1]
    entry = _arguments(body, required[f"{main}Config"], required, functions)
    entry["outputs"] = _outputs(classes[main].split("synthesizeAttributes()", 1)[0], classes)
    return entry


def _required(interface: str) -> dict[str, bool]:
    """Argument → whether it must be given."""
    return {name: not optional for name, _, optional in _DECLARED.findall(interface)}


def _arguments(
    body: str, must: dict[str, bool], required: dict[str, dict[str, bool]], functions: dict[str, str]
) -> dict[str, Any]:
    inputs: dict[str, str] = {}
    nested: dict[str, Any] = {}
    for name, value, is_block, kind, storage in _ARGUMENT.findall(body):
        if is_block == "false":
            inputs[name] = storage + ("!" if must[name] else "")
            continue
        mapped = _MAPPED.search(value)
        function = _WRITES.findall(value)[0]
        child = _arguments(functions[function], required[function[0].upper() + function[1:]], required, functions)
        child["kind"] = _kind(mapped[1] == "true" if mapped else None, kind)
        if must[name]:
            child["required"] = True
        nested[name] = child
    if lost := set(must) - set(inputs) - set(nested) - {"alias"}:
        raise SystemExit(f"arguments {sorted(lost)} are declared and never written; the package's layout has changed")
    return _without_empty({"inputs": inputs, "nested": nested})


def _kind(repeats_as_block: bool | None, kind: str) -> str:
    if repeats_as_block is None:
        return "single" if kind == "struct" else "block"
    return "blocks" if repeats_as_block else "objects"


def _outputs(body: str, classes: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind, name, raw in _READ.findall(body):
        found[name or raw] = (kind[0].lower() + kind[1:]) if kind else "any"
    for made, name in _READ_NESTED.findall(body):
        element = next(_elements(made, classes), None)
        # Maps and lists of plain values are helper classes of cdktf itself.
        found[name] = "complex" if element is None else {"outputs": _outputs(classes[element], classes)}
    return found


def _elements(made: str, classes: dict[str, str]) -> Iterator[str]:
    if made.endswith("OutputReference") and made in classes:
        yield made
    elif made in classes:
        yield from (name for name in _ELEMENT.findall(classes[made]) if name in classes)


def _without_empty(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if value}


def dump(entry: dict[str, Any]) -> str:
    """The text of a provider's file: sorted, one line for each type, so that a difference is readable."""
    lines = []
    for key in ("provider", "version", "package", "config"):
        lines.append(f"  {json.dumps(key)}: {json.dumps(entry[key], sort_keys=True)}")
    for key in ("resources", "data"):
        types = [f"    {json.dumps(k)}: {json.dumps(v, sort_keys=True)}" for k, v in sorted(entry[key].items())]
        lines.append(f"  {json.dumps(key)}: {{" + ("\n" + ",\n".join(types) + "\n  }" if types else "}"))
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main() -> int:
    """Write the files, or with `--check` say which of them would change."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, required=True, help="site-packages that hold the cdktf packages")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file would change")
    arguments = parser.parse_args()
    used = used_types(HERE.parent)
    stale = []
    for provider in PROVIDERS:
        path = HERE / f"{provider}.json"
        text = dump(extract(provider, arguments.packages, used))
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path.name)
            if not arguments.check:
                path.write_text(text, encoding="utf-8")
    print("\n".join(f"{name}: {'differs' if arguments.check else 'written'}" for name in stale) or "nothing changed")
    return int(arguments.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
