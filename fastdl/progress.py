"""How a download tells of itself: one frozen event, and what callers may hand in to receive it."""

from __future__ import annotations

import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastdl.cancellation import current
from fastdl.errors import Cancelled, NetworkError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import Progress, TaskID

    from fastdl.result import Fetched

_TELL_EVERY = 0.1  # seconds between events
_HISTORY = 30  # events, of ten a second: the speed shown is that of the last three seconds


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """Where a download stands; sent at most ten times a second, and once at its end.

    ``done`` of ``size`` bytes are in the output (``size`` is None while unknown), ``received`` came over the network
    in this run. ``connections`` are fetching now. ``parts_reused`` were kept from an earlier run.
    """

    done: int
    size: int | None
    received: int
    seconds: float
    connections: int
    parts_reused: int
    bytes_per_second: float


class Meter:
    """Builds events out of counts; the speed is that of the last seconds."""

    def __init__(self) -> None:
        self._history: deque[tuple[float, int]] = deque(maxlen=_HISTORY)

    def event(
        self, seconds: float, done: int, size: int | None, received: int, connections: int, parts_reused: int
    ) -> ProgressEvent:
        """Return the event for ``received`` bytes after ``seconds``."""
        self._history.append((seconds, received))
        then, before = self._history[0]
        speed = (received - before) / (seconds - then) if seconds > then else 0.0
        return ProgressEvent(done, size, received, seconds, connections, parts_reused, speed)


class Teller:
    """Passes the state of one download on to ``listener``, and ends it after ``max_time`` seconds; None for neither.

    Once the call is taken back it ends at the next look.
    """

    def __init__(
        self,
        listener: Callable[[ProgressEvent], None] | None,
        shown: str,
        max_time: float | None,
        fetched: Fetched,
        *,
        resumable: bool = True,
    ) -> None:
        self._what_next = "; run again to resume" if resumable else ""
        self._listener = listener
        self._shown = shown
        self._max_time = max_time
        self._fetched = fetched
        self._cancellation = current()
        self._meter = Meter()
        self._began = time.monotonic()
        self._next_tell = 0.0

    @property
    def due(self) -> float | None:
        """When its time is up, on the monotonic clock; None for never."""
        return None if self._max_time is None else self._began + self._max_time

    @property
    def seconds(self) -> float:
        """How long the download has been going on."""
        return time.monotonic() - self._began

    def tell(self, done: int, connections: int, *, final: bool = False) -> None:
        """Tell that ``done`` bytes are in the output, a few times a second.

        ``final``: and the file is published, so that no time matters any more.

        Raises:
            NetworkError: the time is up.
        """
        seconds = self.seconds
        if not final:
            self._check(seconds)
        if self._listener is None or (seconds < self._next_tell and not final):
            return
        self._next_tell = seconds + _TELL_EVERY
        fetched = self._fetched
        event = self._meter.event(seconds, done, fetched.size, fetched.bytes_fetched, connections, fetched.parts_reused)
        self._listener(event)

    def sleep(self, seconds: float) -> None:
        """Wait, but not beyond the download's time.

        Raises:
            NetworkError: the time is up.
        """
        if self._max_time is not None:
            seconds = min(seconds, max(0.0, self._max_time - self.seconds))
        self._cancellation.wait(seconds)
        self._check(self.seconds)

    def _check(self, seconds: float) -> None:
        if self._cancellation.wanted:
            raise Cancelled(f"{self._shown}: cancelled")
        if self._max_time is not None and seconds > self._max_time:
            raise NetworkError(f"{self._shown}: not done within {self._max_time} seconds{self._what_next}")


class Listeners:
    """Turns what the caller handed in as ``progress`` into a function of events; use it as a context."""

    def __init__(self, progress: Any) -> None:
        self._bar = Bar() if progress is True and sys.stderr is not None and sys.stderr.isatty() else None
        self._tell = self._bar.show if self._bar is not None else _adapt(progress)

    def __enter__(self) -> Callable[[ProgressEvent], None] | None:
        return self._tell

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


def _adapt(progress: Any) -> Callable[[ProgressEvent], None] | None:
    if progress is None or isinstance(progress, bool):
        return None
    if hasattr(progress, "absolute_update"):  # an fsspec Callback
        return _fsspec(progress)
    if hasattr(progress, "update") and hasattr(progress, "total"):  # tqdm and what looks like it
        return _tqdm(progress)
    if callable(progress):
        return progress  # type: ignore[no-any-return]
    raise UsageError(f"progress: want True, a function, a tqdm or an fsspec Callback, got {type(progress).__name__}")


def _fsspec(callback: Any) -> Callable[[ProgressEvent], None]:
    def tell(event: ProgressEvent) -> None:
        if event.size is not None and callback.size != event.size:
            callback.set_size(event.size)
        callback.absolute_update(event.done)

    return tell


def _tqdm(bar: Any) -> Callable[[ProgressEvent], None]:
    shown = 0

    def tell(event: ProgressEvent) -> None:
        nonlocal shown
        bar.total = event.size
        bar.update(event.done - shown)
        shown = event.done

    return tell


class Bar:
    """A line on a terminal's standard error: percent, size, speed, time left, connections, parts reused."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._gone = False

    def show(self, event: ProgressEvent) -> None:
        """Draw ``event``, unless the terminal was closed; that stops no download."""
        if not self._gone:
            try:
                self._draw(event)
            except OSError:
                self._gone = True

    def _draw(self, event: ProgressEvent) -> None:
        # rich is loaded at the first one, while the workers are already fetching
        if self._progress is None:
            self._progress = self._begin(event)
            self._task = self._progress.add_task("", total=event.size, notes="", speed="")
        notes = f"{event.connections} connections"
        if event.parts_reused:
            notes += f", {event.parts_reused} parts reused"
        speed = f"{event.bytes_per_second / 1e6:,.1f} MB/s"
        assert self._task is not None  # noqa: S101 - made together with the progress above
        self._progress.update(self._task, completed=event.done, total=event.size, notes=notes, speed=speed)
        self._progress.refresh()

    def close(self) -> None:
        """Leave the terminal as it was, the last state on its line."""
        if self._progress is not None:
            with suppress(OSError):
                self._progress.stop()

    def _begin(self, event: ProgressEvent) -> Progress:
        from rich.console import Console  # noqa: PLC0415 - 90 ms, only at a terminal
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

        progress = Progress(
            TextColumn("{task.percentage:>3.0f}%" if event.size else ""),
            BarColumn(bar_width=None),
            DownloadColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[notes]}"),
            console=Console(stderr=True),
            auto_refresh=False,
        )
        progress.start()
        return progress
