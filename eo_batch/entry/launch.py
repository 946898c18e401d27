"""Launch a run where a placement says. Commands and flows come through here."""

from collections.abc import Iterator
from contextlib import contextmanager

from eo_batch.core.errors import UsageError
from eo_batch.core.placement import Placement
from eo_batch.entry.drive import Watcher, drive
from eo_batch.entry.run import Run
from eo_batch.runners.base import Runner
from eo_batch.settings import cores


def launch(run: Run, placement: Placement, watcher: Watcher, until: str | None = None, detach: bool = False) -> None:
    """Run all stages up to `until` (all of them if None); with `detach`, hand them over and return.

    Raises ShardFailed naming what could not be done, UsageError where a placement can't do what is asked. Whatever
    this started elsewhere is gone when it returns or raises, unless it was detached.
    """
    run.submit()
    if placement.runner == "argo":
        from eo_batch.entry.follow import detach_run, follow_run

        if detach:
            detach_run(run, placement, until)
        else:
            follow_run(run, placement, watcher, until)
        return
    if detach:
        raise UsageError(
            f"--detach: runner {placement.runner} is driven from here, stage by stage; use a profile whose runner is "
            "argo, or a Prefect deployment"
        )
    with runner_of(run, placement) as runner:
        drive(run, runner, watcher, until)


@contextmanager
def runner_of(run: Run, placement: Placement) -> Iterator[Runner]:
    """The runner of a placement. What it needs is started before and ended after."""
    match placement.runner:
        case "local":
            from eo_batch.runners.local import LocalRunner

            workers = next(n for n in (placement.workers, run.settings.workers, cores()) if n is not None)
            # Another process would see a memory of its own.
            yield LocalRunner(0 if run.store.url.startswith("memory:") else workers)
        case "dask":
            from eo_batch.runners.dask_cluster import dask_runner

            with dask_runner(placement, run.spec.name) as runner:
                yield runner
        case "kubernetes":
            from eo_batch.runners.kubernetes import KubernetesRunner
            from eo_batch.runners.lease import held_lease

            with held_lease(placement, run.spec.name) as lease:
                yield KubernetesRunner(placement, lease)
        case "argo":
            from eo_batch.runners.argo import ArgoRunner
            from eo_batch.runners.lease import held_lease

            with held_lease(placement, run.spec.name) as lease:
                yield ArgoRunner(placement, lease)
