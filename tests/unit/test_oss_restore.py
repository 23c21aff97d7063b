"""Restorations: what is asked, how often it is looked, when it is given up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fastdl.errors import AccessDenied, Archived, NetworkError, ServerBusy
from fastdl.errors import UsageError as Usage
from fastdl.messages import Request
from fastdl.sources.oss_restore import Restoring, restore
from tests.servers.oss import refusing
from tests.servers.scripted import Handler, hang_up, script, serving, status
from tests.unit.asking import client

if TYPE_CHECKING:
    from collections.abc import Iterable

WAIT = Restoring(wanted=True, wait=True)
GOING_ON = status(200, {"x-oss-restore": 'ongoing-request="true"'})
OVER = status(200, {"x-oss-restore": 'ongoing-request="false", expiry-date="Sun, 16 Apr 2030 08:12:33 GMT"'})


def run(handlers: Iterable[Handler], restoring: Restoring = WAIT) -> tuple[list[float], list[str]]:
    """Restore against these answers; return the waits and the methods of the requests."""
    slept: list[float] = []
    with serving(script(dict(enumerate(handlers, 1)), otherwise=OVER)) as server, client() as transport:

        def ask(method: str, body: bytes = b"") -> Request:
            return Request(server.url("/key"), (), method, follow=False, body=body)

        restore("x", restoring, lambda: ask("POST", b"<x/>"), lambda: ask("HEAD"), transport, slept.append)
        assert server.log[0].body == b"<x/>"
        return slept, [seen.method for seen in server.log]


def test_looks_become_rare() -> None:
    """An archive takes a minute, a cold one hours."""
    slept, methods = run([status(202), *([GOING_ON] * 8)])
    assert slept == [1, 2, 4, 8, 16, 32, 60, 60]
    assert methods == ["POST", *(["HEAD"] * 9)]


@pytest.mark.parametrize("first", [status(200), status(202), refusing(409, "RestoreAlreadyInProgress")])
def test_asked_for_before_is_as_good(first: Handler) -> None:
    """Whoever asked."""
    assert run([first, GOING_ON])[0] == [1]


def test_what_is_transient_is_asked_again() -> None:
    """With the usual waits in between, and no count of looks lost."""
    slept, methods = run([refusing(503, "Busy"), status(202), GOING_ON, refusing(500, "InternalError")])
    assert methods == ["POST", "POST", "HEAD", "HEAD", "HEAD"]
    assert len(slept) == 3


def test_a_connection_that_breaks_is_transient_too() -> None:
    """While it is asked for, and while it is waited for; the one that comes after a break is asked on another."""
    slept, methods = run([hang_up, hang_up, status(202), GOING_ON, hang_up, hang_up, GOING_ON])
    assert methods == ["POST", "POST", "POST", "HEAD", "HEAD", "HEAD", "HEAD", "HEAD"]
    assert 1 in slept
    assert 2 in slept


@pytest.mark.parametrize(
    ("answer", "kind"), [(refusing(403, "AccessDenied"), AccessDenied), (refusing(503, "Busy"), ServerBusy)]
)
def test_what_is_not_ends_it(answer: Handler, kind: type[Exception]) -> None:
    """At once, or after as many failures in a row as elsewhere."""
    with pytest.raises(kind):
        run([answer] * 20)


def test_not_waiting_says_what_next() -> None:
    """It goes on without us."""
    with pytest.raises(Archived, match="run again then, or with --wait"):
        run([status(202)], Restoring(wanted=True))


def test_who_waits_may_have_had_enough() -> None:
    """What the wait raises ends it: --max-time, a signal."""

    def enough(_seconds: float) -> None:
        raise NetworkError("not done within 5 seconds")

    with serving(GOING_ON) as server, client() as transport:
        request = Request(server.url("/key"))
        with pytest.raises(NetworkError, match="not done within 5 seconds"):
            restore("x", WAIT, lambda: request, lambda: request, transport, enough)


@pytest.mark.parametrize("days", [0, -1, 366])
def test_days_are_bounded(days: int) -> None:
    """As OSS has them, at most; archives allow fewer, and say so."""
    with pytest.raises(Usage, match="must be 1 to 365"):
        Restoring(wanted=True, days=days)
    assert Restoring(wanted=True, days=365).body == b"<RestoreRequest><Days>365</Days></RestoreRequest>"
