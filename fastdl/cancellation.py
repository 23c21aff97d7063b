"""Taking a call back while it goes on: every look at the time is its end, and what it waits for is broken."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Cancellation:
    """Of one call, or of several; may be used from any thread."""

    def __init__(self) -> None:
        self._event = threading.Event()

    @property
    def wanted(self) -> bool:
        """Whether the call shall end."""
        return self._event.is_set()

    def cancel(self) -> None:
        """Let the call end."""
        self._event.set()

    def wait(self, seconds: float) -> None:
        """Wait so long, or until the call shall end."""
        self._event.wait(seconds)


_current: ContextVar[Cancellation | None] = ContextVar("fastdl_cancellation", default=None)


def current() -> Cancellation:
    """Return what can take back the call that goes on in this thread; one that nobody has if nobody can."""
    return _current.get() or Cancellation()


@contextmanager
def cancelled_by(cancellation: Cancellation) -> Iterator[None]:
    """Let ``cancellation`` be the one of calls made inside."""
    token = _current.set(cancellation)
    try:
        yield
    finally:
        _current.reset(token)
