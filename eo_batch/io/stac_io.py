"""What stands between pystac-client and an API: bounded retries, and no page that passes for the last by mistake."""

from typing import Any

from pystac_client.stac_api_io import StacApiIO
from urllib3 import Retry

_PASSING = (429, 500, 502, 503, 504)
"""Statuses that pass."""
_TIMEOUT_S = (5.0, 60.0)
"""To connect, and between bytes."""


class StrictStacIO(StacApiIO):
    """pystac-client takes an answer without items for the end of the list; this refuses answers that are none."""

    def __init__(self, retries: int) -> None:
        """retries: repeats of a request, with waits of 0, 2, 4, 8 … s before them."""
        retry = Retry(
            retries,
            backoff_factor=1,
            status_forcelist=_PASSING,
            allowed_methods=None,  # searching changes nothing, so a POST may be repeated like a GET
            respect_retry_after_header=False,  # it may ask for hours
        )
        super().__init__(max_retries=retry, timeout=_TIMEOUT_S)

    def read_json(self, source: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Raises TypeError for JSON that is neither a STAC object nor a page of a list."""
        answer = super().read_json(source, *args, **kwargs)
        if not isinstance(answer, dict):
            raise TypeError("JSON that is no object")
        lists = [answer.get("features"), answer.get("collections")]
        if "stac_version" not in answer and not any(isinstance(found, list) for found in lists):
            raise TypeError("a page of results without results")
        return answer
