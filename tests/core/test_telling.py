"""What messages show of addresses and of errors."""

import pytest

from eo_batch.core.telling import one_line, shown


@pytest.mark.parametrize(
    ("href", "expected"),
    [
        ("https://x/a.tif?sig=SECRET", "https://x/a.tif"),
        ("https://user:SECRET@x/a.tif", "https://x/a.tif"),
        ("https://x/a.tif?sig=SECRET#4", "https://x/a.tif#4"),
        ("s3://b/a.zarr?sig=SECRET#ndvi@2023-05-01T00:00:00Z", "s3://b/a.zarr#ndvi@2023-05-01T00:00:00Z"),
        ("/a/b.tif", "/a/b.tif"),
    ],
)
def test_addresses_have_no_secrets_and_keep_their_parts(href: str, expected: str) -> None:
    assert shown(href) == expected


def test_errors_are_one_line_without_secrets() -> None:
    assert one_line(ValueError("bad https://x/a.tif?sig=SECRET then s3://u:SECRET@b/c\nmore")) == (
        "bad https://x/a.tif?… then s3://b/c"
    )
    assert one_line(KeyError()) == "KeyError"
