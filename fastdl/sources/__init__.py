"""Where objects come from: a source turns a URL and credentials into requests, and answers into facts."""

from __future__ import annotations

from fastdl.errors import UsageError
from fastdl.sources.base import Source
from fastdl.sources.http import HttpSource

__all__ = ["Source", "resolve"]


def resolve(
    url: str,
    headers: tuple[tuple[str, str], ...] = (),
    *,
    endpoint_url: str | None = None,
    region: str | None = None,
    addressing: str = "auto",
    sign: bool = True,
    version_id: str | None = None,
    credentials: object | None = None,
) -> Source:
    """Return the source that ``url`` names: ``http://``, ``https://`` or ``oss://bucket/key``.

    Raises:
        UsageError: no source knows such a URL, or it lacks what it needs.
        AccessDenied: there are no credentials to sign with.
    """
    scheme = url.partition("://")[0].lower()
    if scheme in ("http", "https"):
        return HttpSource(url, headers)
    if scheme == "oss":
        from fastdl.sources.oss import open_oss  # noqa: PLC0415 - the SDK costs 250 ms, and only oss:// needs it

        return open_oss(
            url,
            headers,
            endpoint_url=endpoint_url,
            region=region,
            addressing=addressing,
            sign=sign,
            version_id=version_id,
            credentials=credentials,
        )
    raise UsageError("only http://, https:// and oss:// URLs are known")
