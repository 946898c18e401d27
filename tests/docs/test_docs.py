"""The other documents agree with the code."""

from __future__ import annotations

import re
import typing
from pathlib import Path

import pytest

from eo_batch.core.receipts import ChipState, SourceState
from tests.docs.spec_reference import PAGE, page

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")])


def test_the_reference_of_the_spec_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "run `python -m tests.docs.spec_reference`"


def test_the_module_map_is_complete() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    named = set(re.findall(r"`([a-z_/]+\.py)`", text))
    there = {str(path.relative_to(ROOT / "eo_batch")) for path in (ROOT / "eo_batch").rglob("*.py")}
    assert {name for name in there if not name.endswith("__init__.py")} <= named
    assert {name.removeprefix("eo_batch/") for name in named if not name.startswith(("tests/", "entry/"))} <= there


def test_the_ledger_page_knows_every_outcome() -> None:
    text = (ROOT / "docs" / "ledger.md").read_text()
    chips, files = text.split("\n## Files")
    assert all(f"| `{state}` |" in chips for state in typing.get_args(ChipState))
    # `no_data` is in the type of files' outcomes, but nothing writes it.
    assert all(f"`{state}`" in files for state in typing.get_args(SourceState) if state != "no_data")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        path = target.partition("#")[0]
        if path and not path.startswith(("http:", "https:")):
            assert (document.parent / path).exists(), target


def test_documents_name_tests_that_are_there() -> None:
    for document in DOCUMENTS:
        for path in re.findall(r"`(?:pytest )?(tests/[\w/.]+)`", document.read_text()):
            assert (ROOT / path).exists(), f"{document.name}: {path}"
