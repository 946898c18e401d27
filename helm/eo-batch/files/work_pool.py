"""Give a work pool of Prefect the base job template of the chart: `work_pool.py POOL TEMPLATE.json LIMIT`.

A pool that is there keeps its limits, and stays paused if it is; one that is not there is made, for LIMIT flow runs at
once.
"""

import json
import sys
from pathlib import Path

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound


def furnish(pool: str, template: Path, limit: int) -> str:
    """Write the template to the pool; returns what was done."""
    wanted = json.loads(template.read_text())
    with get_client(sync_client=True) as client:
        try:
            found = client.read_work_pool(pool)
        except ObjectNotFound:
            client.create_work_pool(
                WorkPoolCreate(name=pool, type="kubernetes", base_job_template=wanted, concurrency_limit=limit)
            )
            return f"work pool {pool}: made"
        if found.type != "kubernetes":
            sys.exit(
                f"error: work pool {pool} is of type {found.type}; choose another prefect.workPool or prefect.type"
            )
        client.update_work_pool(pool, WorkPoolUpdate(base_job_template=wanted))
        return f"work pool {pool}: up to date"


if __name__ == "__main__":
    try:
        print(furnish(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
    except httpx.HTTPError as error:
        sys.exit(f"error: Prefect's API did not do it ({error}); check prefect.apiUrl, and the key that it wants")
