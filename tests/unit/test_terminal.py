"""What a signal does to a command, wherever it strikes."""

from __future__ import annotations

import itertools
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from fastdl.terminal import Stopped, stopped_by_signals

if TYPE_CHECKING:
    from collections.abc import Callable


class Finalized:
    """Does something when it is collected, which is where Python drops exceptions."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act

    def __del__(self) -> None:
        """Do it."""
        self._act()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_that_a_finalizer_swallows_comes_again(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing is said of it."""
    with pytest.raises(Stopped) as caught, stopped_by_signals():
        _finalize(lambda: signal.raise_signal(number))
    assert caught.value.number == number
    assert capsys.readouterr().err == ""


def test_a_stop_may_be_swallowed_more_than_once() -> None:
    """Each time it comes again."""
    with pytest.raises(Stopped), stopped_by_signals():
        _finalize(lambda: signal.raise_signal(signal.SIGINT), _wait, _wait)


def test_what_else_is_dropped_is_reported_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """By whoever reported it before."""
    reported: list[sys.UnraisableHookArgs] = []
    monkeypatch.setattr(sys, "unraisablehook", reported.append)
    with stopped_by_signals():
        Finalized(lambda: int("none"))
    assert isinstance(reported[0].exc_value, ValueError)
    Finalized(lambda: int("none"))
    assert len(reported) == 2


def test_nothing_is_left_of_it_afterwards() -> None:
    """The handlers are the caller's again, and no timer runs."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers], sys.unraisablehook
    with pytest.raises(Stopped), stopped_by_signals():
        _finalize(lambda: signal.raise_signal(signal.SIGINT))
    assert ([signal.getsignal(number) for number in numbers], sys.unraisablehook) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def _finalize(*acts: Callable[[], object]) -> None:
    for act in acts:
        Finalized(act)
    _wait()


def _wait() -> None:
    """Wait for a signal in Python, where it can be raised between any two lines."""
    for _ in itertools.count():
        pass
