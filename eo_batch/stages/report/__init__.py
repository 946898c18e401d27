"""Stage `report`: one self-contained page that shows a person what a run made, what it lost and what it is worth."""

from eo_batch.stages.report.stage import run

__all__ = ["run"]
