"""How work on the parts of an image is spread over a machine's cores."""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

Thing = TypeVar("Thing")
Made = TypeVar("Made")


class Spread(Protocol):
    """Calls a function with each of many things, and gives out what it returns in their order.

    `map` does so one after the other, the `map` of a pool of threads with several at once.
    """

    def __call__(self, act: Callable[[Thing], Made], things: Iterable[Thing], /) -> Iterator[Made]:
        """As `map`."""
        ...
