"""A Prefect server with this project's deployments, and a worker, for every test here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.io.web import Web, serving
from tests.io.worlds import planet  # noqa: F401  # a fixture
from tests.servers import prefect as prefect_server
from tests.servers.prefect import PrefectServer
from tests.servers.shared import Home, shared


@pytest.fixture(scope="session")
def deployed(home: Home) -> PrefectServer:
    """A server with all deployments."""
    note = shared(home, "prefect", prefect_server.start)
    return PrefectServer(note.url, note.env)


@pytest.fixture(scope="session")
def prefect(home: Home) -> PrefectServer:
    """The same, with a worker for the process pool."""
    note = shared(home, "prefect_worker", prefect_server.work)
    return PrefectServer(note.url, note.env)


@pytest.fixture(scope="session")
def _web(planet: Path) -> Iterator[Web]:  # noqa: F811
    with serving(planet) as web:
        yield web


@pytest.fixture
def web(_web: Web) -> Iterator[Web]:
    """A server of the planet's folder, without faults."""
    _web.mend()
    yield _web
    _web.mend()
