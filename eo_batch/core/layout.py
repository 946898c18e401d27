"""Every key in the store, as pure functions. Nothing else builds a key."""

STAGES = ("plan", "chips", "publish", "pretrain", "embed", "probe", "report")
"""Stages in the order in which they run."""

RUN_SPEC = "run.yaml"
PRICES = "prices.json"
CALIBRATION = "calibration.json"
REPORT_PAGE = "index.html"


def stage_prefix(run: str, stage: str, digest: str) -> str:
    """Prefix of everything one stage writes."""
    return f"{run}/{stage}-{digest}"


def receipt_key(prefix: str, shard: str) -> str:
    """Key of a shard's receipt below its stage's prefix."""
    return f"{prefix}/receipts/{shard}.json"


def receipts_prefix(prefix: str) -> str:
    """Where a stage's receipts are listed."""
    return f"{prefix}/receipts/"


def scenes_index(plan_prefix: str) -> str:
    """All scenes of a plan without their files (Parquet): the object whose writing commits the plan."""
    return f"{plan_prefix}/scenes.parquet"


def scenes_page(plan_prefix: str, digest: str) -> str:
    """Some neighbouring scenes of a plan with their files (Parquet), by the digest of the page."""
    return f"{plan_prefix}/scenes/{digest}.parquet"


def cells(plan_prefix: str) -> str:
    """The cells of a plan (Parquet)."""
    return f"{plan_prefix}/cells.parquet"


def shards_page(plan_prefix: str, page: int) -> str:
    """Some consecutive shards of a plan (Parquet)."""
    return f"{plan_prefix}/shards/{page:05d}.parquet"


def cube(chips_prefix: str) -> str:
    """The Zarr cube."""
    return f"{chips_prefix}/cube.zarr"


def axis_entry(chips_prefix: str, number: int) -> str:
    """One append-only entry of the cube's axes (blocks and time bins in order of arrival)."""
    return f"{chips_prefix}/axes/{number:06d}.json"


def axes_prefix(chips_prefix: str) -> str:
    """Where the axes' entries are listed."""
    return f"{chips_prefix}/axes/"


def summary(chips_prefix: str, shard: str) -> str:
    """Per-chip sums of one chips shard (Parquet)."""
    return f"{chips_prefix}/summaries/{shard}.parquet"


def checkpoint(pretrain_prefix: str, seed: int, data: str, step: int) -> str:
    """One training checkpoint; zero-padded so that names sort by step.

    data: digest of what is trained on, so that training never resumes on chips that were made again since.
    """
    return f"{checkpoints_prefix(pretrain_prefix, seed, data)}step-{step:08d}.ckpt"


def checkpoints_prefix(pretrain_prefix: str, seed: int, data: str) -> str:
    """Where a seed's checkpoints are listed."""
    return f"{pretrain_prefix}/checkpoints/seed-{seed}-{data}/"


def weights(pretrain_prefix: str, seed: int) -> str:
    """Final weights of a seed."""
    return f"{pretrain_prefix}/models/seed-{seed}.safetensors"


def model_card(pretrain_prefix: str, seed: int) -> str:
    """What a model is: STAC item properties of the MLM extension."""
    return f"{pretrain_prefix}/models/seed-{seed}.json"


def losses(pretrain_prefix: str, seed: int) -> str:
    """Loss per step of a seed (Parquet)."""
    return f"{pretrain_prefix}/metrics/loss-seed-{seed}.parquet"


def embeddings(embed_prefix: str, model: str, time_key: str, block: str) -> str:
    """Embeddings of one block in one time bin (GeoParquet)."""
    return f"{embed_prefix}/chips/{model}/{time_key}/{block}.parquet"


def metrics(prefix: str, name: str) -> str:
    """A table of metrics (Parquet) or a summary (JSON)."""
    return f"{prefix}/metrics/{name}"


def work_list(prefix: str, work: str) -> str:
    """The frozen list of shards that the pods of one job share (JSON)."""
    return f"{prefix}/work/{work}/list.json"


def work_try(prefix: str, work: str, shard: str) -> str:
    """A shard that was begun and is not done (JSON)."""
    return f"{prefix}/work/{work}/tries/{shard}.json"


def work_failure(prefix: str, work: str, shard: str) -> str:
    """A shard that was given up (JSON)."""
    return f"{work_failures_prefix(prefix, work)}{shard}.json"


def work_failures_prefix(prefix: str, work: str) -> str:
    """Where the shards that one job gave up are listed."""
    return f"{prefix}/work/{work}/failures/"


def tally(prefix: str, shard: str) -> str:
    """How often runs have given up a shard (JSON)."""
    return f"{tallies_prefix(prefix)}{shard}.json"


def tallies_prefix(prefix: str) -> str:
    """Where the shards that runs have given up are listed."""
    return f"{prefix}/given-up/"


def workflow_spec(run: str, work: str) -> str:
    """The spec that all steps of one workflow go by, whatever is submitted under the run's name meanwhile."""
    return f"{run}/work/{work}/{RUN_SPEC}"


def work_prefix(prefix: str, work: str) -> str:
    """Where all that the pods of one job share is listed."""
    return f"{prefix}/work/{work}/"


def works_prefix(prefix: str) -> str:
    """Where the jobs of a stage are listed. All below it is of use only while a job runs, and may be deleted."""
    return f"{prefix}/work/"
