"""A run of parts, window by window: how much is asked for, what is told, and when a broken transfer goes on."""

from __future__ import annotations

import itertools
import os
import random
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from fastdl.access import FileReader, Writer
from fastdl.digest import Hasher
from fastdl.errors import DiskError, NetworkError, ObjectChanged, RangeMismatch, Refused, Truncated
from fastdl.fetch import MIN_WINDOW, WINDOW, WORTH_CONTINUING, SpanFetch, next_window, rehash
from fastdl.http import Transport
from fastdl.messages import Fetch, Line, Request
from fastdl.plan import Plan, Run
from fastdl.validator import Validator
from tests.servers.scripted import (
    Exchange,
    Handler,
    first_of,
    ignores_range,
    other_fields,
    ranged,
    script,
    serving,
    short_206,
    status,
    truncate_after,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastdl.digest import Digest
    from fastdl.http import Response
    from tests.servers.scripted import Server

DATA = random.Random(6).randbytes(400_000)
KIB = 1024


def digests_of(plan: Plan, first: int, stop: int) -> list[Digest]:
    """Compute what must be told of the parts ``[first, stop)``, each in one piece."""
    found = []
    for index in range(first, stop):
        hasher = Hasher(index)
        hasher.update(memoryview(DATA)[slice(*plan.bounds(Run(index, index + 1)))])
        found.append(hasher.digest())
    return found


@dataclass
class Ears:
    """A listener that notes all it is told, in order."""

    told: list[tuple[str, Any]] = field(default_factory=list)
    lets: int = 2**40  # bytes at a time
    renewals: int = 0
    watched: list[Response | None] = field(default_factory=list)

    def watch(self, response: Response | None) -> None:
        """Note whether an answer is being read."""
        self.watched.append(response)

    def allowed(self, nbytes: int) -> int:
        """Allow at most ``lets``."""
        self.told.append(("allowed", nbytes))
        return min(nbytes, self.lets)

    def settle(self) -> None:
        """Wait for nothing."""
        self.told.append(("settle", None))

    def renewed(self) -> bool:
        """Tell of a renewal as often as there was one."""
        self.renewals -= 1
        return self.renewals >= 0

    def progress(self, nbytes: int) -> None:
        """Note how many."""
        self.told.append(("progress", nbytes))

    def report(self, first: int, digests: tuple[Digest, ...]) -> None:
        """Note which."""
        self.told.append(("report", (first, digests)))

    def heard(self, kind: str) -> list[Any]:
        """List what was told of one kind."""
        return [what for name, what in self.told if name == kind]

    @property
    def reports(self) -> list[tuple[int, int]]:
        """The parts of each report."""
        return [(first, first + len(digests)) for first, digests in self.heard("report")]

    @property
    def digests(self) -> list[Digest]:
        """The digests of all reports."""
        return [digest for _, digests in self.heard("report") for digest in digests]


@dataclass
class Scene:
    """A span against a server, an output and ears of its own."""

    server: Server
    transport: Transport
    fd: int
    ears: Ears = field(default_factory=Ears)
    took: float = 0.0  # seconds that each window seems to take

    def span(self, plan: Plan, run: Run, *, store: bool = True) -> SpanFetch:
        """Make a span; its clock is asked twice for each window."""
        order = Fetch(0, 1, 0, plan, run, Request(self.server.url()), Validator('"v1"'), store)
        now = [0.0]

        def clock() -> float:
            now[0] += self.took
            return now[0]

        return SpanFetch(order, self.transport, Writer(self.fd, WINDOW), self.ears, clock)

    def ranges(self) -> list[tuple[int, int | None] | None]:
        """List the bytes that were asked for."""
        return [seen.range for seen in self.server.log]


@contextmanager
def scene(handler: Handler | None = None, **settings: float) -> Iterator[Scene]:
    """Yield a scene."""
    transport = Transport(Line(read_timeout=5.0), 1)
    fd = os.memfd_create("output")
    try:
        with serving(handler or ranged(DATA)) as server:
            made = Scene(server, transport, fd, took=settings.get("took", 0.0))
            yield made
    finally:
        transport.close()
        os.close(fd)


@pytest.mark.parametrize(
    ("took", "window", "then"),
    [
        (0.26, 4096, 2048),
        (0.26, 2048, 1024),
        (0.26, 1024, 1024),
        (0.26, 1500, 1024),
        (60.0, 262_144, 131_072),
        (0.25, 4096, 4096),
        (0.1, 4096, 4096),
        (0.02, 4096, 4096),
        (0.019, 4096, 16_384),
        (0.0, 65_536, 262_144),
        (0.0, 100_000, 262_144),
        (0.0, 262_144, 262_144),
    ],
)
def test_windows_follow_the_line(took: float, window: int, then: int) -> None:
    """A quarter of a second is too long, a fiftieth is short; never below 1 KiB, never above 256."""
    assert next_window(window, took) == then


@pytest.mark.parametrize(
    ("part_size", "took", "start", "windows"),
    [
        (64 * KIB, 0.0, 0, [4096, 12_288, 49_152, *[65_536] * 5, 6784]),
        (64 * KIB, 0.0, 65_536, [4096, 12_288, 49_152, *[65_536] * 4, 6784]),
        # No window is wider than a part, and none goes on into the next one.
        (40_000, 0.0, 40_000, [4096 - 40_000 % 4096, *[16_384 - 40_960 % 16_384], 30_848, *[40_000] * 8]),
        (100_000, 0.1, 0, None),
        (64 * KIB, 1.0, 393_216, [4096, 2048, 640]),
        # Parts smaller than a window share one, as many as are whole.
        (16_383, 0.0, 0, [4096, 12_287, *[16_383] * 23, 6808]),
        (5_000, 0.0, 0, [4096, 10_904, *[15_000] * 25, 10_000]),
        (9_000, 0.0, 0, [4096, 4904, *[9_000] * 43, 4_000]),
        (1_000, 0.0, 7_000, [4000, *[16_000] * 24, 5_000]),
        (16_384, 0.0, 0, [4096, 12_288, *[16_384] * 23, 6784]),
    ],
)
def test_windows_end_at_multiples_of_their_size_and_at_the_end_of_a_part(
    part_size: int, took: float, start: int, windows: list[int] | None
) -> None:
    """So that each fills whole pages, and no part is begun while the last one is at stake."""
    plan = Plan(len(DATA), part_size)
    first = start // part_size
    with scene(took=took) as made:
        made.span(plan, Run(first, plan.count)).run()
        seen = made.ears.heard("progress")
        assert os.pread(made.fd, len(DATA), start) == DATA[start:]
    if windows is not None:
        assert seen == windows
    else:  # neither fast nor slow: pages, but for the ends of parts
        assert seen == steps(100_000, 4096)
    assert sum(seen) == len(DATA) - start
    assert at_stake(part_size, start, seen) <= max(part_size, MIN_WINDOW)
    assert made.ears.digests == digests_of(plan, first, plan.count)


def at_stake(part_size: int, start: int, windows: list[int]) -> int:
    """Return the most bytes that were ever received and in no finished part, while a window was stored."""
    most = 0
    for nbytes in windows:
        most = max(most, start % part_size + nbytes)
        start += nbytes
    return most


def steps(part_size: int, window: int) -> list[int]:
    """List the lengths of windows that end at multiples of one size, at ends of parts and at the end of all."""
    ends = {*range(window, len(DATA), window), *range(part_size, len(DATA), part_size), len(DATA)}
    return [stop - start for start, stop in itertools.pairwise([0, *sorted(ends)])]


def test_a_window_is_told_after_it_was_stored_and_stored_after_what_was_told_is_marked() -> None:
    """Else a kill could lose more than one part, or a mark could come before its bytes."""
    plan = Plan(10_000, 10_000)
    with scene(ranged(DATA[:10_000])) as made:
        order: list[tuple[str, Any]] = made.ears.told
        really = os.pwrite

        def noted(fd: int, data: memoryview, at: int) -> int:
            order.append(("write", (at, len(data))))
            return really(fd, data, at)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "pwrite", noted)
            made.span(plan, Run(0, 1)).run()
    digests = (made.ears.digests[0],)
    windows = [(0, 4096, 4096), (4096, 5904, 5904)]
    expected: list[tuple[str, Any]] = []
    for start, nbytes, asked in windows:
        expected += [("allowed", asked), ("settle", None), ("write", (start, nbytes)), ("progress", nbytes)]
    assert [each for each in order if each[0] != "report"][:-1] == expected
    assert order[-2] == ("report", (0, digests))
    assert made.ears.watched[0] is not None
    assert made.ears.watched[1:] == [None]


