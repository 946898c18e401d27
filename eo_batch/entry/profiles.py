"""Profiles from files."""

from pathlib import Path

from eo_batch.core.errors import UsageError
from eo_batch.core.placement import LOCAL, Placement, parse_placement


def read_placement(path: str | None) -> Placement:
    """The placement of a profile's file; this machine if there is none.

    Raises UsageError if the file can't be read, SpecError naming every wrong field of it.
    """
    if path is None:
        return LOCAL
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"profile {path} can't be read: {error}") from error
    return parse_placement(text, path)
