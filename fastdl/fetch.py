"""One order carried out: fetch a run of parts in one GET, or hash a run of parts that is on the disk."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Protocol

from fastdl.contract import check_partial, check_satisfiable, check_validator, range_header
from fastdl.digest import Digest, Hasher
from fastdl.errors import DiskError, NetworkError, Truncated
from fastdl.redact import redacted_url

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastdl.access import FileReader, MapReader, Writer
    from fastdl.http import Response, Transport
    from fastdl.messages import Fetch
    from fastdl.plan import Plan, Run

WINDOW = 256 * 1024  # bytes received and hashed at a time: still in the second-level cache when the hashes read it
MIN_WINDOW = 16 * 1024  # what parts that are smaller share
FIRST_WINDOW, LEAST_WINDOW = 4096, 1024  # small until a line has shown that it is fast, so that progress shows
WORTH_CONTINUING = 64 * 1024  # bytes of progress that earn a broken transfer an immediate continuation
_REPORTED = 32  # parts hashed on the disk that one report tells of
_SLOW, _FAST = 0.25, 0.02  # seconds a window may take before it shrinks, and under which it grows
_OK, _PARTIAL = 200, 206


class Listener(Protocol):
    """Who wants to know how an order goes on."""

    def watch(self, response: Response | None) -> None:
        """Take note of the answer that is being read, so that it can be aborted; None after its end."""
        ...

    def allowed(self, nbytes: int) -> int:
        """Return how many of ``nbytes`` may be received now, once any may."""
        ...

    def settle(self) -> None:
        """Return once every part reported is marked: bytes stored beyond it would be lost together with it."""
        ...

    def renewed(self) -> bool:
        """Tell, once, whether the connection was broken to be replaced by another."""
        ...

    def progress(self, nbytes: int) -> None:
        """Take note of ``nbytes`` more bytes received or hashed."""
        ...

    def report(self, first: int, digests: tuple[Digest, ...]) -> None:
        """Take note that the parts from ``first`` on are complete."""
        ...


class Tally:
    """Cuts a stream of bytes that begins at a part's start into parts, and digests each."""

    def __init__(self, plan: Plan, run: Run) -> None:
        self.offset, self.stop = plan.bounds(run)
        self._plan = plan
        self._index = run.first
        self._begin_part()

    def feed(self, window: memoryview) -> tuple[int, tuple[Digest, ...]]:
        """Hash ``window``; return the index of the first part it completed, and the digests of all it completed."""
        first = self._index
        digests: list[Digest] = []
        while window:
            piece = window[: self._part_stop - self.offset]
            self._hasher.update(piece)
            self.offset += len(piece)
            if self.offset == self._part_stop:
                digests.append(self._hasher.digest())
                self._index += 1
                self._begin_part()
            window = window[len(piece) :]
        return first, tuple(digests)

    def _begin_part(self) -> None:
        self._hasher = Hasher(self._index)
        self._part_stop = min((self._index + 1) * self._plan.part_size, self._plan.size)


