"""The page in a real browser: it shows without complaint, and fits narrow and wide windows."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.report.conftest import Made
from tests.report.test_page import SECTIONS

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
    "--enable-logging=stderr", "--v=0",
)  # fmt: skip
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt-get install chromium")


def opened(page: str, folder: Path, width: int = 1280) -> tuple[str, list[str]]:
    """The page's elements after loading, and what the browser's console says."""
    path = folder / "index.html"
    path.write_text(page)
    argv = [str(BROWSER), *FLAGS, f"--user-data-dir={folder / 'profile'}", f"--window-size={width},900", "--dump-dom",
            path.as_uri()]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_it_loads_without_complaint_and_shows_every_section(whole: Made, tmp_path: Path) -> None:
    shown, console = opened(whole.page, tmp_path)
    assert console == []
    assert re.findall(r'<section id="(\w+)">', shown) == SECTIONS
    assert shown.count("<svg") == whole.page.count("<svg") > 5


def test_the_console_would_tell(whole: Made, tmp_path: Path) -> None:
    planted = whole.page.replace("</body>", '<img src="https://example.org/x.png"></body>')
    _, console = opened(planted, tmp_path)
    assert any("Content Security Policy" in line for line in console)


@pytest.mark.parametrize("width", [500, 1280, 2200])
def test_it_fits_the_window_and_all_pictures_decode(whole: Made, tmp_path: Path, width: int) -> None:
    measure = """<script>
    const root = document.documentElement, broken = [...document.images].filter(i => !i.naturalWidth).length;
    root.dataset.measured = [root.scrollWidth - root.clientWidth, broken, document.images.length].join(" ");
    </script></body>"""
    shown, _ = opened(POLICY.sub("", whole.page).replace("</body>", measure), tmp_path, width)
    found = re.search(r'data-measured="(-?\d+) (\d+) (\d+)"', shown)
    assert found
    overflow_px, broken, images = map(int, found.groups())
    assert overflow_px <= 0
    assert broken == 0
    assert images > 20
