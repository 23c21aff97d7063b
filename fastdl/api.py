"""``download``, the function users call: checks every setting before anything is touched."""

from __future__ import annotations

import functools
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fastdl import arguments, sources
from fastdl.digest import parse_checksums
from fastdl.errors import UsageError
from fastdl.job import (
    DEFAULT_RETRY,
    RESUME,
    Job,
    check_limit_rate,
    checkpoint_path_of,
    chosen_part_size,
    concurrency,
    make_backoff,
    make_line,
    target_path,
    traffic_share,
)
from fastdl.progress import Listeners
from fastdl.sequence import Download

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from fastdl.result import DownloadResult

# Without a handler of the user's Python would print warnings to standard error; a library prints nothing.
logging.getLogger("fastdl").addHandler(logging.NullHandler())


def download(
    url: str,
    path: str | os.PathLike[str],
    *,
    part_size: int | str | None = None,
    workers: int | None = None,
    connections: int | None = None,
    checkpoint: bool = True,
    checkpoint_path: str | os.PathLike[str] | None = None,
    resume: str = "verify",
    checksum: str | Sequence[str] | None = None,
    checksum_file: str | os.PathLike[str] | None = None,
    headers: Mapping[str, str] | None = None,
    progress: Any = None,
    retry: int = DEFAULT_RETRY,
    connect_timeout: float = 10.0,
    read_timeout: float = 30.0,
    max_time: float | None = None,
    limit_rate: int | str | None = None,
    proxy: str | None = None,
    cacert: str | os.PathLike[str] | None = None,
    insecure: bool = False,
    overwrite: bool = True,
    fsync: bool = False,
    keep_records: bool = False,
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
    credentials: Any = None,
) -> DownloadResult:
    """Download one object to ``path``; the name appears only when every byte is there and judged.

    Killed at any moment and called again, it goes on from ``PATH.part`` with the help of ``PATH.cp``. Safe to call
    from several threads, from daemonic and forked processes; installs no signal handlers and prints nothing unless
    ``progress`` is True.

    Args:
        url: ``http://``, ``https://``, ``oss://bucket/key``, ``s3://bucket/key`` or
            ``hf://[datasets/]org/name[@revision]/path`` (keys and paths literal, not percent-encoded).
        path: the file to make, or a directory to make it in under the URL's last name.
        part_size: bytes per part, 1 to 5 GiB, or a text as ``16M``; None chooses. The unit of checkpoint, check and
            refetch.
        workers: processes; None means one for each processor, at most four.
        connections: the most connections of all workers together, 128 by default. A download begins with eight, tries
            more while that brings more, and takes back what the server refuses.
        checkpoint: keep a checkpoint while downloading, removed at the end.
        checkpoint_path: where; None means ``PATH.cp``.
        resume: ``verify`` hashes each part of an earlier run on the disk before using it, ``trust`` does not,
            ``no`` starts over.
        checksum: ``ALGORITHM=HEX`` of the whole object, one or several: crc64, crc64nvme, crc32c, crc32, xxh3 or any
            name of hashlib.
        checksum_file: path or URL of a file as ``sha256sum`` writes it, with a digest of the object by its name, or by
            the output's. ``headers`` go there only if it is of the same origin.
        headers: sent with each request to the URL's own origin, and to no other.
        progress: True for a bar on a terminal, a function of a ``ProgressEvent``, a tqdm or an fsspec ``Callback``.
        retry: how often one part may fail in a row before the download does.
        connect_timeout: seconds.
        read_timeout: seconds a connection may go without progress.
        max_time: seconds the whole download may take.
        limit_rate: bytes per second that all connections together may receive, or a text as ``10M``.
        proxy: URL of an HTTP proxy; None asks the environment, "" means none.
        cacert: file of CA certificates to trust instead of the system's.
        insecure: do not verify TLS certificates.
        overwrite: replace an existing ``path`` (in one step, at the end); if False an existing one is an error,
            also if it appears meanwhile: then what was downloaded is kept.
        fsync: make the published file survive power loss.
        keep_records: leave the checkpoint, complete, beside the published file. A later download of the same object
            hashes the file and fetches only what differs, and ``verify`` names bad parts without a network.
        endpoint_url: the store's endpoint; by default OSS_ENDPOINT for ``oss://``, what botocore finds for ``s3://``,
            HF_ENDPOINT for ``hf://``.
        region: for ``oss://`` OSS_REGION, or the endpoint's, by default; for ``s3://`` what botocore finds, and where
            the store sends to.
        addressing: auto, virtual, path or, for ``oss://``, cname.
        sign: sign requests to stores; False for public objects.
        version_id: the version of the object to fetch; the latest by default, and then the same one to the end.
        profile: for ``oss://`` of ossutil, for ``s3://`` of AWS's shared files; it says what neither arguments nor the
            environment do.
        request_payer: ``requester`` if the one who asks pays for the transfer.
        traffic_limit: bits per second that OSS may send in all, 819,200 at least; divided evenly among at most eight
            connections (more only where OSS cannot hold one to so much), so the last few get less.
        restore: have an archived object of OSS restored, which costs money, for ``restore_days`` days.
        wait: and wait until it is, a minute to hours, within ``max_time``.
        restore_days: 1 to 365.
        credentials: for ``oss://`` a ``CredentialsProvider`` or ``Credentials`` of alibabacloud-oss-v2, a tuple (key
            id, secret[, token[, expiry]]), or a callable that returns one, kept until shortly before the expiry or
            until they are refused; by default the environment's, the profile's, or those of a role that is configured.
            For ``s3://`` botocore's ``Credentials``, by default what its chain finds.

    Returns:
        What was downloaded and what was proven of it.

    Raises:
        UsageError, NotFound, AccessDenied, NetworkError, ProtocolError, ObjectChanged, IntegrityError, DiskError, Busy:
            all ``FastdlError``. Unless the text says otherwise the finished parts stay, and the next call resumes.
    """
    if resume not in RESUME:
        raise UsageError(f"resume {resume!r} is none of {', '.join(RESUME)}")
    if keep_records and not checkpoint:
        raise UsageError("records are kept in the checkpoint: without one there are none")
    workers, connections = concurrency(workers, connections, traffic_limit)
    resolve = functools.partial(
        sources.resolve,
        endpoint_url=endpoint_url,
        region=region,
        addressing=addressing,
        sign=sign,
        credentials=credentials,
        profile=profile,
        request_payer=request_payer,
    )
    line_to = functools.partial(
        make_line,
        connect_timeout=connect_timeout,
        read_timeout=read_timeout,
        max_time=max_time,
        proxy=proxy,
        cacert=cacert,
        insecure=insecure,
    )
    own_headers = arguments.pairs(headers)
    source = resolve(
        url,
        own_headers,
        version_id=version_id,
        traffic_limit=traffic_share(traffic_limit, connections),
        restore=restore,
        wait=wait,
        restore_days=restore_days,
    )
    target = target_path(path, url)
    sums = None
    if checksum_file is not None:
        from fastdl.sumfile import SumFile, is_url, same_origin, segments_of  # noqa: PLC0415 - few have one

        sums = SumFile(arguments.path("checksum_file", checksum_file), segments_of(url), target.name)
        if is_url(sums.where):
            sums_source = resolve(sums.where, own_headers if same_origin(sums.where, url) else ())
            sums = replace(sums, source=sums_source, line=line_to(sums_source))
    job = Job(
        source=source,
        path=target,
        checkpoint_path=checkpoint_path_of(target, checkpoint_path) if checkpoint else None,
        part_size=chosen_part_size(part_size),
        line=line_to(source),
        workers=workers,
        connections=connections,
        resume=resume,
        checksums=parse_checksums(checksum),
        sums=sums,
        backoff=make_backoff(retry),
        max_time=max_time,
        overwrite=overwrite,
        fsync=fsync,
        keep_records=keep_records,
        limit_rate=check_limit_rate(limit_rate),
    )
    with Listeners(progress) as tell:
        return Download(job, tell).run()
