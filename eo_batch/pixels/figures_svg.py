"""The little SVG that charts and maps need: elements with escaped text, short numbers, round ticks.

Text takes the page's colour (`currentColor`), so that a figure fits light and dark pages.
"""

import math
from collections.abc import Iterable
from html import escape


def tag(name: str, *children: str, **attributes: str | float | None) -> str:
    """An element. Attribute names take `_` for `-` (`class_` for `class`); None leaves one out.

    `children` are markup already; text goes through `label`.
    """
    parts = [
        f' {key.rstrip("_").replace("_", "-")}="{escape(value) if isinstance(value, str) else short(value)}"'
        for key, value in attributes.items()
        if value is not None
    ]
    inside = "".join(children)
    return f"<{name}{''.join(parts)}>{inside}</{name}>" if inside else f"<{name}{''.join(parts)}/>"


def label(words: str, x: float, y: float, anchor: str = "start", kind: str = "label") -> str:
    """Text at a place; `anchor` start, middle or end."""
    return tag("text", escape(words), x=x, y=y, text_anchor=anchor, class_=kind)


def title(words: str) -> str:
    """What a browser shows when the mouse rests on the element."""
    return tag("title", escape(words))


def figure(width: float, height: float, children: Iterable[str], about: str) -> str:
    """A whole drawing that scales with its container; `about` is read to people who can't see it."""
    return (
        f'<svg viewBox="0 0 {short(width)} {short(height)}" role="img" aria-label="{escape(about)}" '
        f'style="max-width:{short(width)}px">{"".join(children)}</svg>'
    )


def short(value: float, digits: int = 2) -> str:
    """A number with at most `digits` decimals and no trailing zeros."""
    text = f"{value:.{digits}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def tick(value: float) -> str:
    """A tick's number, with a real minus."""
    return f"{value:g}".replace("-", "−")


def nice_step(span: float, about: int) -> float:
    """A step of 1, 2 or 5 times a power of ten that cuts `span` into some `about` pieces."""
    if span <= 0 or not math.isfinite(span):
        return 1.0
    rough = span / max(about, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    return power * next(factor for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= rough * (1 - 1e-9))


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers within [low, high]."""
    step = nice_step(high - low, about)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]
