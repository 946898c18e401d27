"""Commands. Everything heavy is imported inside them, so that `--help` answers at once."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from eo_batch.cli import pods
from eo_batch.cli.options import CalibrationOpt, MaxCostOpt, Overrides, PricesOpt, RunOpt, SpecArg, StoreOpt, WorkersOpt
from eo_batch.cli.stopping import stoppable
from eo_batch.core.errors import EoBatchError, Interrupted, UsageError

if TYPE_CHECKING:
    from eo_batch.core.placement import Placement
    from eo_batch.core.spec import RunSpec
    from eo_batch.entry.estimates import Terms
    from eo_batch.entry.run import Run
    from eo_batch.io.store import Store

app = typer.Typer(
    name="eo-batch",
    help="From an area and dates to aligned chips, an encoder, its embeddings and what they are worth.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
store_app = typer.Typer(help="Object stores.", no_args_is_help=True)
app.add_typer(store_app, name="store")
import_app = typer.Typer(help="Data in other layouts.", no_args_is_help=True)
app.add_typer(import_app, name="import")
app.command("slice", rich_help_panel="What pods run")(pods.slice_)
app.command("step", rich_help_panel="What pods run")(pods.step)


@app.command()
def run(
    spec: SpecArg,
    overrides: Overrides = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            "-s",
            envvar="EO_BATCH_STORE",
            help="Folder or URL: s3://, gs://, az://, file://.",
            show_default="the profile's, or runs",
        ),
    ] = None,
    workers: WorkersOpt = None,
    until: Annotated[str | None, typer.Option(help="Stop after this stage.", show_default=False)] = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="Make chips again whose scenes have changed.")] = False,
    on: Annotated[
        Path | None, typer.Option("--on", help="Profile that says where to run.", show_default="this machine")
    ] = None,
    retry_quarantined: Annotated[
        bool, typer.Option("--retry-quarantined", help="Try shards again that run after run has given up.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Hand the run over and return; only for profiles whose runner is argo.")
    ] = False,
    prices: PricesOpt = None,
    calibration: CalibrationOpt = None,
    max_cost: MaxCostOpt = None,
) -> None:
    """Run a spec, or go on with a run that was interrupted: only what has no receipt yet is done."""
    again = f"eo-batch run {_words(spec, overrides, store, on)}"
    from eo_batch.entry.estimates import read_terms

    placement = _placement(on, workers)
    place = _store(_chosen(store, placement))
    terms = read_terms(prices, calibration, max_cost)
    _drive(_spec(spec, overrides), place, placement, until, again, refresh, detach, retry_quarantined, terms)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where everything is written.")] = Path("runs"),
    workers: WorkersOpt = None,
) -> None:
    """Simulate a small planet, then do the whole job on it: chips, pretraining, embeddings, probe, report."""
    from eo_batch.cli.demo import demo_spec, simulate_planet

    catalog = simulate_planet(folder)
    _drive(demo_spec(catalog), _store(str(folder)), _placement(None, workers), None, f"eo-batch demo --folder {folder}")


@app.command()
def plan(
    spec: SpecArg,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    prices: PricesOpt = None,
    calibration: CalibrationOpt = None,
    max_cost: MaxCostOpt = None,
) -> None:
    """Search the catalogues and print what a run would do and take. Writes nothing."""
    from eo_batch.cli.show import show_plan
    from eo_batch.entry.estimates import read_terms
    from eo_batch.settings import Settings
    from eo_batch.stages.plan import preview

    wanted, terms = _spec(spec, overrides), read_terms(prices, calibration, max_cost)
    found = preview(wanted, Settings.from_env())
    show_plan(wanted, found, as_json, terms.estimate(wanted, found), terms.prices)


@app.command()
def calibrate(name: RunOpt = None, store: StoreOpt = "runs") -> None:
    """Print what a finished run took for each unit of its work, as YAML, for `plan` and `run` to estimate by."""
    import yaml

    from eo_batch.entry.estimates import calibrate as measured

    typer.echo(yaml.safe_dump(measured(_open(store, name)).model_dump(), sort_keys=False), nl=False)


@app.command()
def status(
    name: RunOpt = None,
    store: StoreOpt = "runs",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    on: Annotated[
        Path | None,
        typer.Option("--on", help="Profile of a cluster, to ask what the pods wait for.", show_default="none"),
    ] = None,
) -> None:
    """How far a run is, by its receipts and by what its pods noted."""
    from eo_batch.cli.show import show_status

    opened = _open(store, name)
    show_status(opened, as_json, _waits(on, opened.spec.name) if on else ())


def _waits(profile: Path, run: str) -> list[str]:
    from eo_batch.runners.kube import connect
    from eo_batch.runners.manifests import RUN_LABEL, label_value
    from eo_batch.runners.waits import run_waits

    cluster = _placement(profile, None).cluster
    if cluster is None:
        raise UsageError(f"--on {profile}: the profile has no cluster to ask")
    return [wait.message for wait in run_waits(connect(cluster), f"{RUN_LABEL}={label_value(run)}")]


@app.command()
def why(
    key: Annotated[str, typer.Argument(help="Chip id, scene id, or a shard's key.")],
    name: RunOpt = None,
    store: StoreOpt = "runs",
) -> None:
    """Tell what happened to one chip, scene or shard, and why."""
    from eo_batch.cli.why import show_why

    show_why(_open(store, name), key)


@app.command()
def serve(
    store: StoreOpt = "runs",
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 is all of this machine's.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at.", min=0, max=65535)] = 8000,
) -> None:
    """Serve web pages about the runs of a store, for reading, without a log-in."""
    try:
        import uvicorn

        from eo_batch.serve import application
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{error.name} is not installed, which `serve` needs: pip install 'eo-batch[serve]'"
        ) from error
    from eo_batch.settings import Settings

    uvicorn.run(application(_store(store), Settings.from_env()), host=host, port=port)


@app.command()
def shard(
    stage: Annotated[str, typer.Argument(help="Stage, such as chips.")],
    index: Annotated[int, typer.Argument(help="Position of the shard in the stage.")],
    name: RunOpt = None,
    store: StoreOpt = "runs",
) -> None:
    """Run one shard of one stage in this process: what workers do. A shard with a receipt is skipped."""
    from eo_batch.entry.door import Door
    from eo_batch.entry.stages import prepare, stages_of

    opened = _open(store, name)
    if stage not in stages_of(opened):
        raise UsageError(
            f"stage {stage!r} is not part of {opened.spec.name}; its stages are {', '.join(stages_of(opened))}"
        )
    prepare(opened, stage)
    receipt = Door(opened, stage, "shard")(index)
    typer.echo(f"{stage} {receipt.shard}: done, {len(receipt.outputs)} objects, {receipt.seconds:.1f} s")


@app.command()
def sweep(
    on: Annotated[Path, typer.Option("--on", help="Profile that names the cluster.", show_default=False)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
) -> None:
    """Delete what runs left behind whose flow or command died: everything that an expired Lease owns."""
    from eo_batch.runners.sweep import sweep as sweep_namespace

    for line in sweep_namespace(_placement(on, None), dry_run=dry_run):
        typer.echo(line)


@import_app.command("m3leo")
def import_m3leo(
    folder: Annotated[Path, typer.Argument(help="Folder of an area: a folder of chips for each data set.")],
    out: Annotated[Path | None, typer.Option(help="File to write.", show_default="items.json in the folder")] = None,
) -> None:
    """Write a catalogue of chips that lie as M3LEO's do, so that a run can read them."""
    from eo_batch.io.chip_folders import write_catalog

    path, counts = write_catalog(folder, out or folder / "items.json")
    for name, count in sorted(counts.items()):
        typer.echo(f"{name}: {count} chips")
    typer.echo(f"catalog: {path}")


