"""What is worth another attempt, and when."""

from __future__ import annotations

import random
from email.utils import formatdate

import pytest

from fastdl.errors import (
    AccessDenied,
    DiskError,
    FastdlError,
    IntegrityError,
    NetworkError,
    NotFound,
    ObjectChanged,
    ProtocolError,
    RangeMismatch,
    Refused,
    ServerBusy,
    Truncated,
    UsageError,
)
from fastdl.retry import RETRY_AFTER_CEILING, Attempts, Backoff, is_transient, parse_retry_after, wished_delay

NOW = 1_750_000_000.0


class Highest(random.Random):
    """Draws the upper end."""

    def uniform(self, a: float, b: float) -> float:  # noqa: ARG002 - the lower end is not wanted
        """Return ``b``."""
        return b


@pytest.mark.parametrize("error", [NetworkError("x"), Truncated("x"), ServerBusy("x")])
def test_failures_of_the_line_are_transient(error: FastdlError) -> None:
    """A broken line, an early end and a busy server may be better the next time."""
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        *(kind("x") for kind in (UsageError, NotFound, AccessDenied, ProtocolError, RangeMismatch, ObjectChanged)),
        *(kind("x") for kind in (IntegrityError, DiskError, FastdlError, OSError, ValueError)),
        Refused("x", 503, {}, b""),
    ],
)
def test_nothing_else_is_transient(error: Exception) -> None:
    """What is not known to pass by itself is not tried again."""
    assert not is_transient(error)


def test_the_longest_wait_doubles_up_to_a_ceiling() -> None:
    """Full jitter: the upper end doubles with each failure in a row, and stops growing."""
    backoff = Backoff(base=0.5, ceiling=30.0)
    assert [backoff.delay(failures, Highest()) for failures in (1, 2, 3, 6, 7, 10**9)] == [1, 2, 4, 30, 30, 30]


def test_waits_are_spread_over_all_of_the_interval() -> None:
    """Clients that failed together do not come back together."""
    rng = random.Random(1)
    waits = [Backoff().delay(3, rng) for _ in range(200)]
    assert 0 <= min(waits) < 0.5
    assert 3.5 < max(waits) <= 4


def test_attempts_are_bounded() -> None:
    """The failure that is one too many is raised itself."""
    attempts, last = Attempts(Backoff(attempts=3), random.Random(0)), NetworkError("third")
    attempts.after(NetworkError("first"))
    attempts.after(NetworkError("second"))
    with pytest.raises(NetworkError) as caught:
        attempts.after(last)
    assert caught.value is last


def test_what_is_not_transient_is_raised_at_once() -> None:
    """There is no second attempt at an object that does not exist."""
    with pytest.raises(NotFound):
        Attempts(Backoff(), random.Random(0)).after(NotFound("x"))


def test_the_servers_wish_comes_before_our_own_delay() -> None:
    """Retry-After is obeyed, also when it is longer than any wait of ours."""
    assert Attempts(Backoff(), random.Random(0)).after(ServerBusy("x", 429, 77.0)) == 77.0


def test_a_huge_wish_is_capped() -> None:
    """A server that asks for a day does not make the command look hung."""
    assert wished_delay(ServerBusy("x", 503, 86400.0)) == RETRY_AFTER_CEILING


@pytest.mark.parametrize("error", [ServerBusy("x"), NetworkError("x")])
def test_no_wish_is_none(error: FastdlError) -> None:
    """Zero seconds and nothing said are two things."""
    assert wished_delay(error) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        (formatdate(NOW + 30, usegmt=True), 30.0),
        (formatdate(NOW - 30, usegmt=True), 0.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float) -> None:
    """Both forms of RFC 9110 are read; a date gone by means now."""
    assert parse_retry_after(value, NOW) == seconds


@pytest.mark.parametrize("value", ["9" * 400, "999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_huge_retry_after_is_still_a_number(value: str) -> None:
    """Any number of digits is read, and capped where it is used."""
    seconds = parse_retry_after(value, NOW)
    assert seconds is not None
    assert wished_delay(ServerBusy("x", 503, seconds)) == RETRY_AFTER_CEILING


@pytest.mark.parametrize(
    "value",
    [
        *(
            "",
            "soon",
            "-5",
            "+5",
            "1.5",
            "1e3",
            "0x10",
            "inf",
            "nan",
            "5, 5",
            "\u0663",
            "Wed, 99 Jan 2025 00:00:00 GMT",
        ),
        *("Wed, 01 Jan 2025", "Mon, 01 Jan 99999999999999999999 00:00:00 GMT", "Mon, 01 Jan 2025 99:99:99 GMT"),
    ],
)
def test_a_junk_retry_after_is_no_wish(value: str) -> None:
    """Whatever a server writes there, it neither fails the download nor counts as zero seconds."""
    assert parse_retry_after(value, NOW) is None
