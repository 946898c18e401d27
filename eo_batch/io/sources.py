"""Reading the source files of one shard: retries, spares, and one outcome for every file."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from eo_batch.core.errors import ReadError, ShardFailed
from eo_batch.core.receipts import LOST, Note, Source, SourceState, lost_share
from eo_batch.core.scenes import Asset, Scene, SceneKey
from eo_batch.io.rasters import RasterReader
from eo_batch.io.retries import Failing, RetryBudget
from eo_batch.io.windows import Bounds, RawImage

BoundsOf = Callable[[int], Bounds]


@dataclass
class Sources:
    """Reads files for one shard and remembers what happened to each."""

    reader: RasterReader
    bounds_of: BoundsOf
    margin_px: int
    """Pixels of each file read around the block."""
    outcomes: list[Source] = field(default_factory=list)
    lost: set[SceneKey] = field(default_factory=set)
    """Keys of scenes of which a file could not be read."""
    notes: list[Note] = field(default_factory=list)
    """On files that are not where their catalogue says."""

    def __post_init__(self) -> None:
        self._retries = RetryBudget(self.reader.patience_s)

    async def read(self, scene: Scene, band: str) -> tuple[RawImage, Asset] | None:
        """A scene's file of a band, or its spare; None if it does not reach the block or is lost for good.

        Raises ShardFailed for failures that another try, or a person, can mend (transient, forbidden).
        """
        asset = scene.asset(band)
        if asset is None:
            return None
        told = _Told()
        try:
            raw = await self._try(scene, asset, told)
        except ReadError as error:
            spare = await self._spare(scene, band, error)
            if spare is None:
                self.lost.add(scene.key)
                self._note(scene, asset, error.kind, error.detail, told)
            return spare
        self._note(scene, asset, "ok" if raw else "outside", told.last, told, raw)
        return None if raw is None else (raw, asset)

    def check_lost(self, shard: str, max_missing: float) -> None:
        """Raise ShardFailed if more than `max_missing` of the files were lost for good."""
        lost, share = [s for s in self.outcomes if s.state in LOST], lost_share(self.outcomes)
        if share > max_missing:
            first = lost[0]
            raise ShardFailed(
                f"shard {shard}: {len(lost)} of {len(self.outcomes)} files can't be read, first {first.href}: "
                f"{first.state}: {first.detail}; mend the files, or accept the loss with "
                f"limits.max_missing={_round_up(share):g}"
            )

    async def _try(self, scene: Scene, asset: Asset, told: "_Told") -> RawImage | None:
        """Raises ReadError for what is lost for good, ShardFailed for what can be mended."""
        failing: Failing | None = None
        while True:
            told.tries += 1
            try:
                raw = await self.reader.read(asset, self.bounds_of, self.margin_px)
            except ReadError as error:
                told.last = f"{error.kind}: {error.detail}"
                failing = failing or self._retries.failing()
                match error.kind:
                    case "missing":
                        raise
                    case "forbidden":
                        raise self._failed(error, asset, scene) from error
                    case "truncated" | "corrupt":
                        # Bytes are also broken on their way: what the file itself is, a second look tells.
                        if told.looked:
                            raise
                        told.looked = True
                        continue
                pause_s = self._retries.pause_s(failing)
                if pause_s is None:
                    raise self._failed(error, asset, scene) from error
                await asyncio.sleep(pause_s)
            else:
                self._retries.answered()
                return raw

    async def _spare(self, scene: Scene, band: str, cause: ReadError) -> tuple[RawImage, Asset] | None:
        asset = scene.spare_asset(band)
        if asset is None:
            return None
        told = _Told()
        try:
            raw = await self._try(scene, asset, told)
        except ReadError as error:
            self._note(scene, asset, error.kind, f"the spare of a {cause.kind} file: {error.detail}", told)
            return None
        if raw is None:
            return None
        self._note(scene, asset, "spare", f"{scene.spare_id}, since {cause}", told, raw)
        return raw, asset

    def _failed(self, error: ReadError, asset: Asset, scene: Scene) -> ShardFailed:
        remedy = "check your credentials for it" if error.kind == "forbidden" else "run again later"
        failure = ShardFailed(f"{scene.scene_id} {asset.band}: {error}; {remedy}")
        failure.retryable = error.kind == "transient"
        return failure

    def _note(
        self,
        scene: Scene,
        asset: Asset,
        state: SourceState,
        detail: str,
        told: "_Told",
        raw: RawImage | None = None,
    ) -> None:
        if raw is not None and raw.elsewhere:
            self.notes.append(Note(subject=scene.scene_id, text=f"{asset.band}: {raw.elsewhere}"))
        self.outcomes.append(
            Source(
                scene=scene.scene_id,
                band=asset.band,
                href=asset.href.split("?", 1)[0],
                state=state,
                detail=detail,
                bytes_in=raw.bytes_in if raw else 0,
                requests=raw.requests if raw else 0,
                tries=told.tries,
                offset_dn=asset.offset_dn,
                offset_reason=asset.offset_reason,
            )
        )


@dataclass
class _Told:
    """What reading one file took."""

    tries: int = 0
    last: str = ""
    """The last failure."""
    looked: bool = False
    """Whether it was read again since its bytes were broken."""


def in_order(outcomes: Sequence[Source]) -> tuple[Source, ...]:
    """Outcomes sorted by scene and band: reads end in any order."""
    return tuple(sorted(outcomes, key=lambda s: (s.scene, s.band, s.href)))


def _round_up(share: float) -> float:
    return min(1.0, -(-share * 100 // 1) / 100)
