"""Identity by content: digests of canonical JSON."""

import hashlib
import json
from collections.abc import Mapping, Sequence

JsonValue = str | int | float | bool | None | Sequence["JsonValue"] | Mapping[str, "JsonValue"]


def canonical_json(value: JsonValue) -> str:
    """JSON with sorted keys, no spaces and shortest floats; equal values give equal text.

    Raises ValueError for NaN and infinities, which JSON can't carry.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def digest(value: JsonValue, length: int = 12) -> str:
    """The first `length` hexadecimal digits of the SHA-256 of the value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]
