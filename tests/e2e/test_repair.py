"""The whole object is not what was promised: the parts that came wrong are found, named and replaced."""

from __future__ import annotations

import hashlib
import random
import threading
from typing import TYPE_CHECKING

import pytest
from fastcrc import crc64

import fastdl
from tests.e2e.partial import bits, checkpoint_of, leftovers, marked, partial_of
from tests.e2e.processes import run, running
from tests.servers.scripted import (
    Exchange,
    Handler,
    flipped,
    from_request,
    ignores_range,
    ranged,
    script,
    serving,
    stall_after,
    truncate_after,
)

if TYPE_CHECKING:
    from pathlib import Path

KIB = 1 << 10
PART = 128 * KIB
PARTS = 200  # more than the first answer holds
SIZE = PARTS * PART - 333
DATA = random.Random(SIZE).randbytes(SIZE)
CRC = {"x-oss-hash-crc64ecma": str(crc64.xz(DATA))}
RIGHT = ranged(DATA, extra_headers=CRC)
FLAGS = ("-x", 4, "-w", 2, "-p", PART, "--json")


def every(nth: int, right: Handler) -> Handler:
    """Flip one byte somewhere in the body of every ``nth`` answer, the first one included."""

    def handle(exchange: Exchange) -> None:
        exchange.otherwise = right
        asked = exchange.request.range
        if asked is None or exchange.request.number % nth != 1:
            right(exchange)
            return
        nbytes = min(asked[1] or SIZE, SIZE) - asked[0]
        flipped(random.Random(exchange.request.number).randrange(nbytes))(exchange)

    return handle


def once(right: Handler = RIGHT) -> Handler:
    """Flip the first byte of the first answer."""
    return script({1: flipped(0)}, otherwise=right)


def requests(folder: Path) -> list[int]:
    """Return the numbers of the requests for the first byte when one connection repairs: one for each pass."""
    with serving(once()) as server:
        fastdl.download(server.url(), folder / "rehearsal", part_size=PART, connections=1, workers=1)
        (folder / "rehearsal").unlink()
        return [seen.number for seen in server.log if seen.range is not None and seen.range[0] == 0]


@pytest.mark.parametrize("promised", ["store", "user"])
def test_a_byte_flipped_in_every_fifth_answer(tmp_path: Path, promised: str) -> None:
    """Exact by repair, whoever promised the digest; the parts are named, in the result and in the log."""
    output = tmp_path / "out" / "object"
    output.parent.mkdir()
    right = RIGHT if promised == "store" else ranged(DATA)
    flags = () if promised == "store" else ("--checksum", f"crc64={crc64.xz(DATA):016x}")
    with serving(every(5, right)) as server:
        command = run(tmp_path / "logs", server.url(), "-o", output, *FLAGS, "-x", 16, *flags)
        assert server.sent <= 3 * SIZE
    assert output.read_bytes() == DATA
    assert leftovers(output.parent) == ["object"]
    result = command.result
    assert (result["integrity"], result["parts_damaged"]) == ("crc64", [])
    assert result["parts_repaired"]
    assert "repaired: parts " in command.stderr
    assert str(result["parts_repaired"][0]) in command.stderr


def test_exactly_the_part_that_came_wrong_is_named(tmp_path: Path) -> None:
    """One flipped byte: one part is fetched three times, all others twice."""
    with serving(once()) as server:
        result = fastdl.download(server.url(), tmp_path / "out", part_size=PART, connections=1, workers=1)
    assert (tmp_path / "out").read_bytes() == DATA
    assert (result.parts_repaired, result.bytes_fetched) == ((0,), 2 * SIZE + PART)


def test_a_wrong_second_answer_does_not_win(tmp_path: Path) -> None:
    """The first answer came wrong in one part, the second in another: the third decides about both."""
    second = requests(tmp_path)[1]
    with serving(script({1: flipped(0), second: flipped(5 * PART)}, otherwise=RIGHT)) as server:
        result = fastdl.download(server.url(), tmp_path / "out", part_size=PART, connections=1, workers=1)
    assert (tmp_path / "out").read_bytes() == DATA
    assert result.parts_repaired == (0,)
    assert result.bytes_fetched == 2 * SIZE + 2 * PART


