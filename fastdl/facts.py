"""What a store says of an object before any of it is fetched: by the first GET of a download, of one byte."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastdl.connections import until
from fastdl.http import Transport
from fastdl.job import DEFAULT_RETRY
from fastdl.prepare import prepare
from fastdl.probe import probe
from fastdl.proof import worth_comparing
from fastdl.redact import printable, without_secrets
from fastdl.retry import Attempts

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from fastdl.digest import Expected
    from fastdl.probe import Probe
    from fastdl.sources import Source


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """An object as its store describes it.

    Attributes:
        url: where it is, redacted.
        size: bytes; None if the server does not say.
        etag: as the server wrote it, empty if it gave none.
        last_modified: likewise.
        version_id: likewise.
        storage_class: as object stores name it, empty where they name none.
        content_type: likewise.
        ranges: whether ranges are served; without them a download is one stream and cannot be resumed.
        promises: the digests of the whole object that the store promises and that can be computed here.
        integrity: what a download would prove at least: the strongest promised algorithm, ``length``, or ``none``.
            Of a small object a download may be promised more: some servers tell digests with whole answers only.
    """

    url: str
    size: int | None
    etag: str
    last_modified: str
    version_id: str
    storage_class: str
    content_type: str
    ranges: bool
    promises: tuple[Expected, ...]
    integrity: str


def head(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    retry: int = DEFAULT_RETRY,
    connect_timeout: float = 10.0,
    read_timeout: float = 30.0,
    max_time: float | None = None,
    proxy: str | None = None,
    cacert: str | os.PathLike[str] | None = None,
    insecure: bool = False,
    endpoint_url: str | None = None,
    region: str | None = None,
    addressing: str = "auto",
    sign: bool = True,
    version_id: str | None = None,
    credentials: Any = None,
    profile: str | None = None,
    request_payer: str | None = None,
) -> ObjectFacts:
    """Ask what an object is, with the first GET of a download, of one byte: a URL presigned for GET works too.

    The arguments are those of ``download``.

    Raises:
        UsageError, NotFound, AccessDenied, NetworkError, ProtocolError: as of ``download``.
    """
    way = prepare(
        url,
        headers=headers,
        retry=retry,
        connect_timeout=connect_timeout,
        read_timeout=read_timeout,
        max_time=max_time,
        proxy=proxy,
        cacert=cacert,
        insecure=insecure,
        endpoint_url=endpoint_url,
        region=region,
        addressing=addressing,
        sign=sign,
        version_id=version_id,
        profile=profile,
        request_payer=request_payer,
        credentials=credentials,
    )
    source = way.source
    transport = Transport(way.line, 1)
    try:
        with until(way.due()):
            found = probe(source, transport, 0, 1, Attempts(way.backoff.of_probe, random.Random()), way.sleeper())
            found.close()
            return _facts(source, found, source.promises(found.info, transport))
    finally:
        transport.close()


def _facts(source: Source, found: Probe, promises: tuple[Expected, ...]) -> ObjectFacts:
    info = found.info
    fields: Mapping[str, str] = {} if found.response is None else found.response.headers
    known = worth_comparing(promises, info.crc64)
    best = max(known, key=lambda each: each.worth, default=None)
    return ObjectFacts(
        url=source.shown,
        size=info.size,
        etag=without_secrets(info.validator.etag),
        last_modified=without_secrets(info.validator.last_modified),
        version_id=without_secrets(info.validator.version_id),
        storage_class=printable(fields.get("x-amz-storage-class") or fields.get("x-oss-storage-class") or "", 100),
        content_type=printable(fields.get("Content-Type", ""), 200),
        ranges=found.ranged,
        promises=known,
        integrity=best.algorithm if best else "none" if info.size is None else "length",
    )
