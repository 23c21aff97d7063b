"""``verify``, the function users call: a file that is there, held against its records, a store or a digest."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastdl import arguments
from fastdl.audit import Audit, Look
from fastdl.digest import parse_checksums
from fastdl.errors import UsageError
from fastdl.job import DEFAULT_RETRY, check_limit_rate, checkpoint_path_of, concurrency, make_backoff
from fastdl.messages import Line
from fastdl.prepare import prepare
from fastdl.progress import Listeners
from fastdl.redact import printable
from fastdl.there import FileThere, keep_others_out, open_records

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastdl.result import VerifyResult


def verify(
    path: str | os.PathLike[str],
    url: str | None = None,
    *,
    repair: bool = False,
    checkpoint_path: str | os.PathLike[str] | None = None,
    checksum: str | Sequence[str] | None = None,
    workers: int | None = None,
    connections: int | None = None,
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
    endpoint_url: str | None = None,
    region: str | None = None,
    addressing: str = "auto",
    sign: bool = True,
    version_id: str | None = None,
    credentials: Any = None,
    profile: str | None = None,
    request_payer: str | None = None,
) -> VerifyResult:
    """Tell whether the file at ``path`` is what it should be, and which of its parts are not.

    It is hashed by worker processes and held against what is known: digests that the store promises of the object and
    those given with ``checksum``; the records that a download with ``keep_records`` left; and where all of that is
    missing, or tells only that something is wrong, a second copy that is fetched and not stored.

    With ``repair`` bad parts are fetched again and overwritten in place, so that no second file is needed: until that
    is done readers may see parts that are half new. Killed in between, it leaves a file that is bad as before to the
    next look. A download of the same file cannot go on meanwhile. A file of another length is bad and left as it is.

    Args:
        path: the file.
        url: the object that it should be; None asks no store.
        repair: replace bad parts; needs ``url``.
        checkpoint_path: where records were kept; None means ``PATH.cp``.
        checksum: ``ALGORITHM=HEX`` of the whole, or several of them.
        workers: processes that hash.
        connections: the most connections of all workers together.
        headers: sent with each request to the URL's own origin, and to no other.
        progress: True for a bar on a terminal, a function of a ``ProgressEvent``, a tqdm or an fsspec ``Callback``.
        retry: how often one part may fail in a row.
        connect_timeout: seconds.
        read_timeout: seconds a connection may go without progress.
        max_time: seconds that everything may take.
        limit_rate: bytes per second that all connections together may receive.
        proxy: URL of an HTTP proxy; None asks the environment, "" means none.
        cacert: file of CA certificates to trust instead of the system's.
        insecure: do not verify TLS certificates.
        endpoint_url: of stores, as of ``download``; and so are the rest.
        region: of stores.
        addressing: of stores.
        sign: of stores.
        version_id: of stores.
        credentials: of stores.
        profile: of stores.
        request_payer: of stores.

    Returns:
        What was found; ``good`` tells whether the file is right now.

    Raises:
        NotFound: there is no such file, or no such object.
        UsageError, AccessDenied, NetworkError, ProtocolError, ObjectChanged, DiskError, Busy: nothing is known then.
    """
    try:
        target = Path(arguments.path("path", path)).absolute()
    except OSError as error:
        raise UsageError(f"{printable(os.fsdecode(path))}: cannot be looked at: {error.strerror}") from None
    if not target.name:
        raise UsageError(f"{target}: is a directory")
    source, line = None, Line()
    if url is not None:
        way = prepare(
            url,
            headers=headers,
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
        source, line = way.source, way.line
    records_path = checkpoint_path_of(target, checkpoint_path)
    checksums = parse_checksums(checksum)
    if repair and source is None:
        raise UsageError("a repair needs the URL to fetch bad parts from")
    workers, connections = concurrency(workers, connections)
    backoff, limit_rate = make_backoff(retry), check_limit_rate(limit_rate)
    look = Look(target, source, checksums, repair, line, workers, connections, limit_rate, backoff, max_time)
    with ExitStack() as stack:
        file = stack.enter_context(FileThere(target, writable=repair))
        needed = repair or (source is None and not checksums)
        records = open_records(records_path, stack, writable=repair, needed=needed)
        if source is None and not checksums and not (records.marks.complete and not records.doubted):
            raise UsageError(
                f"{target}: nothing to hold it against: give a URL or a checksum; no good records in {records_path}"
            )
        if repair:
            keep_others_out(target, records, records_path, stack)
        tell = stack.enter_context(Listeners(progress))
        return Audit(look, file, tell).run(records)
