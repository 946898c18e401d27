"""Print the parameters of a flow run: `python -m flows SPEC [section.field=value…] -s STORE [-p name=value…]`.

    python -m flows recipes/continental.yaml catalog=items.parquet -s s3://bucket \\
        | prefect deployment run continental-run/process --params -

The whole spec is checked first, with what `eo-batch run` says to mistakes; Prefect's server can check each field alone.
"""

import json
from pathlib import Path
from typing import Annotated

import typer
import yaml

from eo_batch.core.errors import EoBatchError, UsageError
from eo_batch.core.specfile import parse_spec


def parameters(
    spec: Annotated[Path, typer.Argument(help="Run spec, a YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Overrides such as grid.chip_px=224.")] = None,
    store: Annotated[str, typer.Option("--store", "-s", help="Folder or URL of the store.")] = "runs",
    param: Annotated[list[str] | None, typer.Option("--param", "-p", help="More, such as engine=argo.")] = None,
) -> None:
    """Print the parameters of a flow run as JSON."""
    try:
        text = spec.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"spec {spec} can't be read: {error}") from error
    checked = parse_spec(text, overrides or [], str(spec))
    more = dict(pair.partition("=")[::2] for pair in param or [])
    given = {"spec": checked.model_dump(mode="json", exclude_unset=True), "store": store}
    typer.echo(json.dumps(given | {name: yaml.safe_load(value) for name, value in more.items()}))


def main() -> None:
    """Entry point: errors meant for people become one line and an exit code."""
    try:
        typer.run(parameters)
    except EoBatchError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(error.exit_code) from error


if __name__ == "__main__":
    main()
