"""Creates and sets up the S3 bucket of a store: what `eo-batch store init URL` does.

Four things, each idempotent: the bucket, encryption at rest, no public access, and life-cycle rules.

There are two rules. Parts of unfinished uploads go after some days: a killed writer leaves them, they cost money, and
no listing shows them. So do objects that were put with `expires=True`, such as checkpoints. S3 filters by the start of
a key or by tag; checkpoints lie at `<run>/pretrain-<digest>/checkpoints/`, so the start of a key says nothing and the
tag is used. Writing tags takes the permission `s3:PutObjectTagging`. Rules of others in the bucket stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from eo_batch.core.errors import StoreDenied, StoreError, UsageError
from eo_batch.io.backends import AwsCredentials
from eo_batch.io.store import EXPIRES_TAG, parse_store
from eo_batch.settings import Settings, StoreOptions

Outcome = Literal["done", "unchanged", "unsupported", "refused"]
"""`done` now, `unchanged` because it was so before, `unsupported` by this server, `refused` for lack of permission."""

_PROBE = "eo-batch-write-probe"
_RULE_PREFIX = "eo-batch-"
_UNSUPPORTED = frozenset({"NotImplemented", "MethodNotAllowed", "405", "501", "XNotImplemented"})
_REFUSED = frozenset({"AccessDenied", "403", "AllAccessDisabled", "UnauthorizedAccess"})

_MOST_RETRIES = 4
"""Of the requests that set up a bucket: a person waits for them."""


@dataclass(frozen=True)
class BucketPlan:
    """What the bucket shall be like."""

    abort_uploads_after_days: int = 7
    """Age at which parts of unfinished uploads are deleted, days."""
    expire_after_days: int | None = 30
    """Age at which objects put with `expires=True` are deleted, days; None keeps them."""
    kms_key_id: str | None = None
    """KMS key for encryption at rest; None is SSE-S3 (AES-256, keys held by S3)."""

    def __post_init__(self) -> None:
        if self.abort_uploads_after_days < 1:
            raise UsageError(f"abort_uploads_after_days={self.abort_uploads_after_days} is too small; use 1 or more")
        if self.expire_after_days is not None and self.expire_after_days < 1:
            raise UsageError(f"expire_after_days={self.expire_after_days} is too small; use 1 or more, or none")


@dataclass(frozen=True)
class InitStep:
    """One thing that was set up, or why it was not."""

    name: str
    outcome: Outcome
    detail: str
    """What holds now, or the server's own words."""


@dataclass(frozen=True)
class InitReport:
    """What `init_bucket` did."""

    url: str
    steps: tuple[InitStep, ...]

    @property
    def complete(self) -> bool:
        """Whether everything asked for holds now."""
        return all(step.outcome in ("done", "unchanged") for step in self.steps)

    def __str__(self) -> str:
        return "\n".join([self.url, *(f"  {s.name}: {s.outcome} ({s.detail})" for s in self.steps)])


def init_bucket(url: str, settings: Settings, plan: BucketPlan | None = None) -> InitReport:
    """Create the place that `url` names unless it exists, and set it up as `plan` says.

    A step that the server doesn't support or doesn't permit is reported and the others still run. Raises UsageError
    for stores that have their own tool, StoreDenied without usable credentials, StoreError where the bucket's name is
    taken or the endpoint is down.
    """
    store = parse_store(url, settings)
    parts = urlsplit(store.url)
    match parts.scheme:
        case "file":
            _ = store.obs
            return InitReport(store.url, (InitStep("folder", "done", "there and writable stores need no more"),))
        case "s3":
            return _init_s3(parts.netloc, parts.path.strip("/"), store.options, plan or BucketPlan())
        case "gs":
            raise UsageError(
                f"{url}: Google's own tool makes buckets: `gcloud storage buckets create gs://{parts.netloc} "
                "--uniform-bucket-level-access --public-access-prevention`"
            )
        case "az":
            raise UsageError(
                f"{url}: Azure's own tool makes containers: `az storage container create --name {parts.netloc}`"
            )
        case _:
            raise UsageError(f"{url}: an in-memory store needs no set-up")


def _init_s3(bucket: str, prefix: str, options: StoreOptions, plan: BucketPlan) -> InitReport:
    from botocore.exceptions import BotoCoreError

    url = f"s3://{bucket}"
    client = _client(url, options)
    try:
        steps = [_bucket(client, url, bucket, options)]
        steps.append(_step("encryption", lambda: _encryption(client, bucket, prefix, plan)))
        steps.append(_step("public access", lambda: _public_access(client, bucket)))
        steps.append(_step("life cycle", lambda: _life_cycle(client, bucket, _rules(prefix, plan))))
    except BotoCoreError as error:
        raise StoreError(f"{url}: could not set it up: {error}; check endpoint and network, then run again") from error
    return InitReport(url, tuple(steps))


def _client(url: str, options: StoreOptions) -> Any:
    import boto3
    from botocore.config import Config

    AwsCredentials(options.profile).check(url)
    return boto3.Session(profile_name=options.profile).client(
        "s3",
        endpoint_url=options.endpoint,
        region_name=options.region,
        config=Config(
            connect_timeout=options.connect_timeout_s,
            read_timeout=options.read_timeout_s,
            retries={"total_max_attempts": min(options.retries, _MOST_RETRIES) + 1, "mode": "standard"},
            s3={"addressing_style": "virtual" if options.virtual_hosted else "path"},
        ),
    )


