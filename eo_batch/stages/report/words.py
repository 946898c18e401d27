"""Numbers as people read them, with their unit."""

import math
from collections.abc import Iterable

_THIN = "\u202f"
"""Narrow no-break space: between thousands, and between a number and its unit."""


def count(value: int, thing: str = "", things: str | None = None) -> str:
    """`12 345 chips`; `thing` alone makes its plural with -s."""
    number = f"{value:,}".replace(",", _THIN)
    if not thing:
        return number
    return f"{number} {thing if value == 1 else things or thing + 's'}"


def percent(share: float | None) -> str:
    """A share as per cent: none of it and all of it are said only where they are exact."""
    if share is None or not math.isfinite(share):
        return "–"
    value = 100 * share
    if 0 < value < 0.1:
        return f"<{_THIN}0.1{_THIN}%"
    if 99.9 < value < 100:
        return f">{_THIN}99.9{_THIN}%"
    return f"{value:.1f}".removesuffix(".0") + f"{_THIN}%"


def size(n_bytes: float) -> str:
    """Bytes in decimal units."""
    value, units = float(n_bytes), ["B", "kB", "MB", "GB", "TB", "PB"]
    while abs(value) >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{_three(value)}{_THIN}{units[0]}"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours."""
    if seconds < 60:
        return f"{seconds:.2g}{_THIN}s" if seconds < 9.95 else f"{seconds:.0f}{_THIN}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{_THIN}min {rest}{_THIN}s"
    hours, minutes = divmod(minutes, 60)
    return f"{count(hours)}{_THIN}h {minutes}{_THIN}min"


def length(metres: float) -> str:
    """Metres or kilometres."""
    return f"{metres / 1000:g}{_THIN}km" if metres >= 1000 else f"{metres:g}{_THIN}m"


def area(square_km: float) -> str:
    """Square kilometres."""
    number = count(round(square_km)) if square_km >= 100 else _three(square_km)
    return f"{number}{_THIN}km²"


def number(value: float | None, digits: int = 3) -> str:
    """A value with fixed decimals, with a real minus; a dash if there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.{digits}f}".replace("-", "−")


def signed(value: float | None, digits: int = 3) -> str:
    """A difference: its sign is always there."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:+.{digits}f}".replace("-", "−")


def plain(value: float) -> str:
    """Three significant digits, as for the end of a colour scale."""
    return f"{value:.3g}".replace("-", "−")


def listed(things: Iterable[str]) -> str:
    """`a, b and c`."""
    parts = list(things)
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else "none"


def _three(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 99.5 or value == int(value) else f"{value:.3g}"
