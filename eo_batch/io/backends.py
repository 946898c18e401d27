"""Opens obstore clients: one function for each kind of store.

obstore does the transfers; boto3 finds AWS credentials (profiles, SSO, roles, instance metadata) and renews them.
"""

from __future__ import annotations

import json
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from obstore.store import AzureStore, GCSStore, HTTPStore, LocalStore, MemoryStore, S3Store

from eo_batch.core.errors import StoreDenied, StoreError, StoreMissing, UsageError
from eo_batch.settings import StoreOptions, azure_secret

if TYPE_CHECKING:
    from collections.abc import Callable

    from obstore.store import (
        AzureAccessKey,
        AzureConfig,
        AzureSASToken,
        ClientConfig,
        GCSConfig,
        RetryConfig,
        S3Config,
        S3Credential,
    )

    S3Provider = Callable[[], S3Credential]
    AzureProvider = Callable[[], AzureSASToken]

_CREDENTIAL_LIFE = timedelta(minutes=10)
"""How long obstore keeps a credential before it asks boto3 again, which renews those about to expire."""

_memory: dict[str, MemoryStore] = {}
_memory_lock = threading.Lock()


_threads_of: list[int] = []
"""The process whose obstore threads these are; empty until the first client is opened."""


def refuse_fork() -> None:
    """Raises StoreError in a process that was forked from one that had used a store.

    obstore's threads do not survive a fork, and a call would wait for them for ever. Spawned processes are fine.
    """
    if not _threads_of:
        _threads_of.append(os.getpid())
    elif _threads_of[0] != os.getpid():
        raise StoreError("a store can't be used after a fork; start processes with the method `spawn` or `forkserver`")


def open_memory(name: str) -> MemoryStore:
    """The in-memory store called `name`; one name is one store for the life of the process."""
    with _memory_lock:
        return _memory.setdefault(name, MemoryStore())


def open_local(folder: Path, *, create: bool) -> LocalStore:
    """The folder as a store. Raises StoreMissing where it is not there and `create` is False."""
    if not create and not folder.is_dir():
        raise StoreMissing(f"{folder.as_uri()}: the folder is not there; check the path")
    return LocalStore(folder, mkdir=create)


def open_s3(bucket: str, prefix: str, options: StoreOptions, given: S3Provider | None = None) -> S3Store:
    """An S3 bucket, seen below `prefix`, with credentials `given` or those that boto3 finds.

    Raises StoreDenied where no credentials can be found.
    """
    config: S3Config = {
        "region": options.region or "us-east-1",
        "virtual_hosted_style_request": options.virtual_hosted,
        "request_payer": options.request_payer,
    }
    if options.endpoint is not None:
        config["endpoint"] = options.endpoint
    provider = given
    if given is None and options.anonymous:
        config["skip_signature"] = True
    elif given is None:
        provider = found = AwsCredentials(options.profile)
        found.check(f"s3://{bucket}")
        if options.region is None and found.region is not None:
            config["region"] = found.region
    return S3Store(
        bucket,
        prefix=prefix or None,
        config=config,
        client_options=_client(options),
        retry_config=_retry(options),
        credential_provider=provider,
    )


def open_gcs(bucket: str, prefix: str, options: StoreOptions) -> GCSStore:
    """A GCS bucket, seen below `prefix`, with Google's application default credentials."""
    config: GCSConfig = {}
    if options.gcs_endpoint is not None:
        # The service account file is the only place where the Google client takes a base URL and "no OAuth" from.
        emulator = {"gcs_base_url": options.gcs_endpoint, "disable_oauth": True}
        empty = {"client_email": "", "private_key": "", "private_key_id": ""}
        config["service_account_key"] = json.dumps(emulator | empty)
    elif options.anonymous:
        config["skip_signature"] = True
    return GCSStore(
        bucket, prefix=prefix or None, config=config, client_options=_client(options), retry_config=_retry(options)
    )


def open_blobs(
    endpoint: str, account: str, container: str, provider: AzureProvider, options: StoreOptions
) -> AzureStore:
    """A container of somebody else's Azure account, whose tokens `provider` gives."""
    client = _client(options)
    client["allow_http"] = endpoint.startswith("http://")
    return AzureStore(
        container,
        config={"account_name": account, "endpoint": endpoint},
        client_options=client,
        retry_config=_retry(options),
        credential_provider=provider,
    )


