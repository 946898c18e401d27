"""The same spec gives the same bytes: killed anywhere, in one process or several, on any store."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.entry.whole import Whole, finish, objects, start
from tests.servers.shared import Home

KILLS = 10


def count(store: Path) -> int:
    """Files written so far, those in the making included."""
    return sum(len(files) for _, _, files in os.walk(store))


@pytest.fixture(scope="module")
def whole(home: Home) -> Whole:
    return Whole(home)


def test_all_stages_wrote(whole: Whole) -> None:
    kinds = {key.split("/")[1].split("-")[0] for key in whole.objects if key.count("/") > 1}
    assert {"chips", "pretrain", "embed", "probe"} <= kinds


@pytest.mark.slow
def test_killed_at_ten_random_moments(whole: Whole, tmp_path: Path) -> None:
    moments = random.Random(20231122)
    almost_all = count(whole.store) - 5  # the last objects are written within the blink of an eye
    for written in sorted(moments.sample(range(1, almost_all), KILLS)):
        process = start(whole.spec, str(tmp_path))
        while process.poll() is None and count(tmp_path) < written:
            time.sleep(0.01)
        time.sleep(moments.uniform(0.0, 0.3))
        assert process.poll() is None, "the run ended before it was killed"
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    finish(whole.spec, str(tmp_path))
    assert objects(str(tmp_path)) == whole.objects


def test_in_one_process(whole: Whole, tmp_path: Path) -> None:
    finish(whole.spec, str(tmp_path), workers=0)
    assert objects(str(tmp_path)) == whole.objects


@pytest.mark.parametrize(("url", "workers"), [("s3_url", 2), ("az_url", 0), ("gs_url", 0)])
def test_on_object_storage(whole: Whole, url: str, workers: int, request: pytest.FixtureRequest) -> None:
    store = request.getfixturevalue(url)
    finish(whole.spec, store, workers)
    assert objects(store) == whole.objects
