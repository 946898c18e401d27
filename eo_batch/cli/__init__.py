"""The command line `eo-batch`."""

from eo_batch.cli.app import main

__all__ = ["main"]
