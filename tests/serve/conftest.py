"""A store with runs in every state, and the server that shows it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from eo_batch.core import layout
from eo_batch.core.identity import Identity
from eo_batch.core.specfile import dump_spec
from eo_batch.core.work import GivenUp
from eo_batch.io.store import Store, parse_store
from tests.report.conftest import Made, make_spec, planet, published, whole
from tests.report.pages import do
from tests.serve.server import served

__all__ = ["make_spec", "planet", "published", "whole"]

WHY = "<b>no file</b> of it can be read & more"


@pytest.fixture(scope="module")
def store(whole: Made, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """`tiny` is done; of `half` a shard of embeddings was given up; `begun` has no plan; `odd` is no spec."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(Path(unquote(urlsplit(whole.store.url).path)), folder, dirs_exist_ok=True)
    store = parse_store(str(folder))
    half = whole.spec.model_copy(update={"name": "half"})
    do(half, store, "embed")
    embed = Identity(half).prefix("embed")
    lost = sorted(store.list(f"{embed}/receipts"))[0]
    store.delete(lost)
    shard = lost.removeprefix(f"{embed}/receipts/").removesuffix(".json")
    note = GivenUp(message=WHY, tries=3, trace="", exit_code=5)
    store.put(layout.work_failure(embed, "job", shard), note.to_bytes())
    for spec in (whole.spec, half, whole.spec.model_copy(update={"name": "begun"})):
        store.put(f"{spec.name}/run.yaml", dump_spec(spec).encode())
    store.put("odd/run.yaml", b"name: odd\n")
    return store


@pytest.fixture(scope="module")
def url(store: Store) -> Iterator[str]:
    with served(store.url) as found:
        yield found
