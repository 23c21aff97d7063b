"""Archived objects of OSS made readable: the restoration asked for, and waited for."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastdl.connections import patience
from fastdl.errors import Archived, FastdlError, NetworkError, UsageError
from fastdl.retry import Attempts, Backoff
from fastdl.sources.oss_errors import RESTORING, explain, said

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastdl.http import Transport
    from fastdl.messages import Request

MOST_DAYS = 365  # that cold archives may be asked for; archives take 7, and say so
_LONGEST_PAUSE = 60.0  # seconds between two looks: an archive takes a minute, a cold one hours
_FAILED = 300  # the first status that is no success
log = logging.getLogger("fastdl")


@dataclass(frozen=True, slots=True)
class Restoring:
    """Whether to have an archived object restored, for how many ``days``, and whether to ``wait`` until it is.

    Raises:
        UsageError: the days are out of bounds, or nothing is to be waited for.
    """

    wanted: bool = False
    wait: bool = False
    days: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.days <= MOST_DAYS:
            raise UsageError(f"restore for {self.days} days: must be 1 to {MOST_DAYS}")
        if self.wait and not self.wanted:
            raise UsageError("--wait waits for a restoration: give --restore too")

    @property
    def body(self) -> bytes:
        """What a request for it carries."""
        return f"<RestoreRequest><Days>{self.days}</Days></RestoreRequest>".encode()


def restore(
    shown: str,
    restoring: Restoring,
    post: Callable[[], Request],
    head: Callable[[], Request],
    transport: Transport,
    sleep: Callable[[float], None],
) -> None:
    """Have the object restored that ``post`` and ``head`` are signed requests about; return once it can be read.

    Raises:
        Archived: it was asked for, and is not to be waited for.
        FastdlError: it cannot be restored, or ``sleep`` had enough.
    """
    _ask(shown, post, transport, sleep)
    if not restoring.wait:
        raise Archived(
            f"{shown}: archived; its restoration was asked for and takes a minute to hours: "
            "run again then, or with --wait"
        )
    log.warning("%s: archived; waiting until it is restored", shown)
    pause = 1.0
    while 'ongoing-request="true"' in _ask(shown, head, transport, sleep).get("x-oss-restore", "").lower():
        sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    log.info("%s: restored", shown)


def _ask(
    shown: str, sign: Callable[[], Request], transport: Transport, sleep: Callable[[float], None]
) -> Mapping[str, str]:
    """Return the fields of a successful answer; that it is being restored already is one."""
    attempts = Attempts(Backoff(), random.Random())
    while True:
        try:
            with patience(transport.line.read_timeout):
                response = transport.open(sign())
                if response.status < _FAILED:
                    response.excerpt()
                    return response.headers
                refused = response.refused()
        except NetworkError as error:
            failure: FastdlError = error
        else:
            if said(refused).code == RESTORING:
                return {}
            failure = explain(shown, refused)
        try:
            sleep(attempts.after(failure))
        finally:
            del failure  # raised, its traceback would hold this frame, and that one the connection