def test_no_more_is_received_than_is_allowed() -> None:
    """A limit of the rate cuts windows."""
    plan = Plan(len(DATA), 100_000)
    with scene() as made:
        made.ears.lets = 999
        made.span(plan, Run(3, 4)).run()
        assert set(made.ears.heard("progress")[:-1]) == {999}
        assert made.ears.digests == digests_of(plan, 3, 4)


def test_an_answer_for_comparison_is_hashed_and_not_stored() -> None:
    """The output keeps what it has, to the byte."""
    plan = Plan(len(DATA), 100_000)
    with scene() as made:
        made.span(plan, Run(1, 3), store=False).run()
        assert os.fstat(made.fd).st_size == 0
        assert made.ears.digests == digests_of(plan, 1, 3)
        assert sum(made.ears.heard("progress")) == 200_000


@pytest.mark.parametrize("first", [0, 1])
def test_some_progress_earns_a_broken_transfer_an_immediate_continuation(first: int) -> None:
    """At the byte it broke at, and as often as it gets on."""
    plan = Plan(len(DATA), 150_000)
    start = 150_000 * first
    breaks = {1: truncate_after(WORTH_CONTINUING), 2: truncate_after(WORTH_CONTINUING + 1)}
    with scene(script(breaks, otherwise=ranged(DATA))) as made:
        span = made.span(plan, Run(first, 3))
        span.run()
        assert made.ranges() == [(at, len(DATA)) for at in (start, start + 65_536, start + 2 * 65_536 + 1)]
        assert (span.requests, span.retries) == (3, 2)
        assert made.ears.digests == digests_of(plan, first, 3)
        assert os.pread(made.fd, len(DATA), start) == DATA[start:]


