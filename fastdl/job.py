"""One call's settings, checked and resolved before anything is touched."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote
from urllib.request import getproxies_environment

from fastdl import arguments
from fastdl.disk import no_output
from fastdl.errors import UsageError
from fastdl.messages import Line
from fastdl.names import is_safe_name
from fastdl.plan import check_part_size
from fastdl.redact import printable, redacted_url
from fastdl.retry import Backoff
from fastdl.urls import environment_proxy, split_url

if TYPE_CHECKING:
    from fastdl.digest import Expected
    from fastdl.sources import Source
    from fastdl.sumfile import SumFile

RESUME = ("verify", "trust", "no")
MOST_CONNECTIONS = 128  # unless the caller says otherwise; a download begins with few and finds what it can use
DEFAULT_RETRY = 8
LEAST_RATE = 1024  # bytes per second
LEAST_TRAFFIC, MOST_TRAFFIC = 819_200, 838_860_800  # bits per second that OSS can hold one request to
_LONGEST = 10**6  # seconds that anything may be told to take: the kernel counts milliseconds in 31 bits
_MOST_WORKERS, _MOST_CONNECTIONS = 64, 1024
_USUAL_SHARES = 8  # connections that a limited traffic is divided among, unless each would be held to more than it may
_USUAL_WORKERS = 4  # beyond it the memory bus, not the processors, is what bodies wait for


@dataclass(frozen=True, slots=True)
class Job:
    """What one download is to do; ``checkpoint_path`` is None if nothing is to be kept."""

    source: Source
    path: Path
    checkpoint_path: Path | None
    part_size: int | None
    line: Line
    workers: int
    connections: int
    resume: str
    checksums: tuple[Expected, ...]
    sums: SumFile | None
    backoff: Backoff
    max_time: float | None
    overwrite: bool
    fsync: bool
    keep_records: bool
    limit_rate: int | None


def concurrency(workers: int | None, connections: int | None, traffic_limit: int | None = None) -> tuple[int, int]:
    """Return how many processes and how many connections in all.

    Under a ``traffic_limit``, bits per second that the store is to send, few connections that have a good share each:
    the share of one must be known before the first request, and no more than all of them together may be sent.

    Raises:
        UsageError: a number is out of bounds.
    """
    given = {"workers": workers, "connections": connections, "traffic_limit": traffic_limit}
    for name, value in given.items():
        if value is not None:
            arguments.whole(name, value)
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if traffic_limit is not None:
        if traffic_limit < LEAST_TRAFFIC:
            raise UsageError(f"traffic limit {traffic_limit}: must be {LEAST_TRAFFIC} bits per second or more")
        useful = max(_USUAL_SHARES, -(-traffic_limit // MOST_TRAFFIC))
        useful = min(MOST_CONNECTIONS, traffic_limit // LEAST_TRAFFIC, useful)
        connections = useful if connections is None else min(connections, useful)
    if connections is None:
        connections = max(MOST_CONNECTIONS, workers or 0)
    if workers is None:
        workers = min(processors, _USUAL_WORKERS, max(connections, 1))
    if not 1 <= workers <= _MOST_WORKERS:
        raise UsageError(f"{workers} workers: must be 1 to {_MOST_WORKERS}")
    if not workers <= connections <= _MOST_CONNECTIONS:
        raise UsageError(f"{connections} connections for {workers} workers: must be {workers} to {_MOST_CONNECTIONS}")
    return workers, connections


def traffic_share(traffic_limit: int | None, connections: int) -> int | None:
    """Return the bits per second of one of ``connections``, which OSS can hold to no more than so much."""
    return None if traffic_limit is None else min(MOST_TRAFFIC, traffic_limit // connections)


def target_path(path: str | os.PathLike[str], url: str) -> Path:
    """Return the file to make: ``path`` itself, or in a directory the URL's last name.

    Raises:
        UsageError: the URL ends in no name that is safe as a file's, or no file can be named so.
        DiskError: it cannot be looked at.
    """
    given = arguments.path("path", path)
    try:
        if not given:
            raise ValueError("it is empty")
        if given.endswith("/") and not os.path.isdir(given):  # noqa: PTH112 - whose like raises for some names
            raise ValueError("no such directory")
        target = Path(given).absolute()
        if b"\0" in os.fsencode(target):
            raise ValueError("NUL in a name")
        if not target.is_dir():
            return target
    except (OSError, ValueError) as error:
        raise no_output(path, error) from None
    return target / file_name(url)


def file_name(url: str) -> str:
    """Return the last segment of a URL's path as a file name, decoded unless the URL is a store's literal key.

    Raises:
        UsageError: it is not safe as one, on this system or another, or the URL cannot be read.
    """
    literal = not url.lower().startswith(("http://", "https://"))
    path = url.partition("://")[2] if literal else unquote(split_url(url).path)
    name = path.rpartition("/")[2]
    if not is_safe_name(name):
        raise UsageError(f"{redacted_url(url)} ends in no file name; give one with -o")
    return name


def checkpoint_path_of(target: Path, given: str | os.PathLike[str] | None) -> Path:
    """Return where the checkpoint lives: ``OUT.cp`` unless told otherwise.

    Raises:
        UsageError: it would be the output itself, or its partial file.
    """
    if given is None:
        return target.with_name(target.name + ".cp")
    text = arguments.path("checkpoint_path", given)
    try:
        path = Path(text).absolute()
        real = path.resolve()
    except (OSError, ValueError, RuntimeError) as error:  # the last of a link to itself
        raise UsageError(f"{printable(text)!r} cannot be a checkpoint: {error}") from None
    if real in (target.resolve(), target.with_name(target.name + ".part").resolve()):
        raise UsageError(f"{path}: the checkpoint cannot be the output itself")
    return path


def make_line(
    source: Source,
    connect_timeout: float,
    read_timeout: float,
    max_time: float | None,
    proxy: str | None,
    cacert: str | os.PathLike[str] | None,
    *,
    insecure: bool,
) -> Line:
    """Return how to reach the source's server; without a ``proxy`` the environment is asked for one.

    Raises:
        UsageError: a time is not positive or absurd, or the proxy is no HTTP proxy.
    """
    for name, seconds in (("connect timeout", connect_timeout), ("read timeout", read_timeout), ("max time", max_time)):
        if seconds is None and name == "max time":
            continue
        if not 0 < arguments.seconds(name, seconds) <= _LONGEST:
            raise UsageError(f"{name} {seconds}: must be a positive number of seconds, at most {_LONGEST}")
    if proxy is not None:
        arguments.text("proxy", proxy)
    elif getproxies_environment():
        proxy = environment_proxy(source.request(None).url)
    _check_proxy(proxy)
    ca_file = "" if cacert in (None, "") else arguments.existing("cacert", cacert)
    if ca_file and not os.access(ca_file, os.R_OK):
        raise UsageError(f"CA file {printable(ca_file)}: cannot be read")
    if max_time is not None:
        read_timeout = min(read_timeout, max_time)
    return Line(connect_timeout, read_timeout, proxy or "", ca_file, insecure)


def make_backoff(retry: int) -> Backoff:
    """Return the policy that allows ``retry`` retries in a row.

    Raises:
        UsageError: the number is negative or absurd.
    """
    if not 0 <= arguments.whole("retry", retry) <= 1000:  # noqa: PLR2004 - more would be days of waiting
        raise UsageError(f"retry {retry}: must be 0 to 1000")
    return Backoff(attempts=retry + 1)


def chosen_part_size(part_size: int | str | None) -> int | None:
    """Return the bytes of a part, or None if that is left to us.

    Raises:
        UsageError: it is not one of the allowed sizes.
    """
    return None if part_size is None else check_part_size(arguments.nbytes("part_size", part_size))


def check_limit_rate(limit_rate: int | str | None) -> int | None:
    """Return the bytes per second, or None for no limit.

    Raises:
        UsageError: so few that the smallest reads would look like stalls.
    """
    if limit_rate is None:
        return None
    rate = arguments.nbytes("limit_rate", limit_rate)
    if rate < LEAST_RATE:
        raise UsageError(f"limit rate {rate}: must be {LEAST_RATE} bytes per second or more")
    return rate


def _check_proxy(proxy: str | None) -> None:
    if not proxy:
        return
    if not proxy.startswith(("http://", "https://")):
        raise UsageError("only http:// and https:// proxies are known, written with their scheme")
    try:
        split_url(proxy)
    except UsageError as error:
        raise UsageError(f"the proxy: {error}") from None