@pytest.mark.parametrize("parts", [1, 3, PARTS])
def test_a_byte_flipped_in_every_answer(tmp_path: Path, parts: int) -> None:
    """Exit code 8, no file, nothing kept, and at most three times the bytes."""
    data = DATA[: parts * PART - 1]
    right = ranged(data, extra_headers={"x-oss-hash-crc64ecma": str(crc64.xz(data))})
    output = tmp_path / "out" / "object"
    output.parent.mkdir()

    def spoilt(exchange: Exchange) -> None:
        exchange.otherwise = right
        start, stop = exchange.request.range or (0, len(data))
        flipped_at = random.Random(exchange.request.number).randrange(min(stop or len(data), len(data)) - start)
        flipped(flipped_at)(exchange)

    with serving(spoilt) as server:
        command = run(tmp_path / "logs", server.url(), "-o", output, *FLAGS, expect=8)
        assert server.sent <= 3 * len(data)
    assert leftovers(output.parent) == []
    assert "came different again and again" in command.stderr


def test_bytes_that_were_lost_count(tmp_path: Path) -> None:
    """What came before a connection broke is of the three times as well, so that no third answer is left to ask for."""
    data = DATA[:PART]
    right = ranged(data, extra_headers={"x-oss-hash-crc64ecma": str(crc64.xz(data))})
    faults = {1: truncate_after(1000), 2: flipped(0)}
    with serving(script(faults, otherwise=right)) as server:
        with pytest.raises(fastdl.IntegrityError, match="parts 0 came different"):
            fastdl.download(server.url(), tmp_path / "out")
        assert (server.sent, len(server.log)) == (1000 + 2 * PART, 3)
    assert leftovers(tmp_path) == []


def test_a_wrong_promise_costs_one_more_pass(tmp_path: Path) -> None:
    """What comes the same twice was promised wrongly: exit code 8 after twice the bytes, and the text says so."""
    right = ranged(DATA, extra_headers={"x-oss-hash-crc64ecma": "1"})
    output = tmp_path / "out" / "object"
    output.parent.mkdir()
    with serving(right) as server:
        command = run(tmp_path / "logs", server.url(), "-o", output, *FLAGS, "-x", 1, "-w", 1, expect=8)
        assert server.sent == 2 * SIZE
    assert "the promise is wrong, or the fault is always the same" in command.stderr
    assert leftovers(output.parent) == []


def test_a_digest_that_does_not_combine_is_repaired_too(tmp_path: Path) -> None:
    """A SHA-256 of the user's tells that something is wrong; further answers tell what."""
    with serving(once(ranged(DATA))) as server:
        result = fastdl.download(
            server.url(), tmp_path / "out", part_size=PART, checksum=f"sha256={hashlib.sha256(DATA).hexdigest()}"
        )
    assert (tmp_path / "out").read_bytes() == DATA
    assert result.integrity == "sha256"
    assert result.parts_repaired == (0,)


def test_an_ordered_stream_is_not_repaired(tmp_path: Path) -> None:
    """Without ranges nothing smaller than the whole can be asked for: exit code 8 at once."""
    with serving(once(ignores_range(DATA, extra_headers=CRC))) as server:
        with pytest.raises(fastdl.IntegrityError):
            fastdl.download(server.url(), tmp_path / "out")
        assert server.sent == SIZE
    assert leftovers(tmp_path) == []


def test_an_object_replaced_before_its_repair(tmp_path: Path) -> None:
    """Second answers of another object are no votes: exit code 7."""
    again = requests(tmp_path)[1]
    replaced = from_request(again, then=ranged(DATA, etag='"v2"', extra_headers=CRC), before=once())
    with serving(replaced) as server, pytest.raises(fastdl.ObjectChanged):
        fastdl.download(server.url(), tmp_path / "out", part_size=PART, connections=1, workers=1)
    assert not (tmp_path / "out").exists()


