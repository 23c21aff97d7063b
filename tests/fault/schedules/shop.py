"""The server of a schedule: versions of one object, one fault an answer, and answers that wait for a blow."""

from __future__ import annotations

import base64
import hashlib
import random
import threading
from dataclasses import dataclass, replace
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING

from fastcrc import crc64

from tests.servers.scripted import (
    Answer,
    Exchange,
    Handler,
    Server,
    admitted_longer_body,
    chunked,
    closes_afterwards,
    drip,
    gzip_coded,
    hang_up,
    ignores_range,
    informational,
    longer_body,
    multipart_byteranges,
    no_length,
    other_fields,
    ranged,
    raw,
    redirect,
    reset,
    reset_after,
    shifted_206,
    short_206,
    spoiling,
    stall_after,
    stall_before_head,
    status,
    truncate_after,
    wrong_content_range,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fault.schedules.values import Fault, Run, Thing

CANARY = "canary7f3a91"  # stands for every secret: in the URL's query and userinfo, in a header, in a redirect
_EPOCH = 1_735_689_600  # of the first version; a day later for each following one


@dataclass(frozen=True, slots=True)
class Version:
    """One state of the object."""

    number: int
    data: bytes
    headers: dict[str, str]  # validators and promises

    def digest(self, algorithm: str) -> str:
        """Return what ``--checksum`` wants to hear."""
        return hashlib.sha256(self.data).hexdigest() if algorithm == "sha256" else f"{crc64.xz(self.data):016x}"


def make_version(thing: Thing, seed: int, number: int, size: int) -> Version:
    """Make the ``number``-th state of an object."""
    data = random.Random(f"{seed}/{number}").randbytes(size)
    headers = {}
    if thing.validator in ("strong", "weak"):
        headers["ETag"] = f'{"W/" * (thing.validator == "weak")}"v{number}"'
    if thing.validator != "none":
        headers["Last-Modified"] = formatdate(_EPOCH + 86400 * number, usegmt=True)
    if thing.promise == "crc64":
        headers["x-oss-hash-crc64ecma"] = str(crc64.xz(data))
    if thing.promise == "sha256":
        headers["Repr-Digest"] = f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"
    return Version(number, data, headers)


def right_answer(thing: Thing, version: Version) -> Handler:
    """Serve one state of it without a fault."""
    if thing.serving == "whole":
        return ignores_range(version.data, None, version.headers)
    if thing.serving == "chunked":
        return chunked(version.data, fields=version.headers)
    if thing.serving == "endless":
        return no_length(version.data, version.headers)
    headers = dict(version.headers)
    return ranged(version.data, headers.pop("ETag", None), headers.pop("Last-Modified", None), headers)


class Shop:
    """Serves ``thing`` by the rules of one run at a time; :meth:`open` begins a run."""

    def __init__(self, thing: Thing, seed: int) -> None:
        self._thing, self._seed = thing, seed
        self.versions: list[Version] = []
        self.replace(thing.size)
        self.server = Server(self._handle)
        self._lock = threading.Lock()
        self._run: Run | None = None
        self._faults: dict[int, Fault] = {}
        self._first_seen, self._sent_before = 0, 0
        self._gate, self._crowd = threading.Event(), threading.Event()
        self.holding = threading.Event()  # an answer waits for the gate
        self.injected: list[str] = []  # kinds, as they happened
        self._current_from = 0

    @property
    def version(self) -> Version:
        """The one that is served now."""
        return self.versions[-1]

    @property
    def current(self) -> list[Version]:
        """Those that were served at some time of this run."""
        return self.versions[self._current_from :]

    @property
    def requests(self) -> int:
        """How many this run has sent."""
        return len(self.server.log) - self._first_seen

    @property
    def sent(self) -> int:
        """How many bytes of bodies this run was sent."""
        return self.server.sent - self._sent_before

    def replace(self, size: int) -> None:
        """Let the object be another one from now on."""
        self.versions.append(make_version(self._thing, self._seed, len(self.versions), size))

    def open(self, run: Run) -> None:
        """Begin a run."""
        with self._lock:
            self._run = run
            self._faults = {fault.at: fault for fault in run.faults}
            self._first_seen, self._sent_before = len(self.server.log), self.server.sent
            self._gate, self._crowd = threading.Event(), threading.Event()
            self.holding.clear()
            self.injected.clear()
            self._current_from = len(self.versions) - 1

    def release(self) -> None:
        """Let every answer that waits go on, now and from now on."""
        self._gate.set()
        self._crowd.set()

    def _handle(self, exchange: Exchange) -> None:
        with self._lock:
            run, number = self._run, exchange.request.number - self._first_seen
            assert run is not None
            fault = self._faults.get(number)
            if fault is not None:
                self.injected.append(fault.kind)
            if fault is not None and fault.kind == "replaced":
                self.replace(fault.amount)
            version, gate, crowd = self.version, self._gate, self._crowd
        if number > 1:
            crowd.set()
        exchange.otherwise = right = right_answer(self._thing, version)
        if most := run.first if number == 1 else run.each:
            exchange.otherwise = _within(_short(most), right)
        if number == 1 and run.crowd and run.flags.connections > 1:
            exchange.break_body(1, lambda: exchange.hold(crowd))
        if number == run.held:
            exchange.break_body(1, lambda: self._hold(exchange, gate))
        handler = exchange.otherwise if fault is None else self._spoilt(fault, version, gate)
        handler(exchange)

    def _hold(self, exchange: Exchange, gate: threading.Event) -> None:
        self.holding.set()
        exchange.hold(gate)

    def _spoilt(self, fault: Fault, version: Version, gate: threading.Event) -> Handler:
        return KINDS[fault.kind].make(fault, version, gate)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault: its handler, how a run may end because of it (besides well), how often it is chosen."""

    make: Callable[[Fault, Version, threading.Event], Handler]
    codes: frozenset[int]
    weight: int = 4


def _within(fault: Handler, right: Handler) -> Handler:
    def handle(exchange: Exchange) -> None:
        exchange.otherwise = right
        fault(exchange)

    return handle


def _asis(exchange: Exchange) -> None:
    exchange.otherwise(exchange)


def _short(nbytes: int) -> Handler:
    """Give the first ``nbytes`` bytes of a range, or all of it if it has no more."""

    def handle(exchange: Exchange) -> None:
        asked = exchange.request.range
        if asked is not None and (asked[1] is None or asked[0] + nbytes < asked[1]):
            short_206(nbytes)(exchange)
        else:
            exchange.otherwise(exchange)

    return handle


def _flip(fault: Fault, _version: Version, _gate: threading.Event) -> Handler:
    """Flip a byte somewhere in the body, one that exists."""

    def spoil(answer: Answer) -> Answer:
        data = bytearray(answer.content())
        if data and answer.status in (200, 206):
            data[fault.amount % len(data)] ^= 1 + fault.amount % 255
        return replace(answer, body=bytes(data))

    return spoiling(spoil)


def _zeros(_fault: Fault, _version: Version, _gate: threading.Event) -> Handler:
    """Give as many zeros as bytes were due."""
    return spoiling(lambda answer: replace(answer, body=bytes(len(answer.content()))))


def _other_validator(fault: Fault, version: Version, _gate: threading.Event) -> Handler:
    """Name a state that nobody else names."""
    return other_fields({"ETag": f'"other-{version.number}-{fault.amount}-{fault.at}"'})


def _wrong_promise(fault: Fault, _version: Version, _gate: threading.Event) -> Handler:
    wrong = base64.b64encode(hashlib.sha256(str(fault.amount).encode()).digest()).decode()
    return other_fields({"x-oss-hash-crc64ecma": str(fault.amount), "Repr-Digest": f"sha-256=:{wrong}:"})


def _wrong_range(fault: Fault, _version: Version, _gate: threading.Event) -> Handler:
    """Say what cannot be said of the range that was asked for."""
    values: tuple[tuple[str, ...], ...] = (
        (),
        ("bytes 1-0/5",),
        ("bytes 999999999-1000000000/2000000000",),
        ("octets 0-1/2",),
        ("bytes 0-0/1", "bytes 0-0/1"),
        ("bytes 5-7",),
        ("garbage",),
        ("bytes */7",),
    )
    return wrong_content_range(*values[fault.amount % len(values)])


def _junk(fault: Fault, _version: Version, _gate: threading.Event) -> Handler:
    blobs = (
        b"\r\n\r\n",
        b"HTTP/1.1 206\r\n",
        b"HTTP/1.1 9999 Strange\r\n\r\n",
        b"HTTP/1.1 206 Partial Content\r\nContent-Length: 5, 6\r\n\r\nhello",
        b"HTTP/1.1 206 Partial Content\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 206 Partial Content\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99",
    )
    return raw(blobs[fault.amount % len(blobs)])


def _redirected(fault: Fault, _version: Version, _gate: threading.Event) -> Handler:
    """Lead back to the object under another name, or astray."""
    targets = (
        f"/elsewhere?sig={CANARY}",
        f"/object?Signature={CANARY}",
        "",
        "file:///etc/passwd",
        "ftp://127.0.0.1/object",
        "http://[::1",
        "//",
    )
    codes = (301, 302, 303, 307, 308)
    return redirect(targets[fault.amount % len(targets)], codes[fault.amount % len(codes)])


def _busy(fault: Fault, _version: Version, _gate: threading.Event) -> Handler:
    code = (429, 503, 500, 502, 504, 408)[fault.amount % 6]
    wish = (None, "0", "0", "junk", "Thu, 01 Jan 1970 00:00:00 GMT", "1")[fault.amount // 6 % 6]
    return status(code, {} if wish is None else {"Retry-After": wish}, b"<html>\r\nbusy</html>")


def _plain(make: Callable[[Fault], Handler]) -> Callable[[Fault, Version, threading.Event], Handler]:
    return lambda fault, _version, _gate: make(fault)


def _of_ranges(fault: Handler) -> Handler:
    """Spoil ranges alone: of a whole object the same would be a lie that nothing contradicts."""

    def handle(exchange: Exchange) -> None:
        right = exchange.otherwise

        def guarded(inner: Exchange) -> None:
            if (spoil := inner.spoil) is not None:
                inner.spoil = lambda answer: spoil(answer) if answer.status == HTTPStatus.PARTIAL_CONTENT else answer
            right(inner)

        exchange.otherwise = guarded
        fault(exchange)

    return handle


def _fixed(handler: Handler) -> Callable[[Fault, Version, threading.Event], Handler]:
    return lambda _fault, _version, _gate: handler


_FINE: frozenset[int] = frozenset()
_LINE = frozenset((5,))
_ODD = frozenset((5, 6))
_BROKEN = frozenset((6,))
_CHANGED = frozenset((6, 7))
_WRONG = frozenset((8,))

KINDS: dict[str, Kind] = {
    "reset": Kind(_fixed(reset), _LINE),
    "reset_after": Kind(_plain(lambda fault: reset_after(fault.amount)), _LINE, 10),
    "hang_up": Kind(_fixed(hang_up), _LINE),
    "cut": Kind(_plain(lambda fault: truncate_after(fault.amount)), _LINE, 10),
    "stall": Kind(_plain(lambda fault: stall_after(fault.amount)), _LINE, 1),
    "stall_head": Kind(_fixed(stall_before_head()), _LINE, 1),
    "drip": Kind(lambda fault, _version, gate: drip(gate, 0.01, 1 + fault.amount // 8), _FINE, 2),
    "closes": Kind(_fixed(closes_afterwards), _FINE),
    "interim": Kind(_plain(lambda fault: informational(1 + fault.amount % 5)), _FINE, 2),
    "flood": Kind(_fixed(informational(60)), _ODD, 1),
    "junk": Kind(_junk, frozenset((5, 6, 7))),
    "forbidden": Kind(_fixed(status(403, {}, b"<Code>AccessDenied</Code>")), frozenset((4,))),
    "unauthorized": Kind(_fixed(status(401)), frozenset((4,)), 1),
    "missing": Kind(_fixed(status(404)), frozenset((3,))),
    "gone": Kind(_fixed(status(410)), frozenset((3,)), 1),
    "failed": Kind(_fixed(status(412)), _CHANGED, 2),
    "no_range": Kind(_plain(lambda fault: status(416, {"Content-Range": f"bytes */{1 + fault.amount}"})), _CHANGED, 2),
    "no_range_bare": Kind(_fixed(status(416)), _CHANGED, 1),
    "no_data": Kind(_plain(lambda fault: status((204, 205, 304, 202, 207, 300)[fault.amount % 6])), _BROKEN, 2),
    "busy": Kind(_busy, _LINE, 6),
    "redirect": Kind(_redirected, frozenset((2, 5, 6)), 4),
    "wrong_range": Kind(_wrong_range, _CHANGED, 8),
    "shifted": Kind(_plain(lambda fault: shifted_206(1 + fault.amount % 7, 1 + fault.amount % 7)), _CHANGED, 8),
    "longer_range": Kind(_plain(lambda fault: shifted_206(0, 1 + fault.amount % 900)), _CHANGED, 2),
    "short": Kind(_plain(lambda fault: _short(1 + fault.amount)), _FINE, 8),
    "whole": Kind(lambda _f, version, _g: ignores_range(version.data, None, version.headers), _CHANGED),
    "whole_chunked": Kind(lambda _f, version, _g: chunked(version.data, fields=version.headers), _CHANGED, 2),
    "longer": Kind(_plain(lambda fault: longer_body(b"s" * (1 + fault.amount % 9000))), _LINE),
    "admitted": Kind(_plain(lambda f: _of_ranges(admitted_longer_body(b"s" * (1 + f.amount % 9000)))), _CHANGED, 2),
    "gzip": Kind(_fixed(gzip_coded()), _BROKEN, 2),
    "multipart": Kind(_fixed(_of_ranges(multipart_byteranges())), _CHANGED, 2),
    "other_validator": Kind(_other_validator, frozenset((7,))),
    "no_validator": Kind(_fixed(other_fields({"ETag": None, "Last-Modified": None})), frozenset((7,))),
    "no_promise": Kind(_fixed(other_fields({"x-oss-hash-crc64ecma": None, "Repr-Digest": None})), _FINE, 2),
    "wrong_promise": Kind(_wrong_promise, _WRONG, 2),
    "flip": Kind(_flip, _WRONG, 10),
    "zeros": Kind(_zeros, _WRONG, 3),
    "replaced": Kind(_fixed(_asis), frozenset((6, 7, 8)), 14),
}
