"""What a stage's prefix depends on, and what it does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eo_batch.core.digest import canonical_json, digest
from eo_batch.core.identity import CODE_VERSIONS, Identity
from eo_batch.core.layout import STAGES
from eo_batch.core.spec import RunSpec
from tests.core.samples import Json, spec_document

LATER = ("publish", "pretrain", "embed", "probe", "report")


def full() -> Json:
    """A spec in which every section is written out."""
    return spec_document(
        time={"start": "2023-06-01", "end": "2023-09-01", "step": "month"},
        sensors={
            "s2": {"kind": "s2-l2a", "bands": ["B04", "B08"]},
            "cover": {"kind": "classes", "assets": {"cover": "map"}, "collections": ["labels"]},
        },
        probe={"target": "cover"},
        pretrain={"seeds": [0, 1]},
    )


def merged(base: Json, change: Json) -> Json:
    result = dict(base)
    for key, value in change.items():
        result[key] = merged(base.get(key, {}), value) if isinstance(value, dict) else value
    return result


def prefixes(document: Json) -> dict[str, str]:
    identity = Identity(RunSpec.model_validate(document))
    return {stage: identity.prefix(stage) for stage in STAGES}


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        ({"probe": {"folds": 7}}, ("probe", "report")),
        ({"probe": None}, ("probe", "report")),
        ({"pretrain": {"seeds": [0, 1, 2]}}, ("probe", "report")),
        ({"embed": {"batch": 7}}, ("embed", "probe", "report")),
        ({"pretrain": {"steps": 50}}, ("pretrain", "embed", "probe", "report")),
        ({"pretrain": {"encoder": {"dim": 32}}}, ("pretrain", "embed", "probe", "report")),
        ({"split": {"seed": 1}}, LATER),
        ({"area": {"bbox": [15.0, 45.6, 16.0, 45.7]}}, ("plan", *LATER)),
        ({"time": {"end": "2023-10-01"}}, ("plan", *LATER)),
        ({"time": {"start": "2023-05-01"}}, ("plan", *LATER)),
        ({"catalog": "https://other.example"}, ("plan", *LATER)),
        ({"as_of": "again"}, ("plan", *LATER)),
        ({"sensors": {"s2": {"catalog": "https://other.example"}}}, ("plan", *LATER)),
        ({"sensors": {"s2": {"collections": ["sentinel-2-c1-l2a"]}}}, ("plan", *LATER)),
        ({"limits": {"max_missing": 0.5}}, ()),
        ({"time": {"step": "year"}}, ("plan", "chips", *LATER)),
        ({"grid": {"chip_px": 128}}, ("plan", "chips", *LATER)),
        ({"grid": {"block_chips": 2}}, ("plan", "chips", *LATER)),
        ({"sensors": {"s2": {"bands": ["B08", "B04"]}}}, ("plan", "chips", *LATER)),
        ({"sensors": {"s2": {"composite": "mean"}}}, ("plan", "chips", *LATER)),
        ({"sensors": {"s2": {"offset_dn": -1000}}}, ("plan", "chips", *LATER)),
        ({"sensors": {"dem": {"kind": "dem"}}}, ("plan", "chips", *LATER)),
        ({"limits": {"shard_memory_gb": 64}}, ()),
    ],
    ids=str,
)
def test_what_each_section_moves(change: Json, moved: tuple[str, ...]) -> None:
    before, after = prefixes(full()), prefixes(merged(full(), change))
    assert tuple(stage for stage in STAGES if before[stage] != after[stage]) == moved


def test_the_range_is_part_of_the_cube_where_it_is_the_only_bin() -> None:
    whole = merged(full(), {"time": {"step": "all"}})
    before, after = prefixes(whole), prefixes(merged(whole, {"time": {"end": "2023-10-01"}}))
    assert before["chips"] != after["chips"]
    assert prefixes(merged(whole, {"area": {"bbox": [1, 2, 3, 4]}}))["chips"] == before["chips"]


def test_the_name_is_the_folder_and_nothing_else_but_the_reports() -> None:
    before, after = prefixes(full()), prefixes(merged(full(), {"name": "other"}))
    digests = {stage: (before[stage].split("/")[1], after[stage].split("/")[1]) for stage in STAGES}
    assert all(after[stage].startswith("other/") for stage in STAGES)
    assert [stage for stage, (old, new) in digests.items() if old != new] == ["report"]


def test_the_order_of_sensors_is_the_order_of_the_cube() -> None:
    turned = full()
    turned["sensors"] = dict(reversed(turned["sensors"].items()))
    before, after = prefixes(full()), prefixes(turned)
    assert before["chips"] != after["chips"]
    assert before["plan"] == after["plan"]


def test_what_is_written_out_or_left_to_defaults_is_the_same() -> None:
    document = RunSpec.model_validate(full()).model_dump(mode="json")
    assert prefixes(document) == prefixes(full())


@pytest.mark.parametrize("stage", STAGES)
def test_new_code_moves_a_stage_and_what_follows(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = prefixes(full())
    monkeypatch.setattr("eo_batch.core.identity.CODE_VERSIONS", {**CODE_VERSIONS, stage: 99})
    after = prefixes(full())
    changed = {name for name in STAGES if before[name] != after[name]}
    first = STAGES.index(stage)
    assert changed == ({stage, *STAGES[2:]} if first < 2 else set(STAGES[first:]))


def test_prefixes_are_places_in_the_runs_folder() -> None:
    found = prefixes(full())
    assert len(set(found.values())) == len(STAGES)
    for stage, prefix in found.items():
        name, digits = prefix.rsplit("-", 1)
        assert name == f"sample/{stage}"
        assert len(digits) == 12
        int(digits, 16)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(), below, max_size=4),
    max_leaves=10,
)


class TestDigest:
    @given(st.dictionaries(st.text(), json_values, max_size=5))
    def test_the_order_of_keys_does_not_count(self, value: Json) -> None:
        assert digest(value) == digest(dict(reversed(value.items())))

    @given(json_values, json_values)
    def test_equal_text_equal_digest(self, left: object, right: object) -> None:
        assert (canonical_json(left) == canonical_json(right)) == (digest(left, 64) == digest(right, 64))  # type: ignore[arg-type]

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), [1, float("-inf")], {"a": float("nan")}])
    def test_numbers_that_json_lacks_are_refused(self, value: Json) -> None:
        with pytest.raises(ValueError, match="not JSON compliant"):
            digest(value)

    def test_known_value(self) -> None:
        """Digests are part of every store that exists: this one must never change."""
        assert canonical_json({"b": [1, 2.5, None, True], "a": "é"}) == '{"a":"é","b":[1,2.5,null,true]}'
        assert digest({}) == "44136fa355b3"  # the first twelve digits of SHA-256 of "{}"
