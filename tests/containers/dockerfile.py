"""A Dockerfile as stages of instructions: as much of the format as the rules need."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Instruction:
    """One instruction, its continuation lines joined."""

    keyword: str
    """In capitals, such as RUN."""
    text: str
    """What follows the keyword, spaces squeezed."""

    @property
    def argv(self) -> list[str] | None:
        """The arguments where they are written as JSON, else None."""
        return json.loads(self.text) if self.text.startswith("[") else None


@dataclass(frozen=True)
class Stage:
    """One FROM and what belongs to it."""

    base: str
    """An image or the name of an earlier stage."""
    name: str
    """What AS says, or the empty string."""
    instructions: tuple[Instruction, ...]
    """Without the FROM."""

    def of(self, keyword: str) -> list[Instruction]:
        """The instructions with a keyword, in order."""
        return [instruction for instruction in self.instructions if instruction.keyword == keyword]


@dataclass(frozen=True)
class Dockerfile:
    """A parsed file."""

    arguments: tuple[Instruction, ...]
    """What stands before the first FROM."""
    stages: tuple[Stage, ...]
    """In order; the last one is the image."""

    @property
    def image(self) -> list[Stage]:
        """The stages whose layers are in the image: the last one, and those that it stands on."""
        named = {stage.name: stage for stage in self.stages}
        chain = [self.stages[-1]]
        while chain[-1].base in named:
            chain.append(named[chain[-1].base])
        return chain[::-1]


def parse(text: str) -> Dockerfile:
    """Parse the text of a Dockerfile. Raises ValueError on a FROM that is not understood."""
    arguments: list[Instruction] = []
    stages: list[tuple[str, str, list[Instruction]]] = []
    for instruction in _instructions(text):
        if instruction.keyword == "FROM":
            match = re.fullmatch(r"(\S+)(?: AS (\S+))?", instruction.text, re.IGNORECASE)
            if match is None:
                raise ValueError(f"FROM {instruction.text}")
            stages.append((match[1], match[2] or "", []))
        elif stages:
            stages[-1][2].append(instruction)
        else:
            arguments.append(instruction)
    return Dockerfile(tuple(arguments), tuple(Stage(base, name, tuple(parts)) for base, name, parts in stages))


def _instructions(text: str) -> list[Instruction]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    whole = re.sub(r"\\\n", " ", "\n".join(lines))
    pairs = [line.split(maxsplit=1) for line in whole.splitlines()]
    return [Instruction(keyword.upper(), " ".join(rest.split())) for keyword, rest in pairs]
