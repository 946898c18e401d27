"""Prints what eo-batch itself (no argument) or its named extras need, one requirement a line, from pyproject.toml.

The image builds install these before the code is there, so that a change of the code alone rebuilds one small layer.
Nothing but the standard library: it runs before anything is installed.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def requirements(project: Mapping[str, Any], extras: Sequence[str]) -> list[str]:
    """Requirements of `extras`, or the core ones where none is named; `project` is the table `[project]`.

    Raises KeyError with the name of an extra that the project does not have.
    """
    if not extras:
        return list(project["dependencies"])
    return [wanted for extra in extras for wanted in project["optional-dependencies"][extra]]


if __name__ == "__main__":
    table = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    print("\n".join(requirements(table, sys.argv[1:])))
