"""What every command does to the process it runs in: signals, logging, standard streams, JSON lines."""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

LAST_WORDS = 1.0  # seconds that a line waits for a reader who does not read: nobody else shall
_STDERR = 2
_SOON = 0.001  # seconds until a stop that was dropped is tried again: the finalizer it met has ended by then
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """A signal asked for the end; not an Exception, so that nothing on the way takes it for a failure."""

    def __init__(self, number: int) -> None:
        self.number = number


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Turn the first SIGINT, SIGTERM or SIGHUP into one clean stop; a second one ends at once.

    Python drops what a handler raises while a finalizer or a callback of the interpreter's runs: it is raised again.
    """

    def stop(number: int, _: FrameType | None) -> None:
        for each in _SIGNALS:
            signal.signal(each, lambda number, _: os._exit(128 + number))
        raise Stopped(number)

    def dropped(what: sys.UnraisableHookArgs) -> None:
        if not isinstance(what.exc_value, Stopped):
            hook(what)
            return
        number = what.exc_value.number

        def again(_number: int, _frame: FrameType | None) -> None:
            raise Stopped(number)

        signal.signal(signal.SIGALRM, again)
        signal.setitimer(signal.ITIMER_REAL, _SOON)

    before = {number: signal.getsignal(number) for number in (*_SIGNALS, signal.SIGALRM)}
    hook = sys.unraisablehook
    sys.unraisablehook = dropped
    for number in _SIGNALS:
        if before[number] is not signal.SIG_IGN:  # nohup
            signal.signal(number, stop)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook


def fill_standard_streams() -> None:
    """Let nothing of ours get the number of a standard stream that the caller closed."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(number, True)  # noqa: FBT003 - as those of others are
    os.close(number)


def configure_logging(*, verbose: bool, quiet: bool = False) -> None:
    """Send the library's log to standard error: warnings, no advice if ``quiet``, and with ``verbose`` everything."""
    handler = _Handler()
    handler.setFormatter(logging.Formatter("fastdl: %(message)s"))
    logger = logging.getLogger("fastdl")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose else logging.WARNING)
    logging.getLogger("fastdl.advice").setLevel(logging.ERROR if quiet else logging.NOTSET)
    logging.captureWarnings(capture=True)  # they speak to whoever develops, in lines that are not ours
    logging.getLogger("py.warnings").addHandler(logging.NullHandler())


class _Handler(logging.StreamHandler[TextIO]):
    """Tells what is going on to a reader who reads; one who does not stops nothing."""

    _patience = LAST_WORDS

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line; after one that nobody took the next ones do not wait."""
        if not write_line(self.format(record), error=True, patience=self._patience):
            self._patience = 0.0


def print_json(message: dict[str, Any], *, patience: float | None = None) -> None:
    """Print one JSON object as one line; whoever stopped reading stops nothing.

    ``patience`` is how many seconds a reader whose pipe is full gets to take it, for ever without.
    """
    write_line(json.dumps(message), patience=patience)


def write_line(text: str, *, error: bool = False, patience: float | None = LAST_WORDS) -> bool:
    """Write a line to standard output, or error; tell whether all of it was taken within ``patience`` seconds.

    Whoever read is gone, or their disk is full, where that fails: nothing is written there any more.
    """
    stream = sys.stderr if error else sys.stdout
    try:
        fd = stream.fileno()
    except (AttributeError, OSError, ValueError):  # there is none, or it is not a file
        with suppress(OSError):
            click.echo(text, err=error)
        return True
    view = memoryview(f"{text}\n".encode(stream.encoding or "utf-8", "backslashreplace"))
    try:
        while view:
            if not select.select([], [fd], [], patience)[1]:
                return False
            with suppress(BlockingIOError):  # somebody else filled it, and made it so that it does not wait
                view = view[os.write(fd, view[: select.PIPE_BUF]) :]  # for so much there is room without waiting
    except OSError:
        with suppress(OSError), Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), fd)
    return True
