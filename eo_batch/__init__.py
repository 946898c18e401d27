"""eo-batch: from an area and dates to aligned chips, an encoder, its embeddings and what they are worth."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr

__version__ = "0.1.0"
__all__ = ["__version__", "open_cube"]


def open_cube(url: str) -> "xr.Dataset":
    """Open a run's chips lazily; see `eo_batch.io.opening.open_cube`."""
    from eo_batch.io.opening import open_cube as opened

    return opened(url)
