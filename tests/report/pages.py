"""Making runs, and taking their pages apart."""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

from eo_batch.core.identity import Identity
from eo_batch.core.spec import RunSpec
from eo_batch.entry.drive import StageState, drive
from eo_batch.entry.run import Run
from eo_batch.io.store import Store
from eo_batch.runners.base import Event
from eo_batch.runners.local import LocalRunner
from eo_batch.settings import Settings


class _Silent:
    def begin(self, state: StageState) -> None: ...
    def event(self, state: StageState, event: Event) -> None: ...
    def end(self, state: StageState) -> None: ...


def do(spec: RunSpec, store: Store, until: str | None = None) -> None:
    """Run the stages up to one."""
    drive(Run(spec, store, Settings.from_env()), LocalRunner(), _Silent(), until)


def page_of(spec: RunSpec, store: Store) -> str:
    """The page of a run, drawn anew."""
    from eo_batch.stages import report

    receipt = report.run(spec, store)
    data = store.get(f"{Identity(spec).prefix('report')}/index.html")
    assert receipt.outputs == {"index.html": len(data)}
    return data.decode()


def section(page: str, name: str) -> str:
    """The HTML of one section."""
    found = re.search(rf'<section id="{name}">(.*?)</section>', page, re.DOTALL)
    assert found, f"no section {name}"
    return found.group(1)


@dataclass
class Elements(HTMLParser):
    """All elements of a page: name and attributes; and its visible text."""

    found: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of all elements of a kind."""
        return [attributes for name, attributes in self.found if name == tag]


def parsed(html: str) -> Elements:
    """The elements of a page."""
    elements = Elements()
    elements.feed(html)
    return elements


def words_of(html: str) -> str:
    """The text of a piece of a page, with single plain spaces."""
    return re.sub(r"\s+", " ", parsed(html).text)


def rows_of(html: str) -> list[list[str]]:
    """The cells of all table rows of a piece of a page, as text."""
    rows = re.findall(r"<tr.*?>(.*?)</tr>", html, re.DOTALL)
    return [[words_of(cell).strip() for cell in re.findall(r"<t[dh].*?>(.*?)</t[dh]>", row, re.DOTALL)] for row in rows]
