"""The exception tree and the exit code of each branch; imports nothing of ours.

Every error is one line that says what, where and what next, and survives pickling, because it may be born in a
worker process. URLs inside a message have gone through ``redact`` before.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class FastdlError(Exception):
    """Any failure of fastdl; ``exit_code`` is what the command ends with."""

    exit_code = 1


class UsageError(FastdlError, ValueError):
    """An option, URL or path that cannot be meant; nothing was touched."""

    exit_code = 2


class NotFound(FastdlError):
    """The object, bucket or version does not exist (404, 410, delete marker)."""

    exit_code = 3


class AccessDenied(FastdlError):
    """The store refused: credentials, policy, expired URL or an archived object (401, 403)."""

    exit_code = 4


class Archived(AccessDenied):
    """The object must be restored from an archive first; asking again before that brings nothing."""


class NetworkError(FastdlError):
    """The line failed more often than the retry policy allows; what was fetched is kept and resumable."""

    exit_code = 5


class Refused(FastdlError):
    """An answer that carries no data, as the server gave it; a source turns it into the error people see.

    ``headers`` has lower-case names; ``excerpt`` is the head of the body.
    """

    def __init__(self, message: str, status: int, headers: dict[str, str], excerpt: bytes) -> None:
        super().__init__(message, status, headers, excerpt)
        self.status = status
        self.headers = headers
        self.excerpt = excerpt

    def __str__(self) -> str:
        return str(self.args[0])


class Truncated(NetworkError):
    """A body ended before its promised last byte; nothing of the unfinished part was recorded."""


class ServerBusy(NetworkError):
    """The server answered 408, 429 or 5xx.

    ``retry_after`` is the server's wish in seconds, or None; ``status`` the HTTP status.
    """

    def __init__(self, message: str, status: int = 503, retry_after: float | None = None) -> None:
        super().__init__(message, status, retry_after)
        self.status = status
        self.retry_after = retry_after

    def __str__(self) -> str:
        return str(self.args[0])


class ProtocolError(FastdlError):
    """The server broke HTTP's promises; not one byte of such an answer enters the output."""

    exit_code = 6


class RangeMismatch(ProtocolError):
    """The answer to a range request was not exactly that range."""


class ObjectChanged(FastdlError):
    """The object was replaced while it was being downloaded; nothing was published."""

    exit_code = 7


class IntegrityError(FastdlError):
    """The whole object's digest differs from the promised one; nothing was published."""

    exit_code = 8


class DiskError(FastdlError):
    """This machine does not take the output: its disk is full, fails or was touched by others, or memory is short."""

    exit_code = 9


class Busy(FastdlError):
    """Another downloader holds this output."""

    exit_code = 10


class Cancelled(FastdlError):
    """The caller took it back while it went on; what was fetched into a file is kept and resumable."""

    exit_code = 130


@contextmanager
def disk_errors(what: object) -> Iterator[None]:
    """Let a system call that fails inside be a DiskError of ``what``."""
    try:
        yield
    except OSError as error:
        raise DiskError(f"{what}: {error.strerror}") from None