@app.command()
def schema() -> None:
    """Print the JSON Schema of run specs, for editors."""
    from eo_batch.core.specfile import json_schema

    typer.echo(json_schema())


@app.command()
def simulate(
    target: Annotated[str, typer.Argument(help="Folder or URL to write the catalogue and its files to.")],
    planet: Annotated[Path | None, typer.Option(help="Planet spec, a YAML file.", show_default=False)] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="Overrides such as seed=7.", show_default=False)] = None,
) -> None:
    """Write a simulated planet: a STAC catalogue with COGs whose truth is known exactly."""
    from eo_batch.cli.demo import write_planet

    typer.echo(write_planet(target, planet, overrides or []))


@store_app.command("init")
def store_init(
    url: Annotated[str, typer.Argument(help="The bucket: s3://name.")],
    kms_key: Annotated[str | None, typer.Option(help="Encrypt with this KMS key instead of S3's own.")] = None,
) -> None:
    """Create a bucket with encryption, no public access, and life-cycle rules. Safe to repeat."""
    from eo_batch.cli.show import show_init
    from eo_batch.io.aws import BucketPlan, init_bucket
    from eo_batch.settings import Settings

    show_init(init_bucket(url, Settings.from_env(), BucketPlan(kms_key_id=kms_key)))


@app.command()
def version() -> None:
    """Print the version."""
    from eo_batch import __version__

    typer.echo(__version__)


