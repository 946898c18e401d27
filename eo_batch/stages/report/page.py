"""The page: every section drawn and put into its template. Loads nothing from anywhere when it is opened."""

from functools import partial

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from eo_batch.stages.report import words
from eo_batch.stages.report.coverage import SPLIT_WORDS, STATE_WORDS, bin_words, chip_states, coverage_of, splits_of
from eo_batch.stages.report.embeddings import embeddings_of
from eo_batch.stages.report.facts import costs_of, headline_of, provenance_of
from eo_batch.stages.report.gallery import gallery_of
from eo_batch.stages.report.ground import ground_of
from eo_batch.stages.report.missing import SOURCE_WORDS, missing_of
from eo_batch.stages.report.reckoning import reckoning_of
from eo_batch.stages.report.reconstruction import reconstruction_of
from eo_batch.stages.report.results import Results
from eo_batch.stages.report.scores import scores_of
from eo_batch.stages.report.training import training_of


def render(results: Results) -> str:
    """The whole page as HTML."""
    ground = ground_of(results.chips)
    context = {
        "headline": headline_of(results, ground),
        "scores": scores_of(results),
        "coverage": coverage_of(results.spec, ground, chip_states(results.ledger)),
        "splits": splits_of(ground, results.chips, results.spec),
        "gallery": gallery_of(results, ground),
        "training": training_of(results),
        "reconstruction": reconstruction_of(results),
        "embeddings": embeddings_of(results, ground),
        "missing": missing_of(results),
        "costs": costs_of(results),
        "reckoning": reckoning_of(results),
        "provenance": provenance_of(results),
        "state_words": STATE_WORDS,
        "split_words": SPLIT_WORDS,
        "source_words": SOURCE_WORDS,
    }
    return _environment(results.spec.time.step).get_template("report.html.j2").render(context)


def _environment(step: str) -> Environment:
    environment = Environment(
        loader=PackageLoader("eo_batch.stages.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Figures are our own markup, whose text is already escaped.
    environment.filters |= {
        "svg": Markup,
        "count": words.count,
        "percent": words.percent,
        "number": words.number,
        "signed": words.signed,
        "listed": words.listed,
        "bin": partial(bin_words, step=step),
    }
    return environment