def test_killed_while_it_asks_again(tmp_path: Path) -> None:
    """Nothing was replaced yet: the next run hashes all, finds the same mismatch and repairs it."""
    again = requests(tmp_path)[1]
    output, gate = tmp_path / "out" / "object", threading.Event()
    output.parent.mkdir()

    def handle(exchange: Exchange) -> None:
        exchange.otherwise = RIGHT
        if exchange.request.number == again:
            gate.set()
            stall_after(PART // 2)(exchange)
        else:
            once()(exchange)

    with serving(handle) as server:
        with running(tmp_path / "logs", server.url(), "-o", output, *FLAGS, "-x", 1, "-w", 1) as command:
            command.wait_until(gate.is_set)
            command.kill_tree()
            command.wait_gone()
        assert len(marked(checkpoint_of(output))[1]) == PARTS
        result = run(tmp_path / "logs", server.url(), "-o", output, *FLAGS).result
    assert output.read_bytes() == DATA
    assert leftovers(output.parent) == ["object"]
    assert (result["parts_reused"], result["parts_repaired"]) == (PARTS, [0])


@pytest.mark.parametrize(("wrong", "resume"), [(True, "verify"), (True, "trust"), (False, "verify")])
def test_killed_in_doubt_and_promised_nothing_afterwards(tmp_path: Path, *, wrong: bool, resume: str) -> None:
    """A checksum of the user's told that something is wrong; the next run has none, and is not content all the same."""
    output, gate = tmp_path / "out" / "object", threading.Event()
    output.parent.mkdir()
    right, healthy = ranged(DATA), False

    def handle(exchange: Exchange) -> None:
        exchange.otherwise = right
        if exchange.request.range == (0, SIZE) and not healthy:  # the second answers
            gate.set()
            stall_after(PART // 2)(exchange)
        elif exchange.request.number == 1 and wrong:
            flipped(0)(exchange)
        else:
            right(exchange)

    arguments = ("-o", output, *FLAGS, "-x", 1, "-w", 1)
    checksum = crc64.xz(DATA) if wrong else 1
    with serving(handle) as server:
        with running(tmp_path / "logs", server.url(), *arguments, "--checksum", f"crc64={checksum:016x}") as command:
            command.wait_until(gate.is_set)
            command.kill_tree()
            command.wait_gone()
        assert len(marked(checkpoint_of(output))[1]) == PARTS
        healthy = True
        command = run(tmp_path / "logs", server.url(), *arguments, "--resume", resume, expect=0 if wrong else 8)
    if wrong:
        assert output.read_bytes() == DATA
        assert (command.result["parts_repaired"], command.result["integrity"]) == ([0], "length")
    else:
        assert "an earlier run found it wrong" in command.stderr
        assert leftovers(output.parent) == []


def test_a_doubt_is_gone_once_the_whole_is_proven(tmp_path: Path) -> None:
    """The next run is told the right digest: the records it keeps are good ones."""
    output, gate = tmp_path / "out" / "object", threading.Event()
    output.parent.mkdir()
    right, healthy = ranged(DATA), False

    def handle(exchange: Exchange) -> None:
        exchange.otherwise = right
        if exchange.request.range == (0, SIZE) and not healthy:
            gate.set()
            stall_after(PART // 2)(exchange)
        else:
            right(exchange)

    arguments = ("-o", output, *FLAGS, "-x", 1, "-w", 1)
    with serving(handle) as server:
        with running(tmp_path / "logs", server.url(), *arguments, "--checksum", f"crc64={1:016x}") as command:
            command.wait_until(gate.is_set)
            command.kill_tree()
            command.wait_gone()
        refused = run(tmp_path / "logs", "verify", partial_of(output), "--checkpoint", checkpoint_of(output), expect=2)
        assert "no good records in" in refused.stderr
        healthy = True
        proof = ("--checksum", f"crc64={crc64.xz(DATA):016x}", "--keep-records")
        assert run(tmp_path / "logs", server.url(), *arguments, *proof).result["integrity"] == "crc64"
    assert fastdl.verify(output).integrity == "records"


def test_killed_while_a_part_is_replaced(tmp_path: Path) -> None:
    """Its mark went before its bytes did: the next run fetches it as a missing one."""
    third = requests(tmp_path)[2]
    output, gate = tmp_path / "out" / "object", threading.Event()
    output.parent.mkdir()

    def handle(exchange: Exchange) -> None:
        def hold() -> None:
            gate.set()
            exchange.hold(None)

        if exchange.request.number == third:
            exchange.break_body(PART // 2, hold)
            RIGHT(exchange)
        else:
            once()(exchange)

    with serving(handle) as server:
        with running(tmp_path / "logs", server.url(), "-o", output, *FLAGS, "-x", 1, "-w", 1) as command:
            command.wait_until(gate.is_set)
            assert bits(checkpoint_of(output)) == PARTS - 1
            command.kill_tree()
            command.wait_gone()
        assert marked(checkpoint_of(output))[1] == set(range(1, PARTS))
        assert partial_of(output).exists()
        result = run(tmp_path / "logs", server.url(), "-o", output, *FLAGS).result
    assert output.read_bytes() == DATA
    assert (result["bytes_fetched"], result["parts_repaired"]) == (PART, [])
