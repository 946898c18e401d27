"""Pictures as PNG bytes and as data URIs, so that a page can carry them.

Legend: y rows, x columns, c channels (red, green, blue, opacity).
"""

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_RGBA = 6
"""Colour type of the PNG specification (ISO/IEC 15948): red, green, blue, opacity."""
_UP = 2
"""Filter: difference to the row above; smooth pictures shrink well with it."""


def png_bytes(rgba_yxc: NDArray[np.uint8]) -> bytes:
    """An RGBA picture as PNG, without any metadata: equal pictures give equal bytes with one zlib.

    Raises ValueError unless the picture is uint8 of shape (y, x, 4) and not empty.
    """
    if rgba_yxc.dtype != np.uint8 or rgba_yxc.ndim != 3 or rgba_yxc.shape[2] != 4 or rgba_yxc.size == 0:
        raise ValueError(f"a picture is uint8 of shape (y, x, 4), not {rgba_yxc.dtype} {rgba_yxc.shape}")
    height, width, _ = rgba_yxc.shape
    flat = rgba_yxc.reshape(height, width * 4)
    above = np.vstack([np.zeros((1, width * 4), np.uint8), flat[:-1]])
    lines = np.empty((height, width * 4 + 1), np.uint8)
    lines[:, 0] = _UP
    lines[:, 1:] = flat - above  # modulo 256, as the filter is defined
    header = struct.pack(">IIBBBBB", width, height, 8, _RGBA, 0, 0, 0)
    body = zlib.compress(lines.tobytes(), 9)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def png_uri(rgba_yxc: NDArray[np.uint8]) -> str:
    """An RGBA picture as a `data:` URI. Raises ValueError as `png_bytes` does."""
    return "data:image/png;base64," + base64.b64encode(png_bytes(rgba_yxc)).decode("ascii")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
