"""What every command does to the process it runs in: signals, logging, standard streams, JSON lines."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

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
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("fastdl: %(message)s"))
    logger = logging.getLogger("fastdl")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose else logging.WARNING)
    logging.getLogger("fastdl.advice").setLevel(logging.ERROR if quiet else logging.NOTSET)
    logging.captureWarnings(capture=True)  # urllib3 warns of each unverified request; --insecure asked for it
    logging.getLogger("py.warnings").addHandler(logging.NullHandler())


def print_json(message: dict[str, Any]) -> None:
    """Print one JSON object as one line; whoever stopped reading stops nothing."""
    try:
        click.echo(json.dumps(message))
    except OSError:  # whoever read the lines is gone, or their disk is full; that stops no download
        with suppress(OSError), Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
