"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

SpecArg = Annotated[Path, typer.Argument(help="Run spec, a YAML file.", show_default=False)]
Overrides = Annotated[list[str] | None, typer.Argument(help="Overrides such as grid.chip_px=224.", show_default=False)]
StoreOpt = Annotated[
    str, typer.Option("--store", "-s", envvar="EO_BATCH_STORE", help="Folder or URL: s3://, gs://, az://, file://.")
]
RunOpt = Annotated[
    str | None,
    typer.Option("--run", "-r", envvar="EO_BATCH_RUN", help="Name of the run.", show_default="the only one there"),
]
WorkersOpt = Annotated[
    int | None, typer.Option("--workers", "-w", help="Worker processes; 0 works in one process.", show_default="cores")
]
PricesOpt = Annotated[
    Path | None,
    typer.Option("--prices", envvar="EO_BATCH_PRICES", help="Price table, a YAML file.", show_default="no money"),
]
CalibrationOpt = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        envvar="EO_BATCH_CALIBRATION",
        help="What `calibrate` printed, a YAML file.",
        show_default="the built-in one",
    ),
]
MaxCostOpt = Annotated[
    float | None,
    typer.Option("--max-cost", min=0, help="Refuse a run whose estimate costs more.", show_default=False),
]
