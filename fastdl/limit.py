"""How many connections to use: found by trying more while the goodput rises, and by what the server refuses.

A state machine without input or output; whoever asks tells it the time and the counts.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

START = 8  # connections to begin with: few for any server, enough to see what more of them bring
RISE = 1.1  # by how much the goodput must rise for more connections to be worth keeping
MANY, RISE_OF_MANY = 32, 1.5  # more than these only where each still brings its own: no share is taken from others
_LEAP = 4  # times as many connections the next step tries, until four times as many brought too little; then twice
LOSS = 1.25  # by how much fewer connections may lower it where processors are short
_EXCUSES = 3  # refusals of as many connections as were served before that may be the server's own delay
_PATIENCE = 1.0  # seconds that new connections get to bring a rise: TCP's slow start takes some round trips
_SHORT_PATIENCE = 0.1  # the same where processors are short
_SERVED = 0.75  # of the connections allowed: one that stalls must not keep the others from being judged
_REST, _LONGEST_REST = 3.0, 60.0  # seconds until more connections are tried again where they brought nothing
_REFUSED_REST = 0.5  # the same after a refusal, for a step of an eighth
_FEWER = 0.75  # times as many after a refusal of so many as were served: one less each time would be as many refusals
_TOGETHER = 0.1  # seconds in which refusals come that are one change
_SHARES = 8  # for each connection while more come: for those, and few enough that requests cost little


@dataclass(frozen=True, slots=True)
class Level:
    """From ``seconds`` on ``connections`` were allowed; ``bytes_per_second`` is what came before the change."""

    seconds: float
    connections: int
    bytes_per_second: int


class _Phase(enum.Enum):
    CLIMB = enum.auto()  # this level is worth it, the next is to be tried
    TEST = enum.auto()  # this level is judged against the one below
    LOWER = enum.auto()  # processors are short: fewer are judged against as many as there were
    HOLD = enum.auto()  # more brought nothing, are not allowed or were refused; tried again after a rest


# Seconds of goodput looked at, at least, once all connections deliver.
_WINDOWS = {_Phase.CLIMB: 0.05, _Phase.TEST: 0.03, _Phase.LOWER: 0.05, _Phase.HOLD: _PATIENCE}


class Limit:
    """At most ``most`` connections at once, ``allowed`` of them now.

    ``least`` of them are kept where processors are short. The seconds of ``levels`` count from ``now``.
    """

    def __init__(self, most: int, now: float, *, start: int = START, least: int = 1) -> None:
        self.most = most
        self.allowed = self._start = min(start, most)
        self.refused_beyond = 0  # connections that the server still served when it refused one; 0 if it never did
        self.rising = True  # whether the last step up was worth it, or is still being judged
        self.rate = 0.0  # bytes per second at the last level that was worth it
        self.levels: list[Level] = []
        self._began, self._refused_at = now, now - _TOGETHER
        self._told = 1  # levels; the first one is no news
        self._phase = _Phase.CLIMB if self.allowed < most else _Phase.HOLD
        self._least = min(least, self.allowed)
        self._may_lower = self._least < self.allowed
        self._leap = _LEAP
        self._below = self.allowed  # connections to return to if the level under test brings nothing
        self._rest, self._try_at = _REST, now
        self._served, self._excuses = 0, 0  # connections that all delivered at once; refusals of them to be excused
        self._since: float | None = None  # when this level began to be judged, ...
        self._window, self._from, self._counted = 0.0, 0.0, 0  # ... and its current window
        self._change(now, self.allowed)

    @property
    def trying(self) -> bool:
        """Whether a judgement is due within moments."""
        return self._phase is not _Phase.HOLD

    def shares(self, fetching: int) -> int:
        """Return among how many connections what nobody fetches yet is to be shared.

        While more connections come, among those that have nothing yet; then among all, again and again.
        """
        if self.refused_beyond or not self.trying:
            return self.allowed
        return max(1, min(self.most - fetching, _SHARES * self.allowed))

    def news(self, now: float) -> list[Level]:
        """Return the levels that came since the last call and will not change any more."""
        final = len(self.levels) - (now - self._refused_at < _TOGETHER)
        news = self.levels[self._told : final]
        self._told += len(news)
        return news

    def observe(self, now: float, received: int, delivering: int, served: int, fetching: int, *, short: bool) -> None:
        """Judge: ``received`` bytes in all, ``delivering`` of ``fetching`` connections are in the middle of an answer.

        ``served`` counts also those that wait for their next one: what that costs belongs to what a level brings.

        ``short``: processors are, rather than connections. Then each thread more costs some of what is short: as few
        as can be are tried first, and kept if they bring as much; more are tried later, and must show a rise at once.
        """
        if delivering == self.allowed:
            self._served, self._excuses = delivering, _EXCUSES
        lowering = self._phase is _Phase.LOWER and fetching > self.allowed
        if lowering or fetching < self.allowed or served < _SERVED * self.allowed:
            self._since = None  # too little to do, answers still to come or to end: nothing to be learnt
            return
        if self._since is None:
            self._since, self._window = now, _WINDOWS[self._phase]
            self._from, self._counted = now, received
        if now - self._from < self._window:
            return
        rate = (received - self._counted) / (now - self._from)
        self._judge(now, rate, now - self._since, short=short)
        self._from, self._counted = now, received
        if self._since is not None:  # the last word on this level is due in time
            due = max(_WINDOWS[self._phase], self._since + _PATIENCE - now)
            self._window = min(2 * self._window, _PATIENCE, due)

    def refused(self, now: float, serving: int) -> None:
        """Note that the server refused a connection while ``serving`` others were under way.

        It may have refused before it noticed that another one was over: as many as it served at once before are
        asked for again, a few times.
        """
        if self.allowed == self._served == serving + 1 and self._excuses:
            self._excuses -= 1
            return
        if self.trying or not self.refused_beyond:
            self._rest = min(_LONGEST_REST, 2 * self._rest) if self.refused_beyond else _REFUSED_REST
        if serving < self.allowed <= self._served:  # so many were served at once before: it counts requests, not these
            self.refused_beyond = max(1, int(_FEWER * self.allowed))
        else:  # towards the end few are under way, and the server may not have noticed that we closed others
            self.refused_beyond = max(1, serving, self._served - 1)
        self._phase, self._try_at = _Phase.HOLD, now + self._rest
        if self.refused_beyond < self.allowed:
            self._served = min(self._served, self.refused_beyond)
            if now - self._refused_at < _TOGETHER:
                now = self._began + self.levels.pop().seconds
            else:
                self._refused_at = now
            self._change(now, self.refused_beyond)

    def _judge(self, now: float, rate: float, age: float, *, short: bool) -> None:
        if self._phase is _Phase.TEST:
            rise = RISE if self.allowed <= MANY else RISE_OF_MANY
            if self.allowed > 2 * self._below:  # half as many may have brought as much
                rise *= 2
            if rate <= rise * self.rate and not self.refused_beyond:
                if age >= (_SHORT_PATIENCE if short else _PATIENCE):
                    self._reject(now, short=short)
                return
            self.rising = True
            self._phase = _Phase.HOLD if self.refused_beyond or self.allowed == self.most else _Phase.CLIMB
            self._try_at = now + self._rest
        if self._phase is _Phase.LOWER:
            self._phase, self._try_at = _Phase.HOLD, now + self._rest
            if rate * LOSS < self.rate:  # it was not for want of processors that they were not faster
                self._phase = _Phase.CLIMB if self.rising else _Phase.HOLD
                self._change(now, self._below)
            else:
                self._leap = 2
            return
        self.rate = rate
        if self._phase is _Phase.CLIMB and short and self._may_lower and self.allowed <= self._start:
            self._below = self.allowed
            self._lower(now)
        elif self._phase is _Phase.CLIMB or (now >= self._try_at and self.allowed < self.most):
            self._phase, self._below = _Phase.TEST, self.allowed
            step = max(1, self.allowed // 8) if self.refused_beyond else (self._leap - 1) * self.allowed
            self._change(now, min(self.most, self.allowed + step))

    def _reject(self, now: float, *, short: bool) -> None:
        if self.allowed > 2 * self._below:
            self._leap = 2
            if not short:  # what is between them may be worth it
                self._change(now, 2 * self._below)
                return
        self.rising, self._phase = False, _Phase.HOLD
        self._try_at, self._rest = now + self._rest, min(_LONGEST_REST, 2 * self._rest)
        if short and self._may_lower and self._below <= self._start:
            self._lower(now)
        else:
            self._change(now, self._below)

    def _lower(self, now: float) -> None:
        self._phase, self._may_lower = _Phase.LOWER, False
        self._change(now, self._least)

    def _change(self, now: float, connections: int) -> None:
        if connections != self.allowed or not self.levels:
            self._since = None
            self.levels.append(Level(round(now - self._began, 3), connections, round(self.rate)))
        self.allowed = connections
