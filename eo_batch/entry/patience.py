"""Waits for a store that does not answer for a while."""

import time
from collections.abc import Callable
from typing import TypeVar

from eo_batch.core.errors import StoreError
from eo_batch.io.store import Store
from eo_batch.runners.base import STORE_S

_PAUSE_S = 2.0
_T = TypeVar("_T")


def patiently(store: Store, ask: Callable[[], _T], tell: Callable[[str], None]) -> _T:
    """What `ask`, which may be called again, returns; a server that restarts costs a run nothing but time.

    `tell` gets each new reason to wait. Raises StoreError at once where waiting does not help (a disk that is full,
    a bucket that is not there), else after `STORE_S`.
    """
    begun, told = time.monotonic(), ""
    while True:
        try:
            return ask()
        except StoreError as error:
            if not error.retryable or store.url.startswith("file:") or time.monotonic() - begun > STORE_S:
                raise
            if str(error) != told:
                told = str(error)
                tell(told)
            time.sleep(_PAUSE_S)
