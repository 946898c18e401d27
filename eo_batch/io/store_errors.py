"""Turns what obstore raises into the error tree: what failed, where, and what to do; never a secret."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

from eo_batch.core.errors import EoBatchError, StoreDenied, StoreError, StoreMissing

_NO_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|bucket (was |does )?not (found|exist)", re.IGNORECASE)
_DENIED = re.compile(
    r"InvalidAccessKeyId|SignatureDoesNotMatch|AccessDenied|ExpiredToken|AuthenticationFailed"
    r"|AuthorizationFailure|InvalidAuthenticationInfo|40[13] (Forbidden|Unauthorized)"
)
_UNREACHABLE = re.compile(r"kind: Connect|kind: Timeout|dns error|error sending request|operation timed out")
_QUERY = re.compile(r"(?<=\w)\?[^\s,)\"<>]+")
_OS_ERROR = re.compile(r"os error (\d+)")


def redact(text: str) -> str:
    """`text` without the query strings of URLs, which can hold tokens."""
    return _QUERY.sub("?…", text)


def is_absent(error: Exception) -> bool:
    """Whether `error` says that an object (not its bucket) is not there.

    On a file system that includes a folder of the object's name, and a file where a folder would have to be.
    """
    if _NO_BUCKET.search(str(error)):
        return False
    return isinstance(error, FileNotFoundError) or _os_error(error) in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)


@contextmanager
def store_errors(url: str, doing: str, *, init: str) -> Iterator[None]:
    """Run a block that touches the store at `url` and map its errors.

    `doing` says what was tried, as in `write run/plan/receipts/0.json`; `init` is the URL to create if the bucket is
    not there. Raises StoreMissing, StoreDenied or
    StoreError; the cause that it keeps is cut to one line without query strings.
    """
    try:
        yield
    except EoBatchError:
        raise
    except (BaseError, OSError) as error:
        summary = redact(str(error).split("\n\nDebug source", 1)[0].strip())
        cause = type(error)(summary)
        raise _mapped(url, doing, init, error, summary) from cause


def _mapped(url: str, doing: str, init: str, error: Exception, summary: str) -> StoreError:
    text = str(error)
    where = f"{url}: could not {doing}"
    if _NO_BUCKET.search(text):
        return StoreMissing(f"{where}: the bucket is not there; create it with `eo-batch store init {init}`")
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or _DENIED.search(text):
        if url.startswith("file:"):
            return StoreDenied(f"{where}: not permitted; make the folder writable or choose another store")
        return StoreDenied(
            f"{where}: the credentials are missing, wrong, expired or lack the permission; {_credentials_hint(url)}"
        )
    number = _os_error(error)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(f"{where}: the disk is full; free some space and run again")
    if number in (errno.EACCES, errno.EPERM):
        return StoreDenied(f"{where}: not permitted; make the folder writable or choose another store")
    if number == errno.EROFS:
        return StoreDenied(f"{where}: the file system is read-only; choose another store")
    if is_absent(error):
        return StoreMissing(f"{where}: it is not there")
    if _UNREACHABLE.search(text):
        return StoreError(f"{where}: the endpoint does not answer; check its address and the network, then run again")
    if "without LOCATION" in text or "PermanentRedirect" in text:
        return StoreError(f"{where}: the bucket is in another region; set AWS_REGION to it")
    return StoreError(f"{where}: {summary}")


def _os_error(error: Exception) -> int | None:
    """The errno behind `error`; obstore only tells it in words."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = _OS_ERROR.findall(str(error))
    return int(found[-1]) if found else None


def _credentials_hint(url: str) -> str:
    match url.split("://", 1)[0]:
        case "s3":
            return "check AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (`aws sts get-caller-identity`)"
        case "gs":
            return "check GOOGLE_APPLICATION_CREDENTIALS (`gcloud auth application-default login`)"
        case _:
            return "check AZURE_STORAGE_CONNECTION_STRING or AZURE_STORAGE_ACCOUNT_NAME and its key"
