"""The one module that reads the environment and finds credentials.

Everything else takes a `Settings`, which holds no secret: credentials are looked up in the process that needs
them, at the moment it needs them, so that nothing secret is pickled, logged or written to a store.

| variable | what it sets |
|---|---|
| `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL` | S3 endpoint (the first one wins) |
| `AWS_REGION`, `AWS_DEFAULT_REGION`, `AWS_PROFILE` | region and profile |
| `AWS_REQUEST_PAYER` | `requester`: pay for reading requester-pays buckets |
| `AWS_VIRTUAL_HOSTED_STYLE_REQUEST` | bucket name in the host instead of the path |
| `STORAGE_EMULATOR_HOST` | URL of a GCS emulator |
| `AZURE_STORAGE_CONNECTION_STRING` | account, key or SAS, and endpoint of Azure Blob Storage |
| `AZURE_STORAGE_ACCOUNT_NAME`, `AZURE_STORAGE_ACCOUNT_KEY`, `AZURE_STORAGE_SAS_TOKEN` | the same, one by one |
| `EO_BATCH_ANONYMOUS` | `1`: no credentials at all for the store |
| `EO_BATCH_ASSETS_ANONYMOUS` | `0`: sign requests for `s3://`, `gs://`, `az://` assets (default: unsigned) |
| `EO_BATCH_ASSETS_ENDPOINT`, `EO_BATCH_ASSETS_REGION` | where `s3://` assets live, if not where the store does |
| `EO_BATCH_ASSETS_ACCESS` | rows in front of the table of who signs what (`io.assets`), as `origin=how`, with commas |
| `EO_BATCH_ASSETS_SAS_URL` | where tokens for Azure blobs are asked for (default: Planetary Computer) |
| `EO_BATCH_ASSETS_STALL_S`, `EO_BATCH_ASSETS_PATIENCE_S` | time-outs of reading, seconds (`Settings`) |
| `PC_SDK_SUBSCRIPTION_KEY` | Planetary Computer: fewer limits on how many tokens are given out |
| `EARTHDATA_TOKEN`, or `EARTHDATA_USERNAME` and `EARTHDATA_PASSWORD` | NASA Earthdata; else `~/.netrc` (`s3://` only) |
| `EO_BATCH_WORKERS`, `EO_BATCH_INFLIGHT_BYTES`, `EO_BATCH_RETRIES` | knobs |
| `WORLD_SIZE`, `RANK`, `LOCAL_RANK`, `MASTER_ADDR`, `MASTER_PORT` | processes that train together; torchrun sets them |
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from eo_batch.core.errors import UsageError

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"", "0", "false", "no", "off"})


@dataclass(frozen=True)
class StoreOptions:
    """How to reach object stores. Holds names and addresses, never a secret; hashable and picklable."""

    endpoint: str | None = None
    """S3 endpoint URL; None is AWS itself."""
    region: str | None = None
    """AWS region; None lets the AWS profile decide, and `us-east-1` after that."""
    profile: str | None = None
    """AWS profile whose credentials are used; None is boto3's default chain."""
    virtual_hosted: bool = False
    """Whether the bucket goes into the host name; path style works on every S3 server with one address."""
    request_payer: bool = False
    """Whether to agree to pay for requester-pays buckets."""
    anonymous: bool = False
    """Whether to send no credentials at all."""
    gcs_endpoint: str | None = None
    """URL of a GCS emulator; None is Google Cloud Storage."""
    azure_account: str | None = None
    """Azure storage account name."""
    azure_endpoint: str | None = None
    """Blob endpoint of the account, for emulators and sovereign clouds; None is the public cloud."""
    retries: int = 10
    """How often one request is repeated after a 5xx, 429, reset or time-out. Ten times outlast a server that restarts:
    with the pauses of `io.backends` they take 12 s, and seldom less than 5 s."""
    connect_timeout_s: float = 2.5
    """Seconds until a connection counts as failed."""
    read_timeout_s: float = 30.0
    """Seconds without a byte until a request counts as stalled; it does not limit long transfers."""

    @property
    def allow_http(self) -> bool:
        """Whether any configured endpoint is unencrypted (only then is plain http allowed)."""
        given = (self.endpoint, self.gcs_endpoint, self.azure_endpoint)
        return any(url is not None and url.startswith("http://") for url in given)


ACCESS = ("unsigned", "signed", "requester-pays", "planetary-computer", "earthdata")
"""Ways to be let in to files; an address that begins with https:// is a fifth: it gives Earthdata's keys for S3."""


