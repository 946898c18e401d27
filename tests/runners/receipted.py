"""Work that leaves a receipt, as shards do. Needs nothing but eo_batch, like `calls`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from tests.runners.calls import Noting


@dataclass(frozen=True)
class Receipted(Noting):
    """An index with a receipt is not done again."""

    takes_s: float = 0.3

    def __call__(self, index: int) -> None:
        name = f"receipt-{index}"
        if name in self._names():
            return
        self.begin(index)
        time.sleep(self.takes_s)
        if isinstance(self.folder, Path):
            (self.folder / name).write_text("")
        else:
            self.folder.write(name, "")

    def receipts(self) -> set[int]:
        """Indices that are done."""
        return {int(name.removeprefix("receipt-")) for name in self._names() if name.startswith("receipt-")}

    def running(self) -> int:
        """How many tries have begun and left no receipt."""
        return len(self._names()) - 2 * len(self.receipts())
