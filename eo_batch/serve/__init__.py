"""Web pages about the runs of a store: how far they are, and their reports. They read the store and nothing else."""

from eo_batch.serve.application import application

__all__ = ["application"]
