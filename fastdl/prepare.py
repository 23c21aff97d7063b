"""What every way to an object needs, checked before anything is sent: its source, its line, how patient to be.

One list of names for all of them: what ``download`` takes, without what has to do with its file.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from fastdl import arguments, sources
from fastdl.cancellation import current
from fastdl.errors import Cancelled, NetworkError
from fastdl.job import DEFAULT_RETRY, make_backoff, make_line

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from fastdl.messages import Line
    from fastdl.retry import Backoff
    from fastdl.sources import Source


class Options(TypedDict, total=False):
    """How an object is reached; names, meanings and defaults are those of ``download``."""

    headers: Mapping[str, str] | None
    retry: int
    connect_timeout: float
    read_timeout: float
    max_time: float | None
    proxy: str | None
    cacert: str | os.PathLike[str] | None
    insecure: bool
    endpoint_url: str | None
    region: str | None
    addressing: str
    sign: bool
    version_id: str | None
    profile: str | None
    request_payer: str | None
    credentials: Any


class Settings(Options, total=False):
    """The same, and how an object is fetched by many connections at once; as of ``download`` again."""

    part_size: int | str | None
    workers: int | None
    connections: int | None
    checksum: str | Sequence[str] | None
    limit_rate: int | str | None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A way to one object."""

    source: Source
    line: Line
    backoff: Backoff
    max_time: float | None  # seconds

    def due(self) -> float | None:
        """Return when the time of what begins now is up, on the monotonic clock; None for never."""
        return None if self.max_time is None else time.monotonic() + self.max_time

    def sleeper(self) -> Callable[[float], None]:
        """Return what waits between attempts, from now on for ``max_time`` in all.

        It raises NetworkError where the time would be up, Cancelled where the call was taken back.
        """
        due = self.due()

        cancellation = current()

        def sleep(seconds: float) -> None:
            if due is not None and time.monotonic() + seconds > due:
                raise NetworkError(f"{self.source.shown}: no answer within {self.max_time} seconds")
            cancellation.wait(seconds)
            if cancellation.wanted:
                raise Cancelled(f"{self.source.shown}: cancelled")

        return sleep


def prepare(
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
    profile: str | None = None,
    request_payer: str | None = None,
    credentials: Any = None,
) -> Prepared:
    """Resolve ``url`` and check every option; nothing is sent.

    Raises:
        UsageError: an option, or the URL, cannot be meant.
        AccessDenied: credentials are wanted and there are none.
    """
    source = sources.resolve(
        url,
        arguments.pairs(headers),
        endpoint_url=endpoint_url,
        region=region,
        addressing=addressing,
        sign=sign,
        version_id=version_id,
        credentials=credentials,
        profile=profile,
        request_payer=request_payer,
    )
    line = make_line(source, connect_timeout, read_timeout, max_time, proxy, cacert, insecure=insecure)
    return Prepared(source, line, make_backoff(retry), max_time)
