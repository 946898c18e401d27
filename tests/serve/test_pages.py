"""The pages of `eo-batch serve`, as its server gives them, and as a browser shows them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from urllib.parse import urljoin

import pytest
import requests

from eo_batch.core.identity import Identity
from eo_batch.io.store import Store
from tests.report.conftest import Made
from tests.report.test_browser import BROWSER, FLAGS
from tests.serve.conftest import WHY
from tests.serve.server import served
from tests.servers.shared import free_ports


def page(url: str, path: str, code: int = 200) -> str:
    answer = requests.get(f"{url}{path}", timeout=30)
    assert answer.status_code == code, answer.text
    return answer.text


def rows(html: str) -> list[list[str]]:
    """Text of the cells of all rows."""
    found = []
    for row in re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL):
        cells = [unescape(re.sub(r"<[^>]+>", "", cell)) for cell in re.findall(r"<td.*?>(.*?)</td>", row, re.DOTALL)]
        found.append([cell.strip() for cell in cells])
    return [row for row in found if row]


def status(store: Store, name: str) -> dict[str, object]:
    """What the command says."""
    argv = [sys.executable, "-c", "from eo_batch.cli import main; main()", "status", "--json"]
    done = subprocess.run([*argv, "--store", store.url, "--run", name], capture_output=True, text=True, check=True)
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_all_runs_are_listed_with_how_far_they_are(url: str) -> None:
    found = {name: (state, shards, report) for name, state, shards, report in rows(page(url, "/"))}
    assert {name: state for name, (state, _, _) in found.items()} == {
        "begun": "plan 0 of 1",
        "half": "given up",
        "odd": "unreadable",
        "tiny": "done",
    }
    assert (found["tiny"][2], found["half"][2]) == ("report", "–")
    done, of, shards = found["tiny"][1].split()
    assert (done, of) == (shards, "of")
    assert int(done) > 10


def test_every_link_leads_somewhere_below_any_path(url: str) -> None:
    seen, left = set[str](), [f"{url}/"]
    while left:
        here = left.pop()
        if here in seen or here.endswith("/report"):  # a report's links are those of its sections
            continue
        seen.add(here)
        links = re.findall(r'href="([^"]+)"', page(here, ""))
        assert not [link for link in links if link.startswith("/")], "a proxy may serve it below a path"
        left += [urljoin(here, link) for link in links if not link.startswith("data:")]
    assert {here.removeprefix(url) for here in seen} == {"/", *(f"/runs/{n}" for n in ("begun", "half", "odd", "tiny"))}


@pytest.mark.parametrize("name", ["tiny", "half", "begun"])
def test_the_same_is_told_to_programs_as_by_the_command(url: str, store: Store, name: str) -> None:
    answer = requests.get(f"{url}/runs/{name}/status.json", timeout=30)
    assert answer.json() == status(store, name)


def test_a_run_is_shown_stage_by_stage(url: str, store: Store) -> None:
    shown = page(url, "/runs/half")
    stages = status(store, "half")["stages"]
    assert isinstance(stages, list)
    told = {row[0]: (int(row[2]), int(row[3])) for row in rows(shown) if len(row) == 7}
    assert told == {stage["stage"]: (stage["done"], stage["shards"]) for stage in stages}
    assert told["embed"][0] == told["embed"][1] - 1
    (given_up,) = (row for row in rows(shown) if len(row) == 3)
    assert given_up[1:] == ["3", WHY]
    assert "<b>" not in shown, "what a store says is text"
    assert "refresh" in shown
    assert "refresh" not in page(url, "/runs/tiny")


def test_a_report_is_the_one_in_the_store(url: str, store: Store, whole: Made) -> None:
    answer = requests.get(f"{url}/runs/tiny/report", timeout=30)
    assert answer.content == store.get(f"{Identity(whole.spec).prefix('report')}/index.html")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("path", "code", "said"),
    [
        ("/runs/nobody", 404, "has no run called nobody"),
        ("/runs/nobody/report", 404, "start the run with"),
        ("/runs/half/report", 404, "half has no report yet"),
        ("/runs/..%2Fsecret", 404, "Not Found"),
        ("/runs/UPPER", 404, "'UPPER' is no name of a run"),
        ("/runs/odd", 200, "area is missing"),
        ("/runs/odd/status.json", 409, "area is missing"),
        ("/elsewhere", 404, "Not Found"),
    ],
)
def test_what_is_not_there_is_said_in_a_line(url: str, path: str, code: int, said: str) -> None:
    shown = unescape(page(url, path, code))
    assert said in shown
    assert "Traceback" not in shown


def test_it_only_reads(url: str) -> None:
    for method in ("POST", "PUT", "DELETE"):
        assert requests.request(method, f"{url}/runs/tiny", timeout=30).status_code == 405


def test_a_store_that_does_not_answer_is_said() -> None:
    (port,) = free_ports(1)
    env = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "someone", "AWS_REGION": "us-east-1"}
    env |= {"AWS_SECRET_ACCESS_KEY": "a-secret", "EO_BATCH_STORE_RETRIES": "0"}
    with served("s3://nowhere", env) as url:
        said = page(url, "/", 503)
        assert "s3://nowhere" in said
        assert "a-secret" not in said
        assert page(url, "/healthz") == "ok\n"


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt-get install chromium")
@pytest.mark.parametrize("path", ["/", "/runs/half", "/runs/tiny/report"])
def test_a_browser_shows_it_without_complaint(url: str, path: str, tmp_path: Path) -> None:
    argv = [str(BROWSER), *FLAGS, f"--user-data-dir={tmp_path}", "--window-size=1000,700", "--dump-dom", f"{url}{path}"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    assert "<table" in done.stdout
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
