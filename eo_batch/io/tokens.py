"""Tokens and keys that other people's archives hand out for a while: obstore's own providers, kept from hanging,
from telling secrets, and from being used up to the last second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from eo_batch.settings import earthdata_login, planetary_computer_key

if TYPE_CHECKING:
    import requests

_USED_SHARE = 0.8
"""Share of its life that a token is used for: requests that begin with it must be able to end."""
_SKEWED_S = 60.0
"""Seconds that a token is used that has expired by this machine's clock, which then is wrong; a refusal tells more."""
_PUBLIC_S = 3600.0
"""Seconds until a container without a token is asked for again."""
_TRIES = 2
"""Whoever waits for a token tries again by itself."""
_TIMEOUT_S = (5.0, 15.0)
"""To connect, and between bytes."""


class TokenUnavailable(Exception):
    """The place that gives tokens does not answer; another try may pass. obstore passes on the name, not the class."""


class TokenRefused(Exception):
    """The place that gives tokens says no."""


class Renewing:
    """obstore asks this for a token whenever the last one has been used for most of its life."""

    refresh_threshold = timedelta(0)

    def __init__(
        self, where: str, ask: Callable[[], Mapping[str, Any]], public: Mapping[str, Any] | None = None
    ) -> None:
        """public: what stands for no token, where the place that gives them does not know what is asked for."""
        self._where, self._ask, self._public = where, ask, public

    def __call__(self) -> Any:
        """obstore's `AzureSASToken` or `S3Credential`. Raises TokenRefused, TokenUnavailable."""
        import requests

        try:
            token = self._ask()
        except requests.RequestException as error:
            answer = error.response
            if answer is not None and answer.status_code == 404 and self._public is not None:
                return {**self._public, "expires_at": datetime.now(UTC) + timedelta(seconds=_PUBLIC_S)}
            what = f"{self._where}: {f'status {answer.status_code}' if answer is not None else type(error).__name__}"
            if answer is not None and 400 <= answer.status_code < 500 and answer.status_code != 429:
                raise TokenRefused(f"no token from {what}") from None
            raise TokenUnavailable(f"no token from {what}") from None
        except (KeyError, TypeError, ValueError):
            raise TokenUnavailable(f"no token from {self._where}: the answer holds none") from None
        now = datetime.now(UTC)
        end = token["expires_at"]
        left_s = (end - now).total_seconds()
        return {**token, "expires_at": now + timedelta(seconds=_USED_SHARE * left_s if left_s > 0 else _SKEWED_S)}


def blob_tokens(sas_url: str, account: str, container: str) -> Renewing:
    """Planetary Computer's tokens for one container; none where it does not know the account (then it is public)."""
    from obstore.auth.planetary_computer import PlanetaryComputerCredentialProvider

    provider = PlanetaryComputerCredentialProvider(
        account_name=account,
        container_name=container,
        session=_session(),
        subscription_key=planetary_computer_key(),
        sas_url=sas_url,
    )
    return Renewing(f"{sas_url}/{account}/{container}", provider, {"sas_token": ""})


def earthdata_keys(credentials_url: str) -> Renewing:
    """NASA Earthdata's keys for the buckets of one archive, which live an hour and work in us-west-2 only."""
    from obstore.auth.earthdata import NasaEarthdataCredentialProvider

    provider = NasaEarthdataCredentialProvider(credentials_url, auth=earthdata_login(), session=_session())
    return Renewing(credentials_url, provider)


def _session() -> requests.Session:
    """A session that does not wait for ever."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3 import Retry

    class Timed(HTTPAdapter):
        def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
            return super().send(request, *args, **{**options, "timeout": options.get("timeout") or _TIMEOUT_S})

    retry = Retry(
        _TRIES - 1,
        backoff_factor=0.5,
        backoff_jitter=0.5,
        backoff_max=5,
        status_forcelist=(429, 500, 502, 503, 504),
        respect_retry_after_header=False,  # it may ask for hours
        raise_on_status=False,
    )
    session = requests.Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, Timed(max_retries=retry))
    return session
