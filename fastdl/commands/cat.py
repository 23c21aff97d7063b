"""``fastdl cat URL``: the object to standard output, in order, at the speed of many connections."""

from __future__ import annotations

import gc
import os
import signal
from typing import TYPE_CHECKING, Any

import click

from fastdl.commands.options import Size, fetch_options, line_options, request_options, store_options
from fastdl.errors import DiskError
from fastdl.terminal import configure_logging, fill_standard_streams, stopped_by_signals

if TYPE_CHECKING:
    from fastdl.reading import Stream

_STDOUT = 1
_BUFFER = 1024 * 1024  # bytes that are handed on at a time


@click.command()
@click.argument("url")
@fetch_options
@click.option("--window", type=Size(), help="Memory that the object passes through (128M).")
@request_options
@line_options
@store_options
@click.option("-v", "--verbose", is_flag=True, help="Tell what is going on.")
def cat(url: str, *, window: int | None, no_sign_request: bool, verbose: bool, **settings: Any) -> int:
    """Write the object at URL to standard output, in order; nothing is stored.

    What has left through a pipe cannot be taken back: only the exit code tells that all of it was right, so wait for
    it. Exit codes as of `get`; 141, as of a process that SIGPIPE ended, if the reader leaves early.
    """
    fill_standard_streams()
    configure_logging(verbose=verbose)
    from fastdl import prefork  # noqa: PLC0415 - --help need not wait for urllib3
    from fastdl.job import concurrency  # noqa: PLC0415
    from fastdl.reading import WINDOW, stream  # noqa: PLC0415

    workers, _ = concurrency(settings["workers"], settings["connections"])
    with prefork.prepared(workers), stopped_by_signals():
        gc.enable()  # imports were better off without it
        with stream(url, window=WINDOW if window is None else window, sign=not no_sign_request, **settings) as file:
            try:
                _pass_on(file)
            except BrokenPipeError:
                return 128 + signal.SIGPIPE
            except OSError as error:
                raise DiskError(f"standard output: {error.strerror}") from None
    return 0


def _pass_on(file: Stream) -> None:
    buffer = memoryview(bytearray(_BUFFER))
    while count := file.readinto1(buffer):
        view = buffer[:count]
        while view:
            view = view[os.write(_STDOUT, view) :]
