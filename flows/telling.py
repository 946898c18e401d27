"""Tells Prefect's API things that the work does not depend on.

A thread sends them, for the API may be slow or away, and nobody's shard should wait for it or fail with it. What could
not be sent is sent again later; of several things under one key only the last one is. The log tells of it once.
"""

import contextvars
import threading
import time
from collections.abc import Callable
from typing import Any

from prefect.exceptions import PrefectHTTPStatusError

_AGAIN_S = 5.0
"""Between two attempts while the API is away."""

Send = Callable[[], object]


class Teller:
    """Sends what it is told."""

    def __init__(self, log: Any) -> None:
        """log: a logger, or Prefect's adapter of one."""
        self._log = log
        self._wanted: dict[str, Send] = {}
        self._change = threading.Condition()
        self._until: float | None = None
        """When to stop though something is left, by the monotonic clock; None while the flow runs."""
        self._away = False
        self._thread = threading.Thread(target=contextvars.copy_context().run, args=(self._work,), daemon=True)
        self._thread.start()

    def tell(self, key: str, send: Send) -> None:
        """Have `send` called, unless something else is told under the same key first."""
        context = contextvars.copy_context()  # Prefect finds the run that an artifact belongs to in it
        with self._change:
            self._wanted[key] = lambda: context.run(send)
            self._change.notify()

    def close(self, patience_s: float) -> None:
        """Wait until all is sent, for `patience_s` at most."""
        with self._change:
            self._until = time.monotonic() + patience_s
            self._change.notify()
        self._thread.join(patience_s)
        if self._wanted:
            self._log.warning(
                "Prefect was not told of %s, since its API does not answer; the receipts in the store have it all",
                ", ".join(self._wanted),
            )

    def _work(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._wanted or self._until is not None)
                if not self._wanted:
                    return
                key, send = next(iter(self._wanted.items()))
            try:
                send()
            except Exception as error:
                if _refused(error):
                    self._log.warning("Prefect's API refuses %s: %s", key, error)
                    self._settle(key, send)
                    continue
                if not self._away:
                    self._log.warning("Prefect's API does not take %s (%s); the run goes on", key, error)
                self._away = True
                with self._change:
                    self._wanted[key] = self._wanted.pop(key)  # the others first
                    if not self._change.wait_for(self._over, _AGAIN_S):
                        continue
                return
            self._settle(key, send)
            if self._away:
                self._log.info("Prefect's API answers again")
            self._away = False

    def _settle(self, key: str, send: Send) -> None:
        with self._change:
            if self._wanted[key] is send:
                del self._wanted[key]

    def _over(self) -> bool:
        return self._until is not None and time.monotonic() >= self._until


def _refused(error: Exception) -> bool:
    """Whether the same request would be refused again."""
    return isinstance(error, PrefectHTTPStatusError) and error.response.status_code in (400, 404, 409, 422)
