"""The simulated planet and the demo's run spec."""

import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from eo_batch.core.errors import SpecError, UsageError
from eo_batch.core.planet import PlanetSpec
from eo_batch.core.spec import RunSpec
from eo_batch.core.specfile import parse_spec
from eo_batch.io.store import Store, parse_store

if TYPE_CHECKING:
    from collections.abc import Sequence


def simulate_planet(folder: Path) -> str:
    """Write the default planet below `folder`; returns the address of its ItemCollection."""
    return _write(parse_store(str(folder / "planet")), PlanetSpec())


def write_planet(target: str, planet: Path | None, overrides: "Sequence[str]") -> str:
    """Write the planet of a spec file with `field=value` overrides to any store."""
    document = _planet_document(planet) if planet is not None else {}
    for override in overrides:
        field, sign, value = override.partition("=")
        if not sign:
            raise UsageError(f"override {override!r} is not of the form field=value, such as seed=7")
        document[field] = _yaml(value, f"override {override!r}")
    try:
        spec = PlanetSpec.model_validate(document)
    except ValidationError as error:
        lines = (f"{'.'.join(map(str, p['loc']))}={p.get('input')!r}: {p['msg']}" for p in error.errors())
        raise SpecError("planet: " + "; ".join(lines)) from error
    return _write(parse_store(target), spec)


def _planet_document(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"planet spec {path} can't be read: {error}") from error
    document = _yaml(text, f"planet spec {path}")
    if not isinstance(document, dict):
        raise SpecError(f"planet spec {path} holds no mapping of fields, such as `seed: 7`")
    return document


def _yaml(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SpecError(f"{where} is not YAML: {' '.join(str(error).split())}") from error


def demo_spec(catalog: str) -> RunSpec:
    """The demo's run spec over the default planet's area."""
    text = files("eo_batch.cli").joinpath("demo.yaml").read_text()
    bbox = [round(value, 6) for value in PlanetSpec().area_bbox]
    return parse_spec(text, [f"catalog={catalog}", f"area.bbox={bbox}"], "the demo's spec")


def _write(store: Store, spec: PlanetSpec) -> str:
    from eo_batch.stages.simulate import simulate

    print(f"simulating a planet of {spec.width_km:g} x {spec.height_km:g} km", file=sys.stderr, flush=True)
    return simulate(spec, store)
