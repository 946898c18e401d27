"""One small planet, written once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from eo_batch.core.planet import PlanetSpec
from eo_batch.io.store import parse_store
from eo_batch.stages.simulate import simulate

Json = dict[str, Any]


class Written:
    """A planet in a folder."""

    def __init__(self, spec: PlanetSpec, folder: Path) -> None:
        self.spec, self.folder = spec, folder
        self.href = simulate(spec, parse_store(str(folder)), workers=2)
        self.items: list[Json] = json.loads(Path(urlsplit(self.href).path).read_text())["features"]

    def of(self, collection: str, wanted: Callable[[Json], bool] = lambda item: True) -> list[Json]:
        """The items of a collection."""
        return [item for item in self.items if item["collection"] == collection and wanted(item)]

    def path(self, item: Json, asset: str) -> Path:
        """Where an asset lies."""
        return self.folder / item["assets"][asset]["href"]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return Written(PlanetSpec.tiny(), tmp_path_factory.mktemp("planet") / "tiny")
