"""Taking a call back while it goes on: whoever waits in it is woken, and every look at the time is the end."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Cancellation:
    """Of one call, or of several; may be used from any thread."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._ends: dict[int, Callable[[], None]] = {}

    @property
    def wanted(self) -> bool:
        """Whether the call shall end."""
        return self._event.is_set()

    def cancel(self) -> None:
        """Let the call end, and break what it waits for now; asked again, break that again."""
        self._event.set()
        for end in list(self._ends.values()):
            with suppress(OSError):
                end()

    def wait(self, seconds: float) -> None:
        """Wait so long, or until the call shall end."""
        self._event.wait(seconds)

    @contextmanager
    def breaking(self, end: Callable[[], None]) -> Iterator[None]:
        """Let ``end`` end what is waited for inside the block, from another thread, should the call be taken back."""
        self._ends[id(end)] = end
        try:
            yield
        finally:
            del self._ends[id(end)]


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