@dataclass(frozen=True)
class Ranks:
    """Which of several processes that train together this one is, as torchrun tells each of them."""

    rank: int
    """Number of this process, from 0."""
    world_size: int
    """Number of processes."""
    local_rank: int
    """Number of this process among those on its machine."""
    master_addr: str
    """Host where process 0 is met."""
    master_port: int
    """Its port."""


@dataclass(frozen=True)
class Settings:
    """Everything that the surroundings of a process decide. Hashable, picklable, without secrets."""

    store: StoreOptions = field(default_factory=StoreOptions)
    """How the store of runs is reached."""
    assets: StoreOptions = field(default_factory=lambda: StoreOptions(anonymous=True))
    """How assets named by catalogues are reached."""
    assets_access: tuple[tuple[str, str], ...] = ()
    """Rows (origin, way in) that come before the table in `io.assets`."""
    assets_sas_url: str = "https://planetarycomputer.microsoft.com/api/sas/v1/token"
    """Where tokens for Azure blobs are asked for."""
    assets_stall_s: float = 60.0
    """Seconds after which a request of a file counts as stalled though bytes trickle in; what else is in flight adds to
    it (`io.fetch`)."""
    assets_patience_s: float = 120.0
    """Seconds that one shard waits, in all, for sources of which none answers."""
    workers: int | None = None
    """Worker processes of the local runner; None is one for each core."""
    inflight_bytes: int = 256 * 2**20
    """Bytes of range requests that one process keeps in flight."""
    ranks: Ranks | None = None
    """Place among several processes that train together; None is a process by itself."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read settings from `environ`, or from this process's environment if None.

        Raises UsageError, naming variable, value and remedy, where a value can't be read.
        """
        env = os.environ if environ is None else environ
        azure = _azure_parts(env)
        given = _integer(env, "EO_BATCH_RETRIES", least=0)
        retries = StoreOptions.retries if given is None else given
        endpoint = _url(env, "AWS_ENDPOINT_URL_S3") or _url(env, "AWS_ENDPOINT_URL")
        region = env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION") or None
        gcs_endpoint = _gcs_emulator(env)

        def options(anonymous: bool, endpoint: str | None, region: str | None) -> StoreOptions:
            return StoreOptions(
                endpoint=endpoint,
                region=region,
                profile=env.get("AWS_PROFILE") or None,
                virtual_hosted=_flag(env, "AWS_VIRTUAL_HOSTED_STYLE_REQUEST", default=False),
                request_payer=env.get("AWS_REQUEST_PAYER", "").lower() in _TRUE | {"requester"},
                anonymous=anonymous,
                gcs_endpoint=gcs_endpoint,
                azure_account=azure.account,
                azure_endpoint=azure.endpoint,
                retries=retries,
            )

        return cls(
            store=options(_flag(env, "EO_BATCH_ANONYMOUS", default=False), endpoint, region),
            assets=options(
                _flag(env, "EO_BATCH_ASSETS_ANONYMOUS", default=True),
                _url(env, "EO_BATCH_ASSETS_ENDPOINT") or endpoint,
                env.get("EO_BATCH_ASSETS_REGION") or region,
            ),
            assets_access=_access(env),
            assets_sas_url=_url(env, "EO_BATCH_ASSETS_SAS_URL") or cls.assets_sas_url,
            assets_stall_s=_seconds(env, "EO_BATCH_ASSETS_STALL_S", cls.assets_stall_s),
            assets_patience_s=_seconds(env, "EO_BATCH_ASSETS_PATIENCE_S", cls.assets_patience_s),
            workers=_integer(env, "EO_BATCH_WORKERS", least=1),
            inflight_bytes=_integer(env, "EO_BATCH_INFLIGHT_BYTES", least=2**20) or 256 * 2**20,
            ranks=_ranks(env),
        )


@dataclass(frozen=True)
class AzureSecret:
    """Key or SAS token of an Azure storage account; its repr shows neither."""

    account_key: str | None = field(default=None, repr=False)
    """Base64 account key."""
    sas_token: str | None = field(default=None, repr=False)
    """Shared access signature, without a leading question mark."""


def azure_secret(environ: Mapping[str, str] | None = None) -> AzureSecret:
    """The Azure credentials of `environ` (this process's environment if None); empty where there are none."""
    return _azure_parts(os.environ if environ is None else environ).secret


def planetary_computer_key() -> str | None:
    """This process's subscription key of Planetary Computer, if it has one."""
    return os.environ.get("PC_SDK_SUBSCRIPTION_KEY") or None


def earthdata_login() -> str | tuple[str, str] | None:
    """This process's Earthdata token, or else user and password; None leaves `~/.netrc`."""
    token, user = os.environ.get("EARTHDATA_TOKEN"), os.environ.get("EARTHDATA_USERNAME")
    password = os.environ.get("EARTHDATA_PASSWORD")
    return token or ((user, password) if user and password else None)


