"""The same spec in every way, out of the installed chart, while pods are killed: the bytes of a run on this machine,
nothing lost, nothing done twice that was done, no secret shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from eo_batch.core.layout import STAGES
from eo_batch.core.placement import LEARNING
from tests.cluster import prefect_server
from tests.cluster import s3 as s3_pod
from tests.cluster.argo import argo_here
from tests.cluster.disturbing import InEachStage, Killer, disturbing
from tests.cluster.given import S3, Images
from tests.cluster.place import Place
from tests.cluster.runs import Reference, check_same, nothing_done_twice
from tests.cluster.secrets import check_store, no_secret_shown, shown
from tests.cluster.watching import Seen, watching
from tests.cluster.ways import ByCommand, ByFlow, Way, check_flow, way_of

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

WAYS = ("kubernetes", "argo", "dask", "prefect", "prefect-argo")
LIMIT_S = 1500.0
"""A run that takes longer hangs."""


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, place: Place, s3_here: S3) -> Iterator[Way]:
    with way_of(request.param, place) as found:
        yield found


# A flow with Argo's workflow joins what two others do; test_flows.py has one that goes on with a run.
@pytest.mark.parametrize("way", [*WAYS[:-1], pytest.param(WAYS[-1], marks=pytest.mark.matrix)], indirect=True)
def test_a_run_with_a_kill_in_every_stage(
    way: Way, place: Place, images: Images, reference: Reference, s3_here: S3, tmp_path: Path
) -> None:
    store = s3_here.server.new_bucket()
    killer = Killer(way.space, way.at_work, dict.fromkeys(STAGES, 1), seed=1)
    with (
        disturbing(killer),
        nothing_done_twice(store),
        no_secret_shown(way.space, *place.beside),
        watching(way.space, tmp_path / "pods") as seen,
    ):
        said = way.run(reference, store, LIMIT_S)
    assert set(killer.by_stage) == set(STAGES), said
    check_same(store, reference, way.runner)
    assert place.left() == []
    check_store(store)
    assert shown(said) == []
    check_images(seen, images)
    if isinstance(way, ByCommand):
        again = way.run(reference, store, LIMIT_S)
        assert "to do" not in again, "everything has a receipt"
    if isinstance(way, ByFlow):
        check_flow(way)


def check_images(seen: Sequence[Seen], images: Images) -> None:
    """All containers are of the built images, or Argo's own; what learns has torch, and what does not, has not."""
    used = set().union(*(pod.all_images for pod in seen))
    assert {images.cpu, images.gpu} <= used
    assert used <= {images.cpu, images.gpu, argo_here().executor()}, used
    for pod in seen:
        if pod.stage in STAGES:
            assert pod.image == (images.gpu if pod.stage in LEARNING else images.cpu), pod


@pytest.mark.matrix
def test_a_run_with_twenty_kills(way: Way, place: Place, reference: Reference, s3_here: S3) -> None:
    store = s3_here.server.new_bucket()
    wanted = dict.fromkeys(STAGES, 1) | {"chips": 7, "pretrain": 5, "embed": 6}
    killer = Killer(way.space, way.at_work, wanted, seed=2)
    with disturbing(killer), nothing_done_twice(store):
        said = way.run(reference, store, LIMIT_S)
    assert set(killer.by_stage) == set(STAGES), said
    assert killer.by_stage.total() >= 20, killer.by_stage
    check_same(store, reference, way.runner)
    assert place.left() == []


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("way", "what"),
    [*((name, "s3") for name in WAYS), ("argo", "argo"), ("prefect", "prefect"), ("prefect-argo", "prefect")],
    indirect=["way"],
)
def test_a_run_whose_servers_restart_in_every_stage(
    way: Way, what: str, place: Place, reference: Reference, s3_here: S3
) -> None:
    acts: dict[str, Callable[[], object]] = {
        "s3": lambda: s3_pod.restart(s3_here.namespace, s3_here.server),
        "argo": argo_here().restart,
        "prefect": lambda: prefect_server.restart(place.prefect_space),
    }
    store = s3_here.server.new_bucket()
    disturber = InEachStage(way.space, way.at_work, acts[what])
    with disturbing(disturber), nothing_done_twice(store):
        said = way.run(reference, store, LIMIT_S)
    assert set(disturber.by_stage) == set(STAGES), said
    check_same(store, reference, way.runner)
    assert place.left() == []
