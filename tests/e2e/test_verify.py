"""``fastdl verify``: a right file is good, of a wrong one the bad parts are named, and a repair moves only those."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from fastcrc import crc64

import fastdl
from fastdl.checkpoint import open_checkpoint
from fastdl.errors import UsageError
from tests.e2e.partial import checkpoint_of, leftovers
from tests.e2e.processes import run, running
from tests.servers.scripted import (
    Exchange,
    Handler,
    first_of,
    flipped,
    ignores_range,
    no_length,
    ranged,
    serving,
    stall_after,
)

if TYPE_CHECKING:
    from pathlib import Path

PART = 64 * 1024
PARTS = 40
SIZE = PARTS * PART - 11
DATA = random.Random(SIZE).randbytes(SIZE)
CRC = f"{crc64.xz(DATA):016x}"
PLAIN = ranged(DATA)
PROMISING = ranged(DATA, extra_headers={"x-oss-hash-crc64ecma": str(crc64.xz(DATA))})


def kept(folder: Path, url: str) -> Path:
    """Download with records into ``folder``."""
    fastdl.download(url, folder / "object", part_size=PART, keep_records=True)
    return folder / "object"


def written(folder: Path, data: bytes = DATA) -> Path:
    """Make a file without records."""
    (folder / "object").write_bytes(data)
    return folder / "object"


def damage(path: Path, *parts: int) -> None:
    """Change one byte of each of these parts."""
    with path.open("r+b") as file:
        for index in parts:
            file.seek(index * PART + 7)
            file.write(bytes([DATA[index * PART + 7] ^ 0x40]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder for the file and its records only."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_kept_records_name_bad_parts_without_a_network(folder: Path, tmp_path: Path) -> None:
    """Good as it was left; with three bad bytes exactly their parts are named, in text and JSON, and the code is 8."""
    with serving(PLAIN) as server:
        path = kept(folder, server.url())
    assert fastdl.verify(path).integrity == "records"
    command = run(tmp_path / "logs", "verify", path)
    assert command.stdout == f"{path}: good, {PARTS} parts, crc64 {CRC}, by records\n"
    damage(path, 3, 20, 21)
    command = run(tmp_path / "logs", "verify", path, expect=8)
    assert command.stdout == f"{path}: 3 of {PARTS} parts are bad: 3, 20-21\n"
    result = json.loads(run(tmp_path / "logs", "verify", path, "--json", expect=8).stdout)
    assert (result["event"], result["good"], result["parts_bad"]) == ("verified", False, [3, 20, 21])
    assert leftovers(folder) == ["object", "object.cp"]


def test_a_repair_moves_the_bad_parts_only(folder: Path, tmp_path: Path) -> None:
    """Counted at the server: one byte to hear of the object, and three parts."""
    with serving(PLAIN) as server:
        path = kept(folder, server.url())
        damage(path, 3, 20, 39)
        sent, inode = server.sent, path.stat().st_ino
        command = run(tmp_path / "logs", "verify", path, server.url(), "--repair")
        assert server.sent - sent == 1 + 3 * PART - 11
    assert (path.read_bytes(), path.stat().st_ino) == (DATA, inode)
    assert "good" in command.stdout
    assert command.stdout.endswith("; 3 were bad and are repaired: 3, 20, 39\n")
    assert leftovers(folder) == ["object", "object.cp"]
    assert fastdl.verify(path).good


def test_a_repair_to_another_object_takes_the_old_records_away(folder: Path, tmp_path: Path) -> None:
    """They would call the repaired file bad."""
    with serving(PLAIN) as server:
        path = kept(folder, server.url())
    newer = bytes([DATA[0] ^ 1]) + DATA[1:]
    with serving(ranged(newer, etag='"newer"')) as server:
        command = run(tmp_path / "logs", "verify", path, server.url(), "--repair")
        assert "are removed" in command.stderr
        assert path.read_bytes() == newer
        assert leftovers(folder) == ["object"]


def test_a_repair_that_does_not_meet_the_digest_names_what_it_replaced(folder: Path, tmp_path: Path) -> None:
    """The object is right as the server gives it, and is not what the user expects."""
    with serving(PLAIN) as server:
        path = kept(folder, server.url())
        damage(path, 3)
        command = run(
            tmp_path / "logs", "verify", path, server.url(), "--repair", "--checksum", "crc64=" + 16 * "0", expect=8
        )
    assert path.read_bytes() == DATA
    assert command.stdout.startswith(f"{path}: bad; replaced: 3; crc64 is {CRC}, expected 0")


@pytest.mark.parametrize("handler", [PLAIN, PROMISING], ids=["no promise", "promise"])
def test_without_records_a_second_copy_names_bad_parts(folder: Path, handler: Handler) -> None:
    """The parts are fetched and compared, not stored; a repair then stores those that differ."""
    path = written(folder)
    with path.open("r+b") as file:
        file.seek(SIZE // 2)
        file.write(bytes([DATA[SIZE // 2] ^ 1]))
    spoilt = path.read_bytes()
    with serving(handler) as server:
        result = fastdl.verify(path, server.url())
        assert (result.good, path.read_bytes()) == (False, spoilt)
        assert result.parts_bad == (SIZE // 2 // result.part_size,)
        assert result.bytes_fetched == SIZE
        repaired = fastdl.verify(path, server.url(), repair=True)
    assert (repaired.good, repaired.parts_repaired, path.read_bytes()) == (True, result.parts_bad, DATA)
    assert repaired.integrity == ("bytes" if handler is PLAIN else "crc64")
    assert leftovers(folder) == ["object"]


def test_a_promise_costs_one_request(folder: Path) -> None:
    """A file of the promised CRC-64 is good after one request for one byte."""
    path = written(folder)
    with serving(PROMISING) as server:
        result = fastdl.verify(path, server.url())
        assert (server.sent, len(server.log)) == (1, 1)
    assert (result.good, result.integrity, f"{result.crc64:016x}") == (True, "crc64", CRC)


def test_without_promise_and_records_the_bytes_are_compared(folder: Path) -> None:
    """Nothing but a second copy can tell that a file is right, and its result says so."""
    path = written(folder)
    with serving(PLAIN) as server:
        result = fastdl.verify(path, server.url())
    assert (result.good, result.integrity, result.bytes_fetched) == (True, "bytes", SIZE)


@pytest.mark.parametrize("algorithm", ["crc64", "sha256"])
def test_a_checksum_alone(folder: Path, tmp_path: Path, algorithm: str) -> None:
    """Without a store the digest decides; no part can be named."""
    path = written(folder)
    right = CRC if algorithm == "crc64" else hashlib.sha256(DATA).hexdigest()
    assert fastdl.verify(path, checksum=f"{algorithm}={right}").integrity == algorithm
    damage(path, 1)
    command = run(tmp_path / "logs", "verify", path, "--checksum", f"{algorithm}={right}", expect=8)
    assert command.stdout.startswith(f"{path}: bad; {algorithm} is ")
    assert leftovers(folder) == ["object"]


@pytest.mark.parametrize("size", [0, 1, SIZE - 1, SIZE + 1])
def test_another_size_is_bad(folder: Path, size: int) -> None:
    """Told by the store, and told by the records."""
    with serving(PLAIN) as server:
        path = kept(folder, server.url())
        path.write_bytes((DATA + b"more")[:size])
        for repair in (False, True):
            result = fastdl.verify(path, server.url() if repair else None, repair=repair)
            assert (result.good, result.parts_repaired) == (False, ())
            more = "; a repair changes no length: download it again" if repair else ""
            assert result.reason == f"it has {size} bytes, the object has {SIZE}{more}"
    assert path.stat().st_size == size


def test_an_empty_file(folder: Path) -> None:
    """The empty object has no parts, and its file is good or is not empty."""
    path = written(folder, b"")
    with serving(ranged(b"")) as server:
        assert fastdl.verify(path, server.url()).good
        assert fastdl.verify(path, checksum="crc64=" + "0" * 16).integrity == "crc64"
        path.write_bytes(b"x")
        assert not fastdl.verify(path, server.url()).good


def test_an_object_that_was_replaced(folder: Path) -> None:
    """Records of the old one prove nothing of the new one: its own bytes are compared."""
    other = random.Random(5).randbytes(SIZE)
    with serving(PLAIN) as server:
        path = kept(folder, server.url())
    with serving(ranged(other, etag='"v2"')) as server:
        result = fastdl.verify(path, server.url())
    assert (result.good, len(result.parts_bad)) == (False, result.parts)


def test_a_wrong_answer_does_not_spoil_a_repair(folder: Path) -> None:
    """The answer to the repair came wrong as well: it is asked for again until it is what was recorded."""
    spoiling: list[int] = []

    def handle(exchange: Exchange) -> None:
        exchange.otherwise = PLAIN
        (flipped(9) if exchange.request.number in spoiling else PLAIN)(exchange)

    with serving(handle) as server:
        path = kept(folder, server.url())
        damage(path, 5)
        spoiling.append(len(server.log) + 2)  # the first one asks for one byte
        result = fastdl.verify(path, server.url(), repair=True)
    assert (result.good, result.parts_repaired, path.read_bytes()) == (True, (5,), DATA)
    assert result.bytes_fetched == 2 * PART


def test_one_answer_alone_overwrites_nothing(folder: Path) -> None:
    """Without records a part that comes otherwise each time is no reason to touch a file that may be right."""
    answers: list[int] = []

    def handle(exchange: Exchange) -> None:
        exchange.otherwise = PLAIN
        if exchange.request.range is None or exchange.request.range[0] > 0 or exchange.request.range[1] == 1:
            PLAIN(exchange)
            return
        answers.append(len(answers))
        flipped(answers[-1])(exchange)

    with serving(handle) as server:
        path = written(folder)
        result = fastdl.verify(path, server.url(), repair=True, connections=1, workers=1)
    assert (result.good, result.parts_bad, result.parts_repaired) == (False, (0,), ())
    assert len(answers) > 2
    assert path.read_bytes() == DATA


def test_answers_of_which_no_two_agree_repair_nothing(folder: Path) -> None:
    """The part is named as bad, and stays bad to the next look: nobody knows what is right."""
    begun: list[int] = []

    def handle(exchange: Exchange) -> None:
        exchange.otherwise = PLAIN
        number = exchange.request.number
        (flipped(number) if begun and number > begun[0] else PLAIN)(exchange)

    with serving(handle) as server:
        path = kept(folder, server.url())
        damage(path, 5)
        begun.append(len(server.log) + 1)  # that one asks for one byte
        result = fastdl.verify(path, server.url(), repair=True)
    assert (result.good, result.parts_bad, result.parts_repaired, result.integrity) == (False, (5,), (), "length")
    assert [each for each in range(PARTS) if path.read_bytes()[each * PART :][:PART] != DATA[each * PART :][:PART]] == [
        5
    ]
    assert fastdl.verify(path).parts_bad == (5,)


def test_records_in_doubt_are_not_believed(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They are of a download that was found wrong: the bytes are compared with the store's instead."""
    with serving(PLAIN) as server:
        path = kept(folder, server.url())
        with closing(open_checkpoint(path.with_name("object.cp"))) as records:
            records.doubt(doubted=True)
        result = fastdl.verify(path, server.url())
        assert (result.good, result.integrity, result.bytes_fetched) == (True, "bytes", SIZE)
        assert f"{path}: its records are not used: they are of a download that was found wrong" in caplog.messages
        with pytest.raises(UsageError, match="no good records in"):
            fastdl.verify(path)


