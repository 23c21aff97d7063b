"""The plain frozen data that crosses the border between the caller's process and its workers.

Parent to worker: Welcome, Attach (one file descriptor follows), Detach, Fetch, Rehash, Trim, Renew, Abort, Drop. Worker
to parent: Ready, Report, Trimmed.
A worker ends when its pipe does. What crosses has no slots: dataclasses that have some are pickled by Python code, four
times as slow.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fastdl.digest import Digest  # noqa: TC001 - dataclass fields are looked at when unpickled
from fastdl.errors import FastdlError  # noqa: TC001
from fastdl.plan import Plan, Run  # noqa: TC001
from fastdl.redact import keep_secrets
from fastdl.validator import Validator  # noqa: TC001


@dataclass(frozen=True)
class Request:
    """A GET ready to be sent but for its Range: the signed URL and headers, in order.

    ``follow``: a redirect is followed; otherwise it is an answer like any other, because the signature names its host.
    """

    url: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    method: str = "GET"
    follow: bool = True
    body: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        """Note what must not be shown, whatever the answer quotes; a worker does when it sends what it was given."""
        keep_secrets(url=self.url, headers=self.headers)


@dataclass(frozen=True)
class Line:
    """How to reach servers; times in seconds. ``read_timeout`` is the longest time without progress."""

    connect_timeout: float = 10.0
    read_timeout: float = 30.0
    proxy: str = field(default="", repr=False)
    cacert: str = ""
    insecure: bool = False


@dataclass(frozen=True)
class Welcome:
    """The first message to a worker: it runs the slots ``[first_slot, first_slot + slots)``."""

    line: Line
    first_slot: int
    slots: int
    all_slots: int  # of the whole pool, as the shared counters have them


@dataclass(frozen=True)
class Attach:
    """The output that later orders name by ``output``; its descriptor follows by SCM_RIGHTS."""

    output: int


@dataclass(frozen=True)
class Detach:
    """No order will name ``output`` any more, until another is attached under that number."""

    output: int


@dataclass(frozen=True)
class Fetch:
    """Order a connection to fetch the parts of ``run`` in one GET; ``validator`` is what the answer must show.

    Without ``store`` the bytes are hashed and forgotten: the answer is wanted for comparison only. The output may be a
    ``ring`` of so many bytes, which the object passes through.
    """

    slot: int
    number: int  # of the order, unique within a pool: late reports and aborts are told apart by it
    output: int
    plan: Plan
    run: Run
    request: Request
    validator: Validator
    store: bool = True
    ring: int = 0


@dataclass(frozen=True)
class Rehash:
    """Order a slot to hash the parts of ``run`` as they stand on the disk."""

    slot: int
    number: int
    output: int
    plan: Plan
    run: Run


Order = Fetch | Rehash


@dataclass(frozen=True)
class Nudge:
    """Whoever reads what is being fetched wants something: the caller's process wakes itself with it."""


@dataclass(frozen=True)
class Trim:
    """Leave the parts from ``stop`` on of order ``number`` to somebody else; a Trimmed answers."""

    slot: int
    number: int
    stop: int


@dataclass(frozen=True)
class Renew:
    """Go on with order ``number`` over another connection, at the byte it reached: this one crawls."""

    slot: int
    number: int


@dataclass(frozen=True)
class Abort:
    """Take order ``number`` from ``slot``: its connection made no progress."""

    slot: int
    number: int


@dataclass(frozen=True)
class Drop:
    """Close the connections that are idle: the server counts them, and refuses more."""


@dataclass(frozen=True)
class Ready:
    """A worker is up; ``package`` is the file of the fastdl it runs, which must be the caller's own."""

    package: str


@dataclass(frozen=True)
class Trimmed:
    """Order ``number`` now ends before part ``stop``: what was asked, or later, if parts beyond had been begun."""

    slot: int
    number: int
    stop: int


@dataclass(frozen=True)
class Report:
    """Parts ``[first, first + len(digests))`` are in the output, or were hashed there.

    ``finished`` ends the order; ``error`` says why if it ended before its last part. ``requests`` and ``retries``
    count what this order sent since its last report.
    """

    slot: int
    number: int
    first: int
    digests: tuple[Digest, ...]
    finished: bool = False
    error: FastdlError | None = None
    requests: int = 0
    retries: int = 0