@pytest.mark.parametrize("first", [0, 1])
def test_too_little_progress_gives_the_run_back(first: int) -> None:
    """To wait, as a server that breaks at once should not be asked again at once; later it goes on where it was."""
    plan = Plan(len(DATA), 150_000)
    start = 150_000 * first
    with scene(script({1: truncate_after(WORTH_CONTINUING - 1)}, otherwise=ranged(DATA))) as made:
        span = made.span(plan, Run(first, 3))
        with pytest.raises(Truncated) as caught:
            span.run()
        assert str(caught.value) == f"{made.server.url()}: the body ended before byte {start + 150_000}"
        assert (span.requests, span.retries) == (1, 0)
        span.run()
        assert made.ranges() == [(start, len(DATA)), (start + 65_535, len(DATA))]
        assert (span.requests, span.retries) == (2, 0)
        assert made.ears.digests == digests_of(plan, first, 3)


def test_a_renewed_connection_needs_no_progress() -> None:
    """It was broken on purpose, once."""
    plan = Plan(len(DATA), 100_000)
    with scene(truncate_after_all(0)) as made:
        made.ears.renewals = 2
        span = made.span(plan, Run(0, 1))
        with pytest.raises(NetworkError):
            span.run()
        assert (span.requests, span.retries) == (3, 2)


def truncate_after_all(nbytes: int) -> Handler:
    """Break every answer."""
    return script(dict.fromkeys(range(1, 100), truncate_after(nbytes)), otherwise=ranged(DATA))


def test_a_shorter_range_is_continued_and_is_no_failure() -> None:
    """It is legal, however little it is."""
    plan = Plan(len(DATA), 100_000)
    with scene(script(dict.fromkeys(range(1, 4), short_206(1000)), otherwise=ranged(DATA))) as made:
        span = made.span(plan, Run(1, 3))
        span.run()
        assert made.ranges() == [(at, 300_000) for at in (100_000, 101_000, 102_000, 103_000)]
        assert (span.requests, span.retries) == (4, 0)
        assert made.ears.digests == digests_of(plan, 1, 3)