def main() -> None:
    """Entry point: errors meant for people become one line and an exit code."""
    try:
        code = app(standalone_mode=False)
    except EoBatchError as error:
        _fail("; ".join([str(error), *getattr(error, "__notes__", ())]), error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(Interrupted.exit_code)
    except Exception as error:
        # What typer says about words on the command line; the class behind it moved between typer's versions.
        words = getattr(error, "format_message", None)
        if words is None:
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(words(), err=True)
            sys.exit(UsageError.exit_code)
        _fail(" ".join(words().split()).rstrip(".") + "; `eo-batch --help` lists what there is", UsageError.exit_code)
    sys.exit(code if isinstance(code, int) else 0)  # typer.Exit, and Ctrl-C outside of a run, come back as a number


def _fail(message: str, exit_code: int) -> NoReturn:
    typer.secho(f"error: {message}", err=True, fg="red" if sys.stderr.isatty() else None)
    sys.exit(exit_code)


def _drive(
    spec: "RunSpec",
    store: "Store",
    placement: "Placement",
    until: str | None,
    again: str,
    refresh: bool = False,
    detach: bool = False,
    retry_quarantined: bool = False,
    terms: "Terms | None" = None,
) -> None:
    from eo_batch.cli.show import show_probe
    from eo_batch.cli.watch import watcher
    from eo_batch.core import layout
    from eo_batch.entry.launch import launch
    from eo_batch.entry.quarantine import release
    from eo_batch.entry.run import Run
    from eo_batch.entry.stages import stages_of
    from eo_batch.settings import Settings

    opened = Run(spec, store, Settings.from_env(), refresh)
    if until is not None and until not in stages_of(opened):
        raise UsageError(f"--until {until!r} is no stage of this run; its stages are {', '.join(stages_of(opened))}")
    if terms is not None:
        terms.admit(opened)
    if retry_quarantined:
        release(opened)
    with stoppable(again), watcher(opened) as watching:
        launch(opened, placement, watching, until, detach)
    if not detach and until in (None, "report"):
        show_probe(opened)
        key = f"{opened.identity.prefix('report')}/{layout.REPORT_PAGE}"
        typer.echo(f"report: {_shown(store, key)}")


def _placement(profile: Path | None, workers: int | None) -> "Placement":
    from eo_batch.entry.profiles import read_placement

    placement = read_placement(str(profile) if profile else None)
    if workers is None:
        return placement
    if placement.runner != "local":
        raise UsageError(f"--workers={workers} is for this machine; {profile} says how many pods or workers there are")
    return placement.model_copy(update={"workers": workers})


def _chosen(store: str | None, placement: "Placement") -> str:
    if store is None and placement.store is None and placement.cluster is not None:
        raise UsageError("the profile names no store that pods reach; give one with --store, such as s3://bucket")
    return store or placement.store or "runs"


def _shown(store: "Store", key: str) -> str:
    from urllib.parse import unquote, urlsplit

    href = store.href(key)
    return unquote(urlsplit(href).path) if href.startswith("file:") else href


def _spec(path: Path, overrides: list[str] | None) -> "RunSpec":
    from eo_batch.core.specfile import parse_spec

    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"spec {path} can't be read: {error}") from error
    return parse_spec(text, overrides or [], str(path))


def _store(text: str) -> "Store":
    from eo_batch.io.store import parse_store

    return parse_store(text)


def _open(store: str, name: str | None) -> "Run":
    from eo_batch.entry.run import open_run, run_names
    from eo_batch.settings import Settings

    place = _store(store)
    if name is None:
        names = run_names(place)
        if len(names) != 1:
            held = (
                f"it holds {', '.join(names)}; choose one with --run" if names else "start one with `eo-batch run SPEC`"
            )
            raise UsageError(f"{place.url} does not hold one run: {held}")
        name = names[0]
    return open_run(place, name, Settings.from_env())


def _words(spec: Path, overrides: list[str] | None, store: str | None, on: Path | None) -> str:
    import shlex

    words = [str(spec), *(overrides or [])]
    words += ["--store", store] if store else []
    words += ["--on", str(on)] if on else []
    return shlex.join(words)
