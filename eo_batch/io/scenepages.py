"""Scenes with their files as pages of a Parquet table: what workers read of a plan."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eo_batch.core.scenes import Asset, Scene
from eo_batch.core.timebins import moment_of
from eo_batch.io.scenetable import SceneTable

_FILES = pa.list_(
    pa.struct(
        [
            ("band", pa.string()),
            ("href", pa.large_string()),
            ("epsg", pa.int32()),
            ("transform", pa.list_(pa.float64())),
            ("shape", pa.list_(pa.int32())),
            ("nodata", pa.float64()),
            ("scale", pa.float64()),
            ("offset_dn", pa.float64()),
            ("offset_reason", pa.string()),
            ("db", pa.bool_()),
        ]
    )
)
_OF_KIND = {
    "collection": pa.string(),
    "sensor": pa.string(),
    "baseline": pa.string(),
    "orbit_state": pa.string(),
    "relative_orbit": pa.int32(),
    "pair": pa.string(),
    "ambiguous": pa.bool_(),
}


class Pages:
    """Writes a table of scenes page by page."""

    def __init__(self, scenes: SceneTable) -> None:
        self._scenes = scenes
        self._kinds = pa.table({name: pa.array(scenes.column(name), kind) for name, kind in _OF_KIND.items()})
        self._files = _Files(scenes)
        self._spares = _Files(scenes.spares) if scenes.spares is not None else None

    def page(self, first: int, size: int) -> pa.Table:
        """Scenes `first` to `first + size`, or as many as there are."""
        scenes, rows = self._scenes, np.arange(first, min(first + size, len(self._scenes)))
        spare = pa.array(scenes.spare[rows], mask=scenes.spare[rows] < 0)
        own = {
            "scene_id": scenes.scene_id[first : first + size],
            "tile": scenes.tile[first : first + size],
            "platform": scenes.platform[first : first + size],
            "moment": pa.array(scenes.moment_us[rows]).cast(pa.timestamp("us", tz="UTC")),
            "bbox": pa.array(list(scenes.bbox[rows]), pa.list_(pa.float64())),
            "cloud_pct": pa.array(scenes.cloud_pct[rows], pa.float64(), from_pandas=True),
            "refusal": pa.array(scenes.refusal[rows], pa.string()),
            "assets": self._files.take(pa.array(rows)),
            "spare_id": pa.nulls(len(rows), pa.string()),
            "spare": pa.nulls(len(rows), _FILES),
        }
        if scenes.spares is not None and self._spares is not None:
            own |= {"spare_id": scenes.spares.scene_id.take(spare), "spare": self._spares.take(spare)}
        kinds = self._kinds.take(pa.array(scenes.kind[rows]))
        return pa.table(own | {name: kinds.column(name) for name in _OF_KIND})


class _Files:
    """The files of scenes: those of their kinds, with the scenes' own addresses."""

    def __init__(self, scenes: SceneTable) -> None:
        self._scenes = scenes
        self._of_kind = pa.array([[vars(asset) for asset in kind.assets] for kind in scenes.kinds], _FILES)

    def take(self, rows: pa.Array) -> pa.ListArray:
        """Those of some scenes; null where a row is."""
        kinds = pa.array(self._scenes.kind).take(rows)
        hrefs = self._scenes.hrefs.take(rows)
        files = self._of_kind.take(kinds)
        parts = {field.name: part for field, part in zip(_FILES.value_type, files.flatten().flatten(), strict=True)}
        parts["href"] = hrefs.flatten()
        named = pa.StructArray.from_arrays(list(parts.values()), fields=list(_FILES.value_type))
        lengths = np.diff(np.asarray(hrefs.offsets))
        ends = np.concatenate([[0], np.cumsum(np.where(np.asarray(hrefs.is_valid()), lengths, 0))])
        return pa.ListArray.from_arrays(
            pa.array(ends, pa.int32()), named, mask=rows.is_null() if rows.null_count else None
        )


def scenes_of_page(page: pa.Table, rows: Sequence[int]) -> list[Scene]:
    """Some of the scenes of a page."""
    if not rows:
        return []
    table = page.take(pa.array(np.asarray(rows))).combine_chunks()
    own = {name: table.column(name).to_pylist() for name in table.column_names if name not in ("assets", "spare")}
    own["moment"] = [moment_of(at) for at in table.column("moment").cast(pa.int64()).to_pylist()]
    own["bbox"] = [tuple(box) for box in own["bbox"]]
    own |= {name: _assets(table.column(name).combine_chunks()) for name in ("assets", "spare")}
    return [Scene(**dict(zip(own, values, strict=True))) for values in zip(*own.values(), strict=True)]


def _assets(files: pa.ListArray) -> list[tuple[Asset, ...]]:
    """The files of each scene; column by column, since a value of a struct costs more than its parts."""
    columns = [part.to_pylist() for part in files.flatten().flatten()]
    assets = [
        Asset(band, href, epsg, tuple(transform) if transform else None, tuple(shape) if shape else None, *rest)
        for band, href, epsg, transform, shape, *rest in zip(*columns, strict=True)
    ]
    ends = np.cumsum(pc.list_value_length(files).fill_null(0).to_numpy(zero_copy_only=False)).tolist()
    return [tuple(assets[begin:end]) for begin, end in pairwise([0, *ends])]
