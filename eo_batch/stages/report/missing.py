"""What is missing, and why: the ledger in counts first, then in rows with their causes."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from eo_batch.stages.report import words
from eo_batch.stages.report.coverage import STATE_WORDS, bin_words
from eo_batch.stages.report.results import Results

MOST_ROWS = 200
"""Rows of one list on the page; the ledger itself holds all."""
_EXAMPLES = 3

SOURCE_WORDS: Mapping[str, str] = {
    "spare": "broken; its older processing was read instead",
    "missing": "not there (404)",
    "forbidden": "refused (401 or 403)",
    "transient": "failed after all retries",
    "truncated": "shorter than announced",
    "corrupt": "does not decode",
}
"""What the outcome of a source file means."""


@dataclass(frozen=True)
class Count:
    """Outcomes of one sensor's chips."""

    sensor: str
    total: int
    """Chips times time bins."""
    by_state: tuple[tuple[int, str], ...]
    """Number and share, in the order of `Missing.states`."""


@dataclass(frozen=True)
class Rows:
    """A list that may be longer than what is shown."""

    title: str
    tally: str
    """How much the list is about, in words."""
    about: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    total: int

    @property
    def hidden(self) -> int:
        """Rows that the page leaves out."""
        return self.total - len(self.rows)


@dataclass(frozen=True)
class Missing:
    """The ledger as the page shows it."""

    states: tuple[str, ...]
    counts: tuple[Count, ...]
    source_states: tuple[str, ...]
    source_counts: tuple[tuple[str, tuple[int, ...]], ...]
    """Files by sensor, in the order of `source_states`."""
    lists: tuple[Rows, ...]
    """Notes, scenes left out, files, chips: those that are not empty."""
    sentence: str


def missing_of(results: Results) -> Missing:
    """The ledger in counts and lists, with the notes of later stages."""
    spec = results.spec
    by_level: dict[str, list[dict[str, str]]] = {"chip": [], "source": [], "scene": [], "note": []}
    for row in results.ledger.to_pylist():
        by_level[row["level"]].append(row)
    by_level["note"] += [
        {"sensor": stage, "scene": note.subject, "cause": note.text}
        for stage, receipts in results.receipts.items()
        if stage not in ("plan", "chips")  # the ledger holds what these say
        for receipt in receipts
        for note in receipt.notes
    ]
    chips, sources = by_level["chip"], by_level["source"]
    states = tuple(state for state in STATE_WORDS if state == "ok" or any(r["state"] == state for r in chips))
    counts = tuple(_count(name, states, chips) for name in spec.sensors if any(r["sensor"] == name for r in chips))
    found = Counter((row["sensor"], row["state"]) for row in sources)
    source_states = tuple(s for s in SOURCE_WORDS if any(state == s for _, state in found))
    source_counts = tuple(
        (name, tuple(found[name, state] for state in source_states))
        for name in spec.sensors
        if any(sensor == name for sensor, _ in found)
    )
    lists = (_notes(by_level["note"]), _scenes(by_level["scene"]), _files(sources), _chips(chips, spec.time.step))
    return Missing(
        states=states,
        counts=counts,
        source_states=source_states,
        source_counts=source_counts,
        lists=tuple(part for part in lists if part.total),
        sentence=_sentence(chips, sources, by_level["scene"]),
    )


def _count(sensor: str, states: Sequence[str], chips: Sequence[Mapping[str, str]]) -> Count:
    found = Counter(row["state"] for row in chips if row["sensor"] == sensor)
    total = sum(found.values())
    return Count(sensor, total, tuple((found[state], words.percent(found[state] / total)) for state in states))


def _sentence(
    chips: Sequence[Mapping[str, str]], sources: Sequence[Mapping[str, str]], scenes: Sequence[object]
) -> str:
    lost = sum(row["state"] != "ok" for row in chips)
    failed = [row for row in sources if row["state"] != "spare"]
    said = [
        f"{words.count(lost)} of {words.count(len(chips), 'chip image')} are empty"
        if lost
        else "no chip image is empty",
        f"{words.count(len(failed), 'file')} could not be read" if failed else "every file could be read",
    ]
    if scenes:
        said.append(f"{words.count(len(scenes), 'scene')} left out on purpose")
    sentence = "; ".join(said)
    return sentence[0].upper() + sentence[1:] + "."


def _notes(rows: Sequence[Mapping[str, str]]) -> Rows:
    # Each block that a scene reaches repeats its note; a person reads it once.
    blocks = Counter((r["sensor"], r["scene"], r["cause"]) for r in rows)
    shown = [(sensor, scene, cause, str(n)) for (sensor, scene, cause), n in sorted(blocks.items())]
    about = "Nothing failed here, but somebody should have a look."
    return _rows("Notes", words.count(len(shown), "note"), about, ("sensor or stage", "about", "note", "shards"), shown)


def _scenes(rows: Sequence[Mapping[str, str]]) -> Rows:
    shown = sorted((r["sensor"], r["scene"], r["cause"]) for r in rows)
    about = "The catalogue lists them, the run does not use them."
    return _rows("Scenes left out", words.count(len(shown), "scene"), about, ("sensor", "scene", "why"), shown)


def _files(rows: Sequence[Mapping[str, str]]) -> Rows:
    groups: dict[tuple[str, ...], int] = Counter(
        (r["sensor"], r["scene"], r["band"], r["state"], r["cause"] or SOURCE_WORDS.get(r["state"], ""), r["href"])
        for r in rows
    )
    order = {state: i for i, state in enumerate(SOURCE_WORDS)}
    shown = sorted(groups.items(), key=lambda item: (order.get(item[0][3], -1), item[0]))
    about = "Files that were not read as planned, and in how many shards."
    header = ("sensor", "scene", "band", "outcome", "why", "file", "shards")
    return _rows("Files", words.count(len(shown), "file"), about, header, [(*key, str(n)) for key, n in shown])


def _chips(rows: Sequence[Mapping[str, str]], step: str) -> Rows:
    groups: dict[tuple[str, str, str, str], list[str]] = {}
    for r in rows:
        if r["state"] != "ok":
            groups.setdefault((r["sensor"], r["bin"], r["state"], r["cause"] or ""), []).append(r["chip_id"])
    shown = [
        (sensor, bin_words(key, step), state.replace("_", " "), cause, str(len(ids)), _examples(sorted(ids)))
        for (sensor, key, state, cause), ids in sorted(groups.items())
    ]
    about = "Chips without any pixel, grouped by cause."
    tally = f"{words.count(sum(map(len, groups.values())), 'chip image')} in {words.count(len(groups), 'group')}"
    return _rows("Empty chips", tally, about, ("sensor", "time bin", "outcome", "why", "chips", "which"), shown)


def _examples(ids: Sequence[str]) -> str:
    return ", ".join(ids[:_EXAMPLES]) + (" …" if len(ids) > _EXAMPLES else "")


def _rows(title: str, tally: str, about: str, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Rows:
    every = list(rows)
    return Rows(title, tally, about, header, tuple(every[:MOST_ROWS]), len(every))