@dataclass(frozen=True)
class _AzureParts:
    account: str | None
    endpoint: str | None
    secret: AzureSecret


def _azure_parts(env: Mapping[str, str]) -> _AzureParts:
    """Account, blob endpoint and secret from a connection string, or else from the single variables."""
    text = env.get("AZURE_STORAGE_CONNECTION_STRING", "")
    parts = dict(part.split("=", 1) for part in text.split(";") if "=" in part)
    if text and not {"AccountName", "BlobEndpoint"} & parts.keys():
        raise UsageError(
            "AZURE_STORAGE_CONNECTION_STRING has neither AccountName nor BlobEndpoint; copy it whole from the portal"
        )
    account = parts.get("AccountName") or env.get("AZURE_STORAGE_ACCOUNT_NAME") or None
    endpoint = parts.get("BlobEndpoint") or None
    suffix = parts.get("EndpointSuffix", "core.windows.net")
    if endpoint is None and account is not None and suffix != "core.windows.net":
        endpoint = f"{parts.get('DefaultEndpointsProtocol', 'https')}://{account}.blob.{suffix}"
    sas = parts.get("SharedAccessSignature") or env.get("AZURE_STORAGE_SAS_TOKEN") or None
    secret = AzureSecret(
        account_key=parts.get("AccountKey") or env.get("AZURE_STORAGE_ACCOUNT_KEY") or None,
        sas_token=sas.lstrip("?") if sas else None,
    )
    return _AzureParts(account, endpoint.rstrip("/") if endpoint else None, secret)


def _ranks(env: Mapping[str, str]) -> Ranks | None:
    size = _integer(env, "WORLD_SIZE", least=1)
    if size is None or size == 1:
        return None
    rank, port = _integer(env, "RANK", least=0), _integer(env, "MASTER_PORT", least=1)
    address = env.get("MASTER_ADDR")
    if rank is None or port is None or not address:
        raise UsageError(
            f"WORLD_SIZE={size} needs RANK, MASTER_ADDR and MASTER_PORT beside it; start with torchrun, which sets all "
            "of them, or unset WORLD_SIZE"
        )
    if rank >= size:
        raise UsageError(f"RANK={rank} is not below WORLD_SIZE={size}; ranks count from 0")
    return Ranks(rank, size, _integer(env, "LOCAL_RANK", least=0) or 0, address, port)


def keep_cublas_deterministic() -> None:
    """Let cuBLAS, which torch multiplies with on GPUs, give the same bits every time.

    It reads CUBLAS_WORKSPACE_CONFIG when it is first used, and torch's deterministic mode refuses to multiply without
    it. A value that is set already stays.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def _gcs_emulator(env: Mapping[str, str]) -> str | None:
    """URL of the GCS emulator; Google's own clients also accept a bare `host:port`."""
    host = env.get("STORAGE_EMULATOR_HOST", "").rstrip("/")
    if not host:
        return None
    return host if "://" in host else f"http://{host}"


def _flag(env: Mapping[str, str], name: str, *, default: bool) -> bool:
    text = env.get(name)
    if text is None:
        return default
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise UsageError(f"{name}={text!r} is neither yes nor no; use 1 or 0")


def _integer(env: Mapping[str, str], name: str, *, least: int) -> int | None:
    text = env.get(name)
    if not text:
        return None
    try:
        value = int(text)
    except ValueError:
        raise UsageError(f"{name}={text!r} is not a whole number; use {least} or more") from None
    if value < least:
        raise UsageError(f"{name}={value} is too small; use {least} or more")
    return value


def _seconds(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise UsageError(f"{name}={text!r} is no number of seconds above 0; use {default:g}")
    return value


def _access(env: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    rows = []
    for row in env.get("EO_BATCH_ASSETS_ACCESS", "").replace(",", " ").split():
        origin, _, how = row.rpartition("=")
        if "://" not in origin or not (how in ACCESS or how.startswith(("https://", "http://"))):
            raise UsageError(
                f"EO_BATCH_ASSETS_ACCESS: {row!r} is not origin=how, as in s3://bucket=requester-pays; "
                f"how is {', '.join(ACCESS)}, or the address that gives Earthdata's keys for S3"
            )
        rows.append((origin.rstrip("/"), how))
    return tuple(rows)


def _url(env: Mapping[str, str], name: str) -> str | None:
    text = env.get(name, "").rstrip("/")
    if text and not text.startswith(("http://", "https://")):
        raise UsageError(f"{name} has to start with http:// or https://")
    return text or None


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
