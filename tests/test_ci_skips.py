"""`.ci/skips.py` fails on a skip without leave, and on nothing else."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / ".ci" / "skips.py"
REPORT = """<testsuites><testsuite>
<testcase classname="tests.a" name="test_runs"/>
<testcase classname="tests.a" name="test_mount[x]"><skipped type="pytest.skip" message="no mount"/></testcase>
<testcase classname="tests.b" name="test_known_bug"><skipped type="pytest.xfail" message="issue 1"/></testcase>
</testsuite></testsuites>"""


@pytest.fixture(scope="module")
def skips() -> ModuleType:
    spec = importlib.util.spec_from_file_location("skips", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("allowed", "status"),
    [("", 1), ("tests.a::test_mount*: containers\n", 0), ("# all\n\ntests.b::*: another\n", 1)],
)
def test_only_listed_skips_pass(
    skips: ModuleType, tmp_path: Path, allowed: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "report.xml").write_text(REPORT)
    (tmp_path / "allowed.txt").write_text(allowed)
    assert skips.main(str(tmp_path / "report.xml"), str(tmp_path / "allowed.txt")) == status
    shown = capsys.readouterr().out
    assert "tests.a::test_mount[x]: no mount" in shown
    assert "test_known_bug" not in shown


def test_a_line_without_a_reason_is_refused(skips: ModuleType) -> None:
    with pytest.raises(ValueError, match="line 2 has no reason"):
        skips.allowed("a::b: because\na::c\n")


def test_a_report_without_tests_is_refused(skips: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "report.xml").write_text("<testsuites><testsuite/></testsuites>")
    with pytest.raises(ValueError, match="holds no tests"):
        skips.skipped(tmp_path / "report.xml")


def test_the_list_in_use_has_reasons(skips: ModuleType) -> None:
    assert skips.allowed(SCRIPT.with_name("allowed-skips.txt").read_text())
