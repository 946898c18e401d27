"""Fails on tests that were skipped without leave: `skips.py JUNIT_XML ALLOWED`.

Each line of ALLOWED is `pattern: reason`, where the pattern (as of a shell) is matched against
`<class name>::<test name>` of the report, as in `tests.store.test_failures::test_a_full_disk*: …`. A line that matches
nothing that was skipped is harmless: it is allowed there, not expected.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from fnmatch import fnmatchcase
from pathlib import Path


def allowed(text: str) -> dict[str, str]:
    """Pattern to reason. Raises ValueError for a line without a reason."""
    patterns = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        pattern, separator, reason = line.partition(": ")
        if not separator or not reason.strip():
            raise ValueError(f"line {number} has no reason; write `pattern: reason`")
        patterns[pattern.strip()] = reason.strip()
    return patterns


def skipped(report: Path) -> dict[str, str]:
    """Name to message of every skipped test of a JUnit report. Raises ValueError for a report without tests."""
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    if not cases:
        raise ValueError(f"{report} holds no tests")
    found = {}
    for case in cases:
        for skip in case.iter("skipped"):
            if skip.get("type") != "pytest.xfail":
                found[f"{case.get('classname')}::{case.get('name')}"] = skip.get("message") or ""
    return found


def main(report: str, patterns_file: str) -> int:
    patterns = allowed(Path(patterns_file).read_text())
    refused = 0
    for name, message in sorted(skipped(Path(report)).items()):
        reason = next((why for pattern, why in patterns.items() if fnmatchcase(name, pattern)), None)
        if reason is None:
            refused += 1
            print(f"SKIPPED WITHOUT LEAVE {name}: {message}")
        else:
            print(f"skipped, allowed ({reason}) {name}: {message}")
    print(f"{refused} skipped without leave")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
