"""Every error that eo-batch raises on purpose.

    EoBatchError                 exit code 1
    ├── UsageError               2   the user's input is wrong; says field, value and remedy
    │   ├── SpecError                run spec, overrides, profile
    │   ├── AreaError                area empty, reversed, crossing the antimeridian unsplit
    │   └── PlanError                the plan is impossible: no scenes, over the memory limit
    ├── CatalogError             3   a catalogue is down, refuses, or answers nonsense
    ├── StoreError               4   the object store is missing, full, forbidden
    │   ├── StoreMissing             the key or bucket is not there
    │   └── StoreDenied              credentials are missing or refused
    ├── ReadError                5   one asset could not be read; carries its failure kind
    ├── RadiometryError          6   nobody can say what an asset's numbers mean
    ├── DataError                7   data written by an earlier stage is not usable (cut short, NaN)
    ├── ShardFailed              8   a shard could not be completed
    ├── ClusterError             9   a Kubernetes cluster does not do what it should
    │   ├── ClusterDown              it does not answer
    │   └── ClusterRefused           it says no: a permission, quota, queue or object is missing
    └── Interrupted              130 stopped by a person; says how to resume

Each message says what is wrong, where, and what to do. None needs a traceback to be understood.
"""

from typing import Literal

FailureKind = Literal["missing", "forbidden", "transient", "truncated", "corrupt"]
"""What went wrong with a read: `missing` 404; `forbidden` 401/403; `transient` 429, 5xx, time-outs and
resets after all retries; `truncated` fewer bytes than announced; `corrupt` bytes that do not decode."""


class EoBatchError(Exception):
    """Root of the tree. `exit_code` is what the command line ends with."""

    exit_code = 1
    retryable = False
    """Whether running the same thing again can help without anybody changing anything."""


class UsageError(EoBatchError):
    """The user's input is wrong."""

    exit_code = 2


class SpecError(UsageError):
    """A run spec, an override or a profile is wrong."""


class AreaError(UsageError):
    """The area of interest can't be used."""


class PlanError(UsageError):
    """The plan is impossible as asked."""


class CatalogError(EoBatchError):
    """A STAC catalogue is down, refuses, or answers nonsense."""

    exit_code = 3
    retryable = True


class StoreError(EoBatchError):
    """The object store failed."""

    exit_code = 4
    retryable = True


class StoreMissing(StoreError):
    """The key, container or bucket is not there."""

    retryable = False


class StoreDenied(StoreError):
    """Credentials are missing or refused."""

    retryable = False


class ReadError(EoBatchError):
    """One asset could not be read.

    `href` names it without its query (which can hold a token); `kind` classes the failure.
    """

    exit_code = 5

    def __init__(self, href: str, kind: FailureKind, detail: str) -> None:
        self.href = href.split("?", 1)[0]
        self.kind: FailureKind = kind
        self.detail = detail
        self.retryable = kind == "transient"
        super().__init__(f"{self.href}: {kind}: {detail}")

    def __reduce__(self) -> tuple[type["ReadError"], tuple[str, FailureKind, str]]:
        return ReadError, (self.href, self.kind, self.detail)


class RadiometryError(EoBatchError):
    """Nobody can say what an asset's numbers mean (for example which offset they carry)."""

    exit_code = 6


class DataError(EoBatchError):
    """Data that an earlier stage wrote is not usable."""

    exit_code = 7


class ShardFailed(EoBatchError):
    """A shard could not be completed."""

    exit_code = 8


class ClusterError(EoBatchError):
    """A Kubernetes cluster does not do what it should."""

    exit_code = 9
    retryable = True


class ClusterDown(ClusterError):
    """The cluster does not answer, or fails to."""


class ClusterRefused(ClusterError):
    """The cluster says no, and will say no again until somebody changes something."""

    retryable = False


class Interrupted(EoBatchError):
    """A person stopped the run."""

    exit_code = 130
