"""The command as a process of its own: ``fastdl`` and ``python -m fastdl``."""

from __future__ import annotations

import gc
import os
import signal
import sys
from contextlib import suppress
from typing import NoReturn


def run() -> NoReturn:
    """Run the command and end the process with its exit code.

    A fifth of what a small download costs would be looking for garbage while modules are imported, where there is none,
    and taking every module apart at the end.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else whoever started it wants it ignored
        # Before there is anything to stop cleanly, and after, an interrupt is no traceback of imports or of an exit.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.disable()  # the command enables it once everything is imported
    from fastdl.cli import main  # noqa: PLC0415 - this is what there is no garbage in

    code: int | str | None = None
    try:
        main()
    except SystemExit as done:
        code = done.code
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # nobody reads it, it is closed, there is none
            stream.flush()
    os._exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    run()
