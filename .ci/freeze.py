"""Prints `name==version` of every package of this environment but eo-batch and pip's own, for constraints.txt.

Local version labels (`2.13.0+cpu`) are left out: which build of torch is taken is the machine's choice.
"""

from __future__ import annotations

import re
from importlib.metadata import distributions

_TOOLS = frozenset({"eo-batch", "pip", "setuptools", "wheel"})


def pins() -> list[str]:
    """Sorted pins of what is installed."""
    found = {}
    for distribution in distributions():
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
        found[name] = distribution.version.partition("+")[0]
    return [f"{name}=={version}" for name, version in sorted(found.items()) if name not in _TOOLS]


if __name__ == "__main__":
    print("\n".join(pins()))
