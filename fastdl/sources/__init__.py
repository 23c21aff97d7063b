"""Where objects come from: a source turns a URL and credentials into requests, and answers into facts."""

from __future__ import annotations

from fastdl import arguments
from fastdl.errors import UsageError
from fastdl.sources.base import Source
from fastdl.sources.http import HttpSource
from fastdl.sources.oss_restore import Restoring

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
    profile: str | None = None,
    request_payer: str | None = None,
    traffic_limit: int | None = None,
    restore: bool = False,
    wait: bool = False,
    restore_days: int = 1,
    credentials: object | None = None,
) -> Source:
    """Return the source that ``url`` names: ``http://``, ``https://``, ``oss://``, ``s3://`` or ``hf://``.

    Raises:
        UsageError: no source knows such a URL, or it lacks what it needs.
        AccessDenied: there are no credentials to sign with.
    """
    texts = {"endpoint_url": endpoint_url, "region": region, "addressing": addressing, "version_id": version_id}
    for name, value in {"url": url, **texts, "profile": profile, "request_payer": request_payer}.items():
        if value is not None or name in ("url", "addressing"):
            arguments.text(name, value)
    arguments.whole("restore_days", restore_days)
    scheme = url.partition("://")[0].lower()
    restoring = Restoring(restore, wait, restore_days)
    if scheme != "oss" and (restore or traffic_limit is not None):
        raise UsageError("only OSS restores objects and limits traffic, by an oss:// URL; elsewhere use --limit-rate")
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
            profile=profile,
            request_payer=request_payer,
            traffic_limit=traffic_limit,
            restoring=restoring,
            credentials=credentials,
        )
    if scheme == "s3":
        from fastdl.sources.s3 import open_s3  # noqa: PLC0415 - botocore costs 150 ms, and only s3:// needs it

        return open_s3(
            url,
            headers,
            endpoint_url=endpoint_url,
            region=region,
            addressing=addressing,
            sign=sign,
            version_id=version_id,
            credentials=credentials,
            profile=profile,
            request_payer=request_payer,
        )
    if scheme == "hf":
        from fastdl.sources.huggingface import HubSource  # noqa: PLC0415 - huggingface_hub costs 200 ms

        return HubSource(url, headers, endpoint=endpoint_url, sign=sign)
    raise UsageError("only http://, https://, oss://, s3:// and hf:// URLs are known")