def test_killed_while_it_repairs(folder: Path, tmp_path: Path) -> None:
    """Half a part is written: the next verify still calls it bad, and a second repair ends it."""
    gate = threading.Event()
    stalling = False

    def handle(exchange: Exchange) -> None:
        def hold() -> None:
            gate.set()
            exchange.hold(None)

        if stalling and exchange.request.range == (4 * PART, 5 * PART):
            exchange.break_body(PART // 2, hold)
        PLAIN(exchange)

    with serving(handle) as server:
        path = kept(folder, server.url())
        with path.open("r+b") as file:
            file.seek(5 * PART - 1)
            file.write(bytes([DATA[5 * PART - 1] ^ 1]))
        stalling = True
        with running(tmp_path / "logs", "verify", path, server.url(), "--repair") as command:
            command.wait_until(gate.is_set)
            command.kill_tree()
            command.wait_gone()
        assert fastdl.verify(path).parts_bad == (4,)
        stalling = False
        assert fastdl.verify(path, server.url(), repair=True).good
    assert path.read_bytes() == DATA


def test_no_repair_beside_a_download(folder: Path, tmp_path: Path) -> None:
    """Whatever checkpoint the download uses, a repair of the same path ends with exit code 10."""
    path, gate = written(folder), threading.Event()

    def handle(exchange: Exchange) -> None:
        exchange.otherwise = PLAIN
        stall_after(10, gate)(exchange)

    for flags in ((), ("--no-checkpoint",)):
        gate.clear()
        arguments = ("-o", path, *flags)
        with serving(handle) as server, running(tmp_path / "logs", server.url(), *arguments) as download:
            download.wait_until(lambda: path.with_name("object.part").exists())
            run(tmp_path / "logs", "verify", path, server.url(), "--repair", expect=10)
            gate.set()
            assert download.wait() == 0, download.stderr
        assert leftovers(folder) == ["object"]


def test_no_download_beside_a_repair(folder: Path, tmp_path: Path) -> None:
    """While a repair goes on a download of the same path ends with exit code 10, records or none."""
    holding, begun, gate = threading.Event(), threading.Event(), threading.Event()

    def handle(exchange: Exchange) -> None:
        def hold() -> None:
            begun.set()
            exchange.hold(gate)

        if exchange.request.range != (0, 1) and holding.is_set():
            exchange.break_body(10, hold)
        PLAIN(exchange)

    for records in (True, False):
        for event in (holding, begun, gate):
            event.clear()
        with serving(handle) as server:
            path = kept(folder, server.url()) if records else written(folder)
            damage(path, 3)
            names = leftovers(folder)
            holding.set()
            with running(tmp_path / "logs", "verify", path, server.url(), "--repair") as command:
                command.wait_until(begun.is_set)
                run(tmp_path / "logs", server.url(), "-o", path, expect=10)
                gate.set()
                assert command.wait() == 0, command.stderr
        assert path.read_bytes() == DATA
        assert leftovers(folder) == names
        checkpoint_of(path).unlink(missing_ok=True)


def test_a_server_without_ranges_gives_only_its_promise(folder: Path) -> None:
    """Parts cannot be asked for there: bad is all that can be said, and nothing can be repaired."""
    promising = ignores_range(DATA, extra_headers={"x-oss-hash-crc64ecma": str(crc64.xz(DATA))})
    path = written(folder)
    with serving(promising) as server:
        assert fastdl.verify(path, server.url()).integrity == "crc64"
        damage(path, 2)
        result = fastdl.verify(path, server.url(), repair=True)
    assert (result.good, result.parts_bad, result.reason.startswith("crc64 is ")) == (False, (), True)


@pytest.mark.parametrize("handler", [ignores_range(DATA), no_length(DATA)], ids=["length", "nothing"])
def test_what_nothing_can_be_held_against_is_not_called_good(folder: Path, handler: Handler) -> None:
    """Without ranges and promises there is no second copy to compare."""
    path = written(folder)
    with serving(handler) as server, pytest.raises(UsageError, match="nothing can be compared"):
        fastdl.verify(path, server.url())


def test_a_digest_that_file_and_records_do_not_meet_spoils_no_part(folder: Path) -> None:
    """Two agree on each part, so a server that says otherwise overwrites none of them."""
    now = [PLAIN]
    with serving(first_of(now)) as server:
        path = kept(folder, server.url())
        now[0] = ranged(DATA[:-1] + bytes([DATA[-1] ^ 1]))
        result = fastdl.verify(path, server.url(), repair=True, checksum="crc64=" + 16 * "0")
    assert (result.good, result.parts_bad, result.parts_repaired) == (False, (PARTS - 1,), ())
    assert path.read_bytes() == DATA


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("missing", "{url}"), 3),
        (("there", "{url}?gone"), 3),
        (("there",), 2),
        (("there", "--repair"), 2),
        ((".", "{url}"), 2),
        (("there", "ftp://host/x"), 2),
        (("there", "--checksum", "sha256=1"), 2),
        (("pipe", "{url}"), 2),
    ],
)
def test_bad_input_is_one_line_and_its_exit_code(tmp_path: Path, arguments: tuple[str, ...], code: int) -> None:
    """No traceback, no file made."""
    there = tmp_path / "there"
    there.write_bytes(DATA)
    os.mkfifo(tmp_path / "pipe")

    def handle(exchange: Exchange) -> None:
        if exchange.request.target.endswith("gone"):
            exchange.reply(404)
        else:
            PLAIN(exchange)

    before = leftovers(tmp_path)
    with serving(handle) as server:
        given = [argument.format(url=server.url()) for argument in arguments]
        command = run(tmp_path / "logs", "verify", tmp_path / given[0], *given[1:], expect=code)
    assert len(command.stderr.splitlines()) == 1
    shutil.rmtree(tmp_path / "logs")
    assert leftovers(tmp_path) == before
