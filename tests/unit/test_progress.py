"""What callers may hand in to watch a download."""

from __future__ import annotations

import io
import sys

import pytest

from fastdl.errors import NetworkError, UsageError
from fastdl.progress import Bar, Listeners, Meter, ProgressEvent, Teller
from fastdl.result import Fetched

EVENTS = [
    ProgressEvent(0, None, 0, 0.0, 1, 0, 0.0),
    ProgressEvent(40, 100, 10, 1.0, 8, 3, 10.0),
    ProgressEvent(30, 100, 15, 2.0, 8, 3, 5.0),
    ProgressEvent(100, 100, 70, 3.0, 0, 3, 55.0),
]


class Tqdm:
    """Keeps what tqdm keeps."""

    def __init__(self) -> None:
        """Start as tqdm does without a total; false, as an empty tqdm is."""
        self.total: int | None = None
        self.n = 0

    def __bool__(self) -> bool:
        """Tell of the total, as tqdm does."""
        return bool(self.total)

    def update(self, count: int) -> None:
        """Move by ``count``."""
        self.n += count


class Callback:
    """Keeps what an fsspec Callback keeps."""

    def __init__(self) -> None:
        """Start without a size."""
        self.size: int | None = None
        self.value = 0
        self.sizes: list[int] = []

    def set_size(self, size: int) -> None:
        """Take the size."""
        self.size = size
        self.sizes.append(size)

    def absolute_update(self, value: int) -> None:
        """Move to ``value``."""
        self.value = value


def tell(progress: object) -> list[ProgressEvent]:
    """Send all events to what was handed in; return those that were sent."""
    with Listeners(progress) as listener:
        assert listener is not None
        for event in EVENTS:
            listener(event)
    return EVENTS


def test_a_function_gets_every_event() -> None:
    """As it is, frozen."""
    got: list[ProgressEvent] = []
    assert tell(got.append) == got


def test_a_tqdm_follows_to_the_end() -> None:
    """Also backwards, when a damaged part has to be fetched again."""
    bar = Tqdm()
    tell(bar)
    assert (bar.n, bar.total) == (100, 100)


def test_an_fsspec_callback_follows_to_the_end() -> None:
    """Its size is set once, when it is known."""
    callback = Callback()
    tell(callback)
    assert (callback.value, callback.sizes) == (100, [100])


@pytest.mark.parametrize("progress", [None, False])
def test_nothing_wanted_is_nothing_done(progress: object) -> None:
    """The default costs no call."""
    with Listeners(progress) as listener:
        assert listener is None


def test_without_a_terminal_there_is_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """True in a log file or a pipe prints nothing."""
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    with Listeners(True) as listener:  # noqa: FBT003 - the very value users write
        assert listener is None
    assert stderr.getvalue() == ""


def test_a_bar_shows_size_connections_and_reused_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What people want to know, and the terminal is left with a whole line."""
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("COLUMNS", "120")
    bar = Bar()
    for event in EVENTS[1:]:
        bar.show(event)
    bar.close()
    assert "100%" in stderr.getvalue()
    assert "0 connections, 3 parts reused" in stderr.getvalue()
    assert stderr.getvalue().endswith("\n")


def test_a_bar_of_unknown_size_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream without a length has a bar too."""
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    bar = Bar()
    bar.show(EVENTS[0])
    bar.close()
    assert "1 connections" in stderr.getvalue()


def test_a_bar_that_showed_nothing_is_closed_silently(monkeypatch: pytest.MonkeyPatch) -> None:
    """A download that fails at once leaves the terminal alone."""
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    Bar().close()
    assert stderr.getvalue() == ""


@pytest.mark.parametrize("progress", [1, "yes", object(), {}])
def test_anything_else_is_a_type_error(progress: object) -> None:
    """A mistake is told and not ignored."""
    with pytest.raises(UsageError, match="want True, a function, a tqdm or an fsspec Callback"):
        Listeners(progress)


def test_the_speed_is_that_of_the_last_seconds() -> None:
    """A slow start is forgotten after thirty events."""
    meter = Meter()
    slow = [meter.event(second / 10, 0, None, 0, 1, 0) for second in range(30)]
    fast = [meter.event(3 + second / 10, 0, None, 1000 * (second + 1), 1, 0) for second in range(30)]
    assert slow[-1].bytes_per_second == 0
    assert fast[-1].bytes_per_second == pytest.approx(10_000)


def test_the_first_event_has_no_speed() -> None:
    """Nothing is divided by no time."""
    assert Meter().event(0.0, 0, None, 5, 1, 0).bytes_per_second == 0.0


def test_what_is_published_is_done_though_its_time_is_up() -> None:
    """A file that is there cannot be "not done": the last event is told, and nothing is raised."""
    events: list[ProgressEvent] = []
    teller = Teller(events.append, "object", 1e-9, Fetched(size=5))
    with pytest.raises(NetworkError, match="not done within"):
        teller.tell(4, 1)
    teller.tell(5, 0, final=True)
    assert [event.done for event in events] == [5]
