"""Errors that are meant for people end a flow or a task with their words alone."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from prefect.states import Failed, State

from eo_batch.core.errors import EoBatchError

P = ParamSpec("P")
R = TypeVar("R")


def plainly(work: Callable[P, R]) -> Callable[P, R | State[None]]:
    """`work`, which ends as failed where it raised an EoBatchError: Prefect would log a traceback at every level."""

    @wraps(work)
    def worked(*args: P.args, **kwargs: P.kwargs) -> R | State[None]:
        try:
            return work(*args, **kwargs)
        except EoBatchError as error:
            return Failed(message="\n".join((str(error), *getattr(error, "__notes__", ()))))

    return worked
