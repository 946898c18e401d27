"""Tables as dataclasses of numpy columns: many like things without an object for each."""

from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class Columns:
    """Base of dataclasses (`eq=False`) whose fields are arrays; two are equal if all that they hold is."""

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return False
        return all(_same(getattr(self, field.name), getattr(other, field.name)) for field in fields(self))  # type: ignore[arg-type]

    __hash__ = None  # type: ignore[assignment]  # arrays have none


def _same(one: object, other: object) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return bool(one == other)


def alike(*columns: NDArray[np.generic]) -> tuple[Ints, Ints]:
    """Rows that are equal in all columns are one group: the first row of each, and the group of each row.

    Columns of floats compare by value. Groups are numbered by the columns' values, the first column first.
    """
    group = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        _, code = np.unique(column, return_inverse=True)
        _, group = np.unique(group * (int(code.max(initial=0)) + 1) + code, return_inverse=True)
    _, first, group = np.unique(group, return_index=True, return_inverse=True)
    return first, group