def _bucket(client: Any, url: str, bucket: str, options: StoreOptions) -> InitStep:
    from botocore.exceptions import ClientError

    try:
        client.head_bucket(Bucket=bucket)
        return InitStep("bucket", "unchanged", "it is there")
    except ClientError as error:
        code = _code(error)
        if code in ("403", "AccessDenied"):
            raise StoreDenied(
                f"{url}: the bucket belongs to someone else, or the credentials are wrong; choose another name or "
                "check AWS_PROFILE (`aws sts get-caller-identity`)"
            ) from error
        if code in ("301", "PermanentRedirect"):
            raise StoreError(f"{url}: the bucket is in another region; set AWS_REGION to it") from error
        if code not in ("404", "NoSuchBucket"):
            raise StoreError(f"{url}: could not look at the bucket: {error}") from error
    region = client.meta.region_name
    # S3 takes us-east-1 as the absence of a constraint, and refuses it as a value.
    where = {} if region in (None, "us-east-1") else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    try:
        client.create_bucket(Bucket=bucket, **where)
    except ClientError as error:
        if _code(error) in ("BucketAlreadyExists", "OperationAborted"):
            raise StoreError(f"{url}: the name is taken; choose another") from error
        if _code(error) in _REFUSED:
            raise StoreDenied(
                f"{url}: not permitted to create buckets (s3:CreateBucket); ask an administrator"
            ) from error
        raise StoreError(f"{url}: could not create the bucket: {error}") from error
    return InitStep("bucket", "done", f"created in {region or 'us-east-1'}")


def _step(name: str, work: Callable[[], tuple[Outcome, str]]) -> InitStep:
    from botocore.exceptions import ClientError

    try:
        return InitStep(name, *work())
    except ClientError as error:
        if _code(error) in _UNSUPPORTED:
            return InitStep(name, "unsupported", f"the server answers {_code(error)}")
        if _code(error) in _REFUSED:
            return InitStep(name, "refused", f"{error.operation_name} is not permitted to these credentials")
        raise StoreError(f"could not set up {name}: {error}") from error


def _encryption(client: Any, bucket: str, prefix: str, plan: BucketPlan) -> tuple[Outcome, str]:
    """Turn on encryption, and off again where the server takes the setting but can't write with it.

    Some S3 servers do that (SeaweedFS without a key of its own): every write would fail from then on.
    """
    from botocore.exceptions import ClientError

    wanted: dict[str, Any] = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    says = "SSE-S3"
    if plan.kms_key_id is not None:
        key = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": plan.kms_key_id}
        # A bucket key spares one KMS request for every object.
        wanted = {"ApplyServerSideEncryptionByDefault": key, "BucketKeyEnabled": True}
        says = f"SSE-KMS with {plan.kms_key_id}"
    found = _found(
        lambda: client.get_bucket_encryption(Bucket=bucket), "ServerSideEncryptionConfigurationNotFoundError"
    )
    rules = found.get("ServerSideEncryptionConfiguration", {}).get("Rules", [])
    if any(rule.get("ApplyServerSideEncryptionByDefault") == next(iter(wanted.values())) for rule in rules):
        return "unchanged", says
    client.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [wanted]})
    probe = f"{prefix}/{_PROBE}" if prefix else _PROBE
    try:
        client.put_object(Bucket=bucket, Key=probe, Body=b"")
    except ClientError as error:
        if rules:
            client.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": rules})
        else:
            client.delete_bucket_encryption(Bucket=bucket)
        return "unsupported", f"writing with {says} fails ({_code(error)}), so the setting was taken back"
    client.delete_object(Bucket=bucket, Key=probe)
    return "done", says


def _public_access(client: Any, bucket: str) -> tuple[Outcome, str]:
    names = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    wanted = dict.fromkeys(names, True)
    found = _found(lambda: client.get_public_access_block(Bucket=bucket), "NoSuchPublicAccessBlockConfiguration")
    if found.get("PublicAccessBlockConfiguration") == wanted:
        return "unchanged", "blocked"
    client.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=wanted)
    return "done", "blocked"


def _rules(prefix: str, plan: BucketPlan) -> list[dict[str, Any]]:
    """Our rules for the part of the bucket below `prefix`; the id tells several prefixes apart."""
    below = f"{prefix}/" if prefix else ""
    mark = f"-{prefix.replace('/', '-')}" if prefix else ""
    rules: list[dict[str, Any]] = [
        {
            "ID": f"{_RULE_PREFIX}unfinished-uploads{mark}",
            "Status": "Enabled",
            "Filter": {"Prefix": below},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": plan.abort_uploads_after_days},
        }
    ]
    if plan.expire_after_days is not None:
        tag = dict(zip(("Key", "Value"), EXPIRES_TAG, strict=True))
        rules.append(
            {
                "ID": f"{_RULE_PREFIX}expires{mark}",
                "Status": "Enabled",
                "Filter": {"And": {"Prefix": below, "Tags": [tag]}} if below else {"Tag": tag},
                "Expiration": {"Days": plan.expire_after_days},
            }
        )
    return rules


def _life_cycle(client: Any, bucket: str, ours: list[dict[str, Any]]) -> tuple[Outcome, str]:
    found = _found(lambda: client.get_bucket_lifecycle_configuration(Bucket=bucket), "NoSuchLifecycleConfiguration")
    before = found.get("Rules", [])
    replaced = {_place(rule) for rule in ours}
    others = [rule for rule in before if _place(rule) not in replaced]
    says = ", ".join(rule["ID"] for rule in ours)
    if all(rule in before for rule in ours):
        return "unchanged", says
    client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [*others, *ours]})
    return "done", says


def _place(rule: dict[str, Any]) -> str:
    return str(rule.get("ID", ""))


def _found(ask: Callable[[], dict[str, Any]], absent: str) -> dict[str, Any]:
    """The answer of `ask`; empty where the server says by the code `absent` that nothing is configured."""
    from botocore.exceptions import ClientError

    try:
        return ask()
    except ClientError as error:
        if _code(error) == absent:
            return {}
        raise


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
