"""What Prefect's own worker makes of a flow run in a work pool: `flow_run_job.py POOL` prints the Job, JSON.

A process of its own, since Prefect reads its settings when it is imported.
"""

import asyncio
import json
import sys

from prefect import flow
from prefect.client.orchestration import get_client
from prefect_kubernetes.worker import KubernetesWorker


@flow
def nothing() -> None:
    """A flow that is never run."""


async def main(pool: str) -> None:
    async with get_client() as client:
        work_pool = await client.read_work_pool(pool)
        run = await client.create_flow_run(nothing, name="a-flow-run")
        configuration = await KubernetesWorker.job_configuration.from_template_and_values(
            base_job_template=work_pool.base_job_template, values={"env": {"EXTRA": "yes"}}, client=client
        )
        configuration.prepare_for_flow_run(run, work_pool=work_pool)
    worker = KubernetesWorker(work_pool_name=pool)
    # As the worker does with what its settings name, before it creates the Job.
    for variable in ("PREFECT_API_KEY", "PREFECT_API_AUTH_STRING"):
        await worker._replace_env_variable_with_secret(variable, configuration, "prefect", "api-key")
    print(json.dumps(configuration.job_manifest))


asyncio.run(main(sys.argv[1]))