class SpanFetch:
    """A run of parts on its way; after a failure ``run`` may be called again and goes on at the byte it stopped at."""

    def __init__(
        self,
        order: Fetch,
        transport: Transport,
        writer: Writer,
        listener: Listener,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        plan, run = order.plan, order.run
        self.requests = 0  # sent since the caller last set it to 0
        self.retries = 0
        self._tally = Tally(plan, run)
        self._request = order.request
        self._validator = order.validator
        self._transport = transport
        self._writer = writer
        self._store = order.store
        self._ring = order.ring
        self._listener = listener
        self._clock = clock
        # A window larger than the part would hold finished parts back until it is full.
        self._widest = max(MIN_WINDOW, min(WINDOW, plan.part_size))
        self._window = FIRST_WINDOW
        self._plan = plan
        self._first = run.first
        self._asked = self._tally.stop
        self._claimed = self._tally.offset  # bytes before it are received, or are being received
        self._claiming = threading.Lock()

    def run(self, response: Response | None = None) -> None:
        """Fetch all that is missing of the run; ``response`` is an answer to it that is open already.

        A connection that breaks after some progress is replaced at once, at the byte it broke at. A shorter range than
        asked for is legal (RFC 9110, 15.3.7) and continued likewise.

        Raises:
            NetworkError: no progress; the unfinished part's bytes are not recorded.
            ProtocolError, ObjectChanged, Refused: the answer must not be used.
        """
        while self._tally.offset < self._tally.stop:
            # An answer that is open already was asked for before anybody could trim the run.
            before, stop = self._tally.offset, self._tally.stop if response is None else self._asked
            try:
                self._receive(response or self._open(stop), stop)
            except NetworkError:
                if not self._listener.renewed() and self._tally.offset - before < WORTH_CONTINUING:
                    raise
                self.retries += 1
            response = None

    def trim(self, stop: int) -> int:
        """Leave the parts from ``stop`` on to somebody else, or from the first one on that is not begun.

        Returns which; may be called from any thread.
        """
        with self._claiming:
            begun = -(-self._claimed // self._plan.part_size)
            self._tally.stop = min(self._tally.stop, self._plan.part(max(stop, begun, self._first + 1) - 1).stop)
            return -(-self._tally.stop // self._plan.part_size)

    def _open(self, stop: int) -> Response:
        self.requests += 1
        return self._transport.open(self._request, (range_header(self._tally.offset, stop),))

    def _receive(self, response: Response, stop: int) -> None:
        """Check the answer to a request up to ``stop`` and take its body, unless the run was trimmed meanwhile."""
        self._listener.watch(response)
        try:
            url = response.request.url
            if response.status not in (_OK, _PARTIAL):
                check_satisfiable(response.status, response.headers, url, self._plan.size)
                raise response.refused()
            check_validator(response.headers, url, self._validator)
            tally = self._tally
            got = check_partial(response.status, response.headers, url, tally.offset, stop, self._plan.size)
            while nbytes := self._claim(got.stop):
                self._receive_window(response, nbytes)
        finally:
            self._listener.watch(None)
            response.finish()

    def _claim(self, stop: int) -> int:
        """Return how many bytes to receive next of an answer that ends at ``stop``; 0 at the end of it or of the run.

        Windows end at multiples of their size, so that each fills whole pages, and at the end of a part, so that no
        connection begins a part while its last one is at stake. Parts smaller than a window share one: as many as are
        whole, or what the last window received of a part would be at stake beside all of this one.
        """
        start, part_size, window = self._tally.offset, self._plan.part_size, self._window
        begun = start % part_size  # bytes of a part that is not finished
        if part_size < MIN_WINDOW:
            nbytes = min(window, max(part_size, window - window % part_size) - begun)
        else:
            nbytes = min(window - start % window, part_size - begun)
        nbytes = self._listener.allowed(nbytes)
        with self._claiming:
            nbytes = max(0, min(nbytes, stop - start, self._tally.stop - start))
            self._claimed = start + nbytes
        return nbytes

    def _receive_window(self, response: Response, nbytes: int) -> None:
        start = self._tally.offset
        view = self._writer.window(nbytes)
        began = self._clock()
        count = response.readinto(view)
        if count == 0:
            raise Truncated(f"{redacted_url(response.request.url)}: the body ended before byte {start + nbytes}")
        self._window = min(self._widest, next_window(self._window, self._clock() - began))
        filled = view[:count]
        self._listener.settle()
        first, digests = self._tally.feed(filled)
        if self._store:
            self._writer.store(start, filled, self._ring)
        self._listener.progress(count)
        if digests:
            self._listener.report(first, digests)


def rehash(plan: Plan, run: Run, reader: MapReader | FileReader, listener: Listener) -> None:
    """Hash the parts of ``run`` as they stand on the disk and report each.

    Raises:
        DiskError: the file is shorter than it was, or cannot be read.
    """
    tally, first = Tally(plan, run), run.first
    found: list[Digest] = []
    while tally.offset < tally.stop:
        view = reader.read(tally.offset, min(WINDOW, tally.stop - tally.offset))
        if not view:
            raise DiskError(f"the output ends before byte {tally.offset}: another process truncated it")
        found.extend(tally.feed(view)[1])
        listener.progress(len(view))
        if len(found) >= _REPORTED or tally.offset == tally.stop:
            listener.report(first, tuple(found))
            first += len(found)
            found.clear()
        reader.forget(tally.offset)


def next_window(window: int, took: float) -> int:
    """Return the size of the next window after one of ``window`` bytes took ``took`` seconds."""
    if took > _SLOW:
        return max(LEAST_WINDOW, window // 2)
    return min(WINDOW, window * 4) if took < _FAST else window
