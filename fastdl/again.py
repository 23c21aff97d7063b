"""Asking again: at once where a refusal taught something, after a while where it may pass, and not at all elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from fastdl.errors import FastdlError, NetworkError, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastdl.retry import Attempts
    from fastdl.sources import Source

Found = TypeVar("Found")


def again(source: Source, attempts: Attempts, sleep: Callable[[float], None], ask: Callable[[], Found]) -> Found:
    """Return what ``ask`` does, once it does; ``sleep`` waits between two attempts.

    Raises:
        FastdlError: the last failure as ``source`` explains it, or one that asking again does not mend.
    """
    while True:
        try:
            return ask()
        except NetworkError as error:
            failure: FastdlError = error
        except Refused as error:
            if source.adapt(error):
                continue
            failure = source.explain(error)
        try:
            sleep(attempts.after(failure))
        finally:
            del failure  # raised, its traceback would hold this frame, and that one the connection
