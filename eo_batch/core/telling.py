"""Addresses and other people's errors as messages may show them: without what can be secret."""

import re

_QUERY = re.compile(r"\?[^\s)\"']+")
_USER = re.compile(r"//[^/@\s]+@")


def shown(href: str) -> str:
    """An address without query and user, which can hold secrets. What stands behind a `#` names a part, and stays."""
    base, mark, part = href.partition("#")
    return _USER.sub("//", base.split("?", 1)[0]) + mark + part


def one_line(error: Exception) -> str:
    """An error's first line, or its class where it says nothing; at most 300 characters."""
    text = str(error).strip().split("\n", 1)[0] or type(error).__name__
    return _USER.sub("//", _QUERY.sub("?…", text))[:300]
