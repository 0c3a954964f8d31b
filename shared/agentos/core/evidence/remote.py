"""The object stores behind URLs, by fsspec. One client for each scheme and process, used from any thread."""

import functools
import os
from typing import Any

_S3 = {
    # What another host wrote or deleted a moment ago counts: nothing is remembered.
    "use_listings_cache": False,
    "skip_instance_cache": True,
    "config_kwargs": {"connect_timeout": 5, "read_timeout": 15, "retries": {"max_attempts": 2}},
}
"""Endpoint, region and credentials are those of the environment, as every S3 client reads it: AWS_ENDPOINT_URL, ..."""


def filesystem(url: str) -> Any:
    """The fsspec filesystem of a normal URL. Raises ImportError: if the package for it is not installed."""
    return _filesystem(url.partition("://")[0], os.getpid())


@functools.cache
def _filesystem(scheme: str, _process: int) -> Any:
    import fsspec  # noqa: PLC0415  start-up: most programs name no URL

    return fsspec.filesystem(scheme, **(_S3 if scheme == "s3" else {}))
