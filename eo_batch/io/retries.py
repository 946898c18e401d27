"""How often and how long one shard tries again to read what fails for a while."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

_TRIES = 4
"""Tries of a file after the first failure that others, which were read meanwhile, did not share."""
_REPEATS = 500
"""Repeats that one shard may spend on all its files."""
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 15.0


@dataclass
class Failing:
    """A file that has failed."""

    since_s: float
    failures: int = 0
    alone: int = 0
    """Failures since others were read."""


class RetryBudget:
    """What one shard spends on failures that can pass.

    A source of which nothing can be read is away, and all wait for it, up to `patience_s` in all. A file that fails
    while others are read is broken, and is given up after some tries. Pauses double, each drawn from zero to its bound
    ("full jitter": https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter), so that shards
    do not come back at the same moment.
    """

    def __init__(self, patience_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._left_s, self._clock = patience_s, clock
        self._left = _REPEATS
        self._away_since_s: float | None = None
        self._answered_s = float("-inf")

    def answered(self) -> None:
        """A file was read."""
        self._answered_s = self._clock()
        if self._away_since_s is not None:
            self._left_s -= self._answered_s - self._away_since_s
            self._away_since_s = None

    def pause_s(self, file: Failing) -> float | None:
        """Seconds until `file`, which has just failed, is to be read again; None if it is not."""
        now_s = self._clock()
        file.failures += 1
        if self._away_since_s is None:
            self._away_since_s = now_s
        if self._answered_s > file.since_s:
            file.alone += 1
        self._left -= 1
        left_s = self._left_s - (now_s - self._away_since_s)
        if file.alone >= _TRIES or self._left < 0 or left_s <= 0:
            return None
        bound_s = min(_FIRST_PAUSE_S * 2.0**file.failures, _LONGEST_PAUSE_S)
        return min(random.uniform(0, bound_s), left_s)

    def failing(self) -> Failing:
        """A file whose first failure comes now."""
        return Failing(self._clock())