def test_an_open_answer_is_used_before_another_is_asked_for() -> None:
    """It counts as no request: somebody else sent it."""
    plan = Plan(len(DATA), 100_000)
    with scene(script({1: short_206(30_000)}, otherwise=ranged(DATA))) as made:
        span = made.span(plan, Run(1, 3))
        answer = made.transport.open(Request(made.server.url()), (("Range", "bytes=100000-299999"),))
        span.run(answer)
        assert made.ranges() == [(100_000, 300_000), (130_000, 300_000)]
        assert span.requests == 1
        assert made.ears.digests == digests_of(plan, 1, 3)


@pytest.mark.parametrize(
    ("handler", "kind", "text"),
    [
        (status(404), Refused, "answered status 404"),
        (status(500), Refused, "answered status 500"),
        (status(304), Refused, "answered status 304"),
        (status(416, {"Content-Range": "bytes */400000"}), Refused, "answered status 416"),
        (status(416, {"Content-Range": "bytes */399999"}), ObjectChanged, "it had 400000 bytes, has 399999"),
        (ranged(DATA, etag='"v2"'), ObjectChanged, "was replaced during the download"),
        (ranged(DATA[:-1]), ObjectChanged, "it had 400000 bytes, has 399999"),
        (ignores_range(DATA), RangeMismatch, "answered status 200 with no Content-Range"),
        (ignores_range(DATA, etag='"v2"'), ObjectChanged, "was replaced during the download"),
        (script({1: other_fields({"Content-Range": None})}, ranged(DATA)), RangeMismatch, "with no Content-Range"),
    ],
)
def test_an_answer_that_is_not_the_range_is_not_used(handler: Handler, kind: type[Exception], text: str) -> None:
    """Not a byte of it is stored or told, it is not asked for again, and its end is told to who watches."""
    plan = Plan(len(DATA), 100_000)
    now = [handler]
    with scene(first_of(now)) as made:
        span = made.span(plan, Run(1, 3))
        with pytest.raises(kind, match=text):
            span.run()
        assert (made.ears.told, len(made.server.log)) == ([], 1)
        assert os.fstat(made.fd).st_size == 0
        assert made.ears.watched[0] is not None
        assert made.ears.watched[1:] == [None]
        # Its connection is not left open: the only one that there may be is free again.
        now[0] = ranged(DATA)
        span.run()
        assert made.ears.digests == digests_of(plan, 1, 3)


def test_an_exact_range_under_status_200_is_one() -> None:
    """As some servers answer."""

    def handler(exchange: Exchange) -> None:
        fields = {"Content-Range": "bytes 100000-199999/400000", "Content-Length": "100000", "ETag": '"v1"'}
        exchange.reply(200, fields, [DATA[100_000:200_000]])

    plan = Plan(len(DATA), 100_000)
    with scene(handler) as made:
        made.span(plan, Run(1, 2)).run()
        assert made.ears.digests == digests_of(plan, 1, 2)


@pytest.mark.parametrize(
    ("at", "stop", "left"),
    [
        (None, 2, 3),  # at least one part is kept
        (None, 3, 3),
        (None, 4, 4),
        (None, 6, 6),
        (None, 7, 6),
        (100_000, 0, 3),
        (100_001, 0, 3),
        (150_000, 0, 3),
        (150_000, 4, 4),
        (150_001, 0, 4),
        (200_000, 0, 4),
        (200_000, 6, 6),
        (249_999, 3, 5),
        (299_999, 3, 6),
    ],
)
def test_a_trimmed_run_keeps_what_it_began(at: int | None, stop: int, left: int) -> None:
    """And is told to the part: nobody else fetches it, and nobody fetches the rest twice."""
    plan = Plan(len(DATA), 50_000)
    answers: list[int] = []

    class Trimming(Ears):
        def allowed(self, nbytes: int) -> int:
            done = 100_000 + sum(self.heard("progress"))
            if at is None or answers or done < at:
                return nbytes if at is None or answers else min(nbytes, at - done)
            answers.append(span.trim(stop))
            return nbytes

    with scene() as made:
        made.ears = Trimming()
        span = made.span(plan, Run(2, 6))
        if at is None:
            answers.append(span.trim(stop))
        span.run()
        told = [part for each in made.ears.reports for part in range(*each)]
        assert (answers, told) == ([left], list(range(2, left)))
        assert os.fstat(made.fd).st_size == left * 50_000