def open_azure(container: str, prefix: str, options: StoreOptions) -> AzureStore:
    """An Azure container, seen below `prefix`."""
    config: AzureConfig = {}
    if options.azure_account is None:
        raise UsageError(
            f"az://{container}: no storage account; set AZURE_STORAGE_CONNECTION_STRING or AZURE_STORAGE_ACCOUNT_NAME"
        )
    config["account_name"] = options.azure_account
    if options.azure_endpoint is not None:
        config["endpoint"] = options.azure_endpoint
    provider = None
    if options.anonymous:
        config["skip_signature"] = True
    elif AzureCredentials.found():
        provider = AzureCredentials()
    return AzureStore(
        container,
        prefix=prefix or None,
        config=config,
        client_options=_client(options),
        retry_config=_retry(options),
        credential_provider=provider,
    )


def open_http(origin: str, query: str, options: StoreOptions, bearer: str | None = None) -> HTTPStore:
    """A web server, `scheme://host`; every request carries `query`, and `bearer` as its authorization."""
    client = _client(options)
    client["allow_http"] = origin.startswith("http://")
    if bearer is not None:
        client["default_headers"] = {"authorization": f"Bearer {bearer}"}
    return HTTPStore(f"{origin}/" + (f"?{query}" if query else ""), client_options=client, retry_config=_retry(options))


class AwsCredentials:
    """obstore's credential provider on top of boto3's chain. Pickles as the profile's name alone."""

    def __init__(self, profile: str | None) -> None:
        self._profile = profile
        self._session: Any = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[AwsCredentials], tuple[str | None]]:
        return AwsCredentials, (self._profile,)

    def __repr__(self) -> str:
        return f"AwsCredentials(profile={self._profile!r})"

    def __call__(self) -> S3Credential:
        found = self._open().get_credentials()
        if found is None:
            raise StoreDenied("no AWS credentials found")
        frozen = found.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + _CREDENTIAL_LIFE,
        }

    @property
    def region(self) -> str | None:
        """Region of the profile."""
        region: str | None = self._open().region_name
        return region

    def check(self, url: str) -> None:
        """Raises StoreDenied, naming `url` and the remedy, where there are no credentials, or only half of them."""
        from botocore.exceptions import PartialCredentialsError

        try:
            found = self._open().get_credentials()
        except PartialCredentialsError as error:
            raise StoreDenied(f"{url}: AWS credentials are incomplete: {error}; set what is missing") from error
        if found is None:
            raise StoreDenied(
                f"{url}: no AWS credentials found; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or EO_BATCH_ANONYMOUS=1 for a public bucket"
            )

    def _open(self) -> Any:
        """A boto3 session; boto3 is imported only where S3 is used, because it takes a while."""
        import boto3
        from botocore.exceptions import ProfileNotFound

        with self._lock:
            if self._session is None:
                try:
                    self._session = boto3.Session(profile_name=self._profile)
                except ProfileNotFound as error:
                    raise StoreDenied(f"AWS_PROFILE={self._profile!r} is not in ~/.aws/config") from error
            return self._session


class AzureCredentials:
    """obstore's credential provider on top of the environment; pickles without the secret."""

    @staticmethod
    def found() -> bool:
        """Whether the environment holds a key or a SAS token (else obstore tries managed identities)."""
        secret = azure_secret()
        return bool(secret.account_key or secret.sas_token)

    def __call__(self) -> AzureAccessKey | AzureSASToken:
        secret = azure_secret()
        if secret.account_key:
            return {"access_key": secret.account_key, "expires_at": None}
        return {"sas_token": secret.sas_token or "", "expires_at": None}


def _client(options: StoreOptions) -> ClientConfig:
    return {
        "allow_http": options.allow_http,
        "connect_timeout": timedelta(seconds=options.connect_timeout_s),
        "read_timeout": timedelta(seconds=options.read_timeout_s),
        "timeout": timedelta(minutes=10),
        "user_agent": "eo-batch",
    }


def _retry(options: StoreOptions) -> RetryConfig:
    """Bounded by attempts, so that a dead endpoint fails soon while a stalled request may still be repeated."""
    return {
        "max_retries": options.retries,
        "retry_timeout": timedelta(seconds=120),
        "backoff": {"init_backoff": timedelta(seconds=0.2), "max_backoff": timedelta(seconds=2), "base": 3},
    }
