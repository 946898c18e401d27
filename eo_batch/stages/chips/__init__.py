"""Stage `chips`: one block of chips x one time bin x one sensor, from source files to whole Zarr shards."""

from eo_batch.stages.chips.stage import make, run

__all__ = ["make", "run"]