def test_a_run_that_ends_the_object_is_trimmed_to_its_last_byte() -> None:
    """The last part is shorter than the others, and still one part."""
    plan = Plan(len(DATA), 150_000)
    with scene() as made:
        span = made.span(plan, Run(0, 3))
        assert span.trim(3) == 3
        assert span.trim(2) == 2
        assert span.trim(3) == 2
        span.run()
        assert made.ranges() == [(0, 300_000)]
        assert made.ears.reports == [(0, 1), (1, 2)]


def read_back(size: int, part_size: int, run: Run, cut: int | None = None) -> tuple[Ears, list[tuple[int, int]]]:
    """Hash a run of parts of a file; return what was told, and where each read began and memory was let go."""
    plan = Plan(size, part_size)
    ears, calls = Ears(), []
    fd = os.memfd_create("output")
    try:
        os.pwrite(fd, (DATA * 3)[: size if cut is None else cut], 0)

        class Noting(FileReader):
            def read(self, start: int, nbytes: int) -> memoryview:
                calls.append((start, nbytes))
                return super().read(start, nbytes)

            def forget(self, stop: int) -> None:
                calls.append((stop, 0))

        rehash(plan, run, Noting(fd, WINDOW), ears)
    finally:
        os.close(fd)
    return ears, calls


def test_parts_on_the_disk_are_told_many_at_a_time() -> None:
    """Thirty-two and more, never part of a run twice, and the rest at the end."""
    ears, _ = read_back(400_000, 4_000, Run(10, 100))
    assert ears.reports == [(10, 75), (75, 100)]
    assert ears.digests == digests_of(Plan(400_000, 4_000), 10, 100)
    assert sum(ears.heard("progress")) == 360_000


def test_parts_larger_than_a_window_are_read_in_windows() -> None:
    """And a window lets go of what is behind it."""
    ears, calls = read_back(1_000_000, 500_000, Run(1, 2))
    assert calls == [(500_000, 262_144), (762_144, 0), (762_144, 237_856), (1_000_000, 0)]
    assert (ears.reports, ears.heard("progress")) == ([(1, 2)], [262_144, 237_856])


def test_reports_wait_for_thirty_two_parts() -> None:
    """A message for each would cost more than the hash of a small part."""
    size = 40 * WINDOW
    ears = Ears()
    plan = Plan(size, WINDOW)
    fd = os.memfd_create("output")
    try:
        os.ftruncate(fd, size)
        rehash(plan, Run(0, 40), FileReader(fd, WINDOW), ears)
    finally:
        os.close(fd)
    assert ears.reports == [(0, 32), (32, 40)]


def test_a_file_that_is_too_short_is_an_error_with_the_place() -> None:
    """Who truncated it did so while it was hashed; what was told before stays true."""
    with pytest.raises(DiskError) as caught:
        read_back(400_000, 100_000, Run(0, 4), cut=250_000)
    assert str(caught.value) == "the output ends before byte 250000: another process truncated it"


def test_a_span_can_be_trimmed_by_another_thread_while_it_receives() -> None:
    """The answer that is open is read as far as it is needed, and the next request asks for no more."""
    plan = Plan(len(DATA), 50_000)
    gate = threading.Event()
    with scene(script({1: short_206(70_000)}, otherwise=ranged(DATA))) as made:
        span = made.span(plan, Run(0, 8))

        class Waiting(Ears):
            def allowed(self, nbytes: int) -> int:
                assert gate.wait(20)
                return super().allowed(nbytes)

        span._listener = ears = Waiting()
        thread = threading.Thread(target=span.run)
        thread.start()
        made.server.wait_for(1)
        assert span.trim(3) == 3
        gate.set()
        thread.join(20)
        assert not thread.is_alive()
        assert made.ranges() == [(0, 400_000), (70_000, 150_000)]
        assert ears.reports == [(0, 1), (1, 2), (2, 3)]
