"""What holds for every recipe: from the catalogue to a report that tells of real things."""

import json

import pyarrow.compute as pc

from eo_batch.core import layout
from eo_batch.core.learning_plan import trained_name
from eo_batch.entry.drive import state_of
from eo_batch.entry.stages import stages_of
from eo_batch.io.tables import read_table

from .conftest import Recipe


class WholeJob:
    """Tests of one recipe; the module that derives from it gives the fixture `recipe`."""

    told = ""
    """Something that the report must tell."""

    def test_every_stage_is_done(self, recipe: Recipe) -> None:
        states = [state_of(recipe.run, stage) for stage in stages_of(recipe.run)]
        assert [state.stage for state in states] == list(layout.STAGES)
        assert not any(state.missing for state in states)

    def test_every_chip_with_pixels_is_embedded(self, recipe: Recipe) -> None:
        """One row a chip and time bin; a chip without any valid patch keeps its row, without a vector."""
        run = recipe.run
        prefix = run.identity.prefix("embed")
        rows, vectors = 0, 0
        for key in run.store.list(f"{prefix}/chips/{trained_name(0)}"):
            table = read_table(run.store, key)
            rows += table.num_rows
            vectors += table.num_rows - table["vector"].null_count
            assert pc.all(pc.equal(pc.is_null(table["vector"]), pc.equal(table["tokens"], 0))).as_py()
        assert rows == len(run.plan.cells) * len(run.spec.time.bins())
        assert 0 < vectors <= rows

    def test_the_probe_has_scores_of_all_encoders(self, recipe: Recipe) -> None:
        summary = json.loads(recipe.run.store.get(layout.metrics(recipe.run.identity.prefix("probe"), "summary.json")))
        assert set(summary["encoders"]) == {"pretrained", "random-init", "band-statistics"}
        assert summary["test_chips"] >= 10

    def test_the_report_names_what_happened(self, recipe: Recipe) -> None:
        page = recipe.run.store.get(f"{recipe.run.identity.prefix('report')}/{layout.REPORT_PAGE}").decode()
        assert recipe.run.spec.name in page
        assert self.told in page
