"""The planet and its web server for every test here."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.io.web import Web, serving
from tests.io.worlds import planet  # noqa: F401  # a fixture


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
