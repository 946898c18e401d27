"""Deployments by their names, over runs that are nearly done: they make what is missing, and say what they did. And one
that can't: its flow run ends with the line that says why.
"""

from __future__ import annotations

import json

import pytest
import yaml

from eo_batch.entry.run import open_run
from eo_batch.io.store import parse_store
from eo_batch.settings import Settings
from tests.cluster.given import S3
from tests.cluster.kube import kubectl, wait_for
from tests.cluster.place import Place
from tests.cluster.runs import Reference, done, made_by, nearly_done, objects
from tests.cluster.ways import ByFlow, check_flow, given_spec

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.matrix]

LIMIT_S = 600.0
MISSING = {
    "generate-embeddings": {"embed": 2},
    "scheduled-update": {"chips": 2, "publish": 1},
    "argo": {"chips": 1, "pretrain": 1, "embed": 1, "report": 1},
}
"""Shards that are missing in the store of each."""
IMAGE = "registry.invalid/no-such:1"
SETTLED = "2023-07-06"
"""A day by which all scenes of the spec's only month are listed, and none of the next month's."""


def test_deployments_go_on_with_what_is_there(place: Place, reference: Reference, s3_here: S3) -> None:
    """All of them at once: they wait for most of the time."""
    stores = {name: nearly_done(reference, s3_here.server, missing) for name, missing in MISSING.items()}
    flows = {name: ByFlow(place.release, place.prefect, "argo" if name == "argo" else "prefect") for name in MISSING}
    urls = {name: url for name, (url, _) in stores.items()}
    spec = given_spec(reference)
    flows["generate-embeddings"].ask("generate-embeddings/kubernetes", name="same", store=urls["generate-embeddings"])
    update = {"spec": spec, "store": urls["scheduled-update"], "day": SETTLED}
    flows["scheduled-update"].ask("scheduled-update/kubernetes", **update)
    flows["argo"].start(reference, urls["argo"])
    broken = ByFlow(place.release, place.prefect)
    profile = broken_profile(place)
    broken.ask("continental-run/kubernetes", spec=spec, store=s3_here.server.new_bucket(), profile=profile)
    said = {name: flow.end(LIMIT_S) for name, flow in flows.items()}
    for name, (url, missing) in stores.items():
        run = open_run(parse_store(url), "same", Settings.from_env())
        assert made_by(run, flows[name].runner) == missing, said[name]
        assert objects(url) == reference.objects, name
        assert done(run) == reference.shards, name
    check_flow(flows["argo"])
    told = broken.end(LIMIT_S, "FAILED")
    state = place.prefect.state(broken.flow_run)["message"]
    assert state.startswith(f"image {IMAGE} can't be pulled ("), told
    assert len(state.splitlines()) == 1
    wait_for(lambda: place.left() == [], f"the end of {place.left()}", 60)


def broken_profile(place: Place) -> str:
    """A profile with an image that does not exist, where flow runs find it."""
    space, name = place.release.namespace, "eo-batch-profiles"
    data = json.loads(kubectl("get", "configmap", name, "-n", space, "-o", "json"))["data"]
    profile = yaml.safe_load(data["kubernetes.yaml"])
    profile["cluster"]["image"] = IMAGE
    patch = json.dumps({"data": {"broken.yaml": yaml.safe_dump(profile)}})
    kubectl("patch", "configmap", name, "-n", space, "--type=merge", "-p", patch)
    return "/etc/eo-batch/profiles/broken.yaml"
