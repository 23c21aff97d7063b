"""Rows D1 to D6 on real sockets: bytes that come wrong, go wrong or come in another order. D7 is S3's own matter."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from fastcrc import crc64

import fastdl
from fastdl.retry import Backoff
from tests.e2e.command import names, run
from tests.e2e.partial import bits
from tests.e2e.processes import wait_until
from tests.servers import scripted
from tests.servers.scripted import Exchange, Handler, first_of, ranged, script, serving

if TYPE_CHECKING:
    from pathlib import Path

    from fastdl import DownloadResult
    from tests.servers.wire import Server

PART = 16 * 1024
DATA = random.Random(4).randbytes(12 * PART + 5)


def promising(data: bytes) -> Handler:
    """Serve ``data`` rightly, with its CRC-64."""
    return ranged(data, extra_headers={"x-oss-hash-crc64ecma": str(crc64.xz(data))})


def part_by_part(right: Handler) -> Handler:
    """Give one part for each request, as is legal: what is spoilt by its offset is spoilt by its part."""

    def handle(exchange: Exchange) -> None:
        exchange.otherwise = right
        first, stop = exchange.request.range or (0, None)
        scripted.short_206(PART if stop is None else min(PART, stop - first))(exchange)

    return handle


def fetch(server: Server, folder: Path, **settings: Any) -> DownloadResult:
    """Download in this process by a connection of its own."""
    defaults = {"part_size": PART, "connections": 1, "workers": 1, "retry": 1}
    return fastdl.download(server.url(), folder / "out", **(defaults | settings))


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let retries wait for milliseconds."""
    monkeypatch.setattr("fastdl.api.make_backoff", lambda retry: Backoff(attempts=retry + 1, base=0.01))


@pytest.mark.parametrize("at", [0, PART - 1, 5 * PART, len(DATA) - 1])
def test_d1_a_bit_that_flips_on_the_way_is_found_by_a_promise(tmp_path: Path, at: int) -> None:
    """TCP let it pass, the store's CRC-64 does not: its part is found, fetched again and named."""
    rotten = bytearray(DATA)
    rotten[at] ^= 1
    wrong = ranged(bytes(rotten), extra_headers={"x-oss-hash-crc64ecma": str(crc64.xz(DATA))})
    spoilt = scripted.by_offset({at // PART * PART: wrong}, otherwise=promising(DATA))
    with serving(part_by_part(spoilt)) as server:
        result = fetch(server, tmp_path)
    assert (tmp_path / "out").read_bytes() == DATA
    assert (result.integrity, result.parts_repaired) == ("crc64", (at // PART,))


def test_d1_without_a_promise_no_more_than_the_length_is_claimed(tmp_path: Path) -> None:
    """Nobody could know: the result, the JSON and the summary say so, and a digest of the user's knows."""
    flipping = script({1: scripted.flipped(5)}, otherwise=ranged(DATA))
    with serving(flipping) as server:
        outcome = run(server.url(), "-o", "out", cwd=tmp_path)
    assert (outcome.code, outcome.last["integrity"]) == (0, "length")
    assert (tmp_path / "out").read_bytes() != DATA
    assert outcome.last["crc64"] != f"{crc64.xz(DATA):016x}"
    (tmp_path / "out").unlink()
    always = script(dict.fromkeys(range(1, 99), scripted.flipped(5)), otherwise=ranged(DATA))
    with serving(always) as server:
        digest = hashlib.sha256(DATA).hexdigest()
        outcome = run(server.url(), "-o", "out", "--checksum", f"sha256={digest}", cwd=tmp_path)
    assert outcome.code == 8, outcome.message
    assert names(tmp_path) == set()


def spoiling_the_disk(folder: Path, part: int) -> Handler:
    """Serve rightly; once ``part`` is marked one of its bytes changes under the running download."""

    def handle(exchange: Exchange) -> None:
        if exchange.request.range is not None and exchange.request.range[0] == (part + 4) * PART:
            wait_until(lambda: bits(folder / "out.cp") > part)
            with (folder / "out.part").open("r+b") as file:
                file.seek(part * PART + 9)
                file.write(bytes([DATA[part * PART + 9] ^ 1]))
        part_by_part(promising(DATA))(exchange)

    return handle


def test_d2_what_flips_on_the_disk_is_found_by_reading_it_back(tmp_path: Path) -> None:
    """The bytes were hashed as they came. With kept records ``verify`` reads the file and repairs it."""
    with serving(spoiling_the_disk(tmp_path, 3)) as server:
        fetch(server, tmp_path, keep_records=True)
        found = fastdl.verify(tmp_path / "out")
        assert (found.good, found.parts_bad) == (False, (3,))
        assert fastdl.verify(tmp_path / "out", server.url(), repair=True).good
    assert (tmp_path / "out").read_bytes() == DATA


def test_d2_what_flips_on_the_disk_before_a_resume_is_fetched_again(tmp_path: Path) -> None:
    """Marked parts are hashed as they stand in the file before they are used."""
    refusing = scripted.by_offset({9 * PART: scripted.status(403)}, otherwise=spoiling_the_disk(tmp_path, 3), times=99)
    now = [refusing]
    with serving(first_of(now)) as server:
        with pytest.raises(fastdl.AccessDenied):
            fetch(server, tmp_path)
        now[0] = promising(DATA)
        result = fetch(server, tmp_path)
    assert (tmp_path / "out").read_bytes() == DATA
    assert result.parts_damaged == (3,)


@pytest.mark.parametrize("left", [0, 1, 5 * PART + 9], ids=["nothing", "one byte", "half"])
def test_d3_an_object_cut_short_behind_old_metadata(tmp_path: Path, left: int) -> None:
    """Every answer promises what the metadata say and ends where the bytes do: a network error, and what came stays."""

    def handle(exchange: Exchange) -> None:
        start = (exchange.request.range or (0, None))[0]
        exchange.otherwise = ranged(DATA)
        scripted.truncate_after(max(0, left - start))(exchange)

    with serving(handle) as server, pytest.raises(fastdl.NetworkError):
        fetch(server, tmp_path)
    assert names(tmp_path) == ({"out.part", "out.cp"} if left > PART else set())


def swapped(first: int, second: int) -> Handler:
    """Answer for each of two parts with the bytes of the other, under the head of the one that was asked for."""
    other = {first * PART: second * PART, second * PART: first * PART}

    def handle(exchange: Exchange) -> None:
        at = other.get((exchange.request.range or (0, None))[0])
        if at is not None:
            exchange.spoil = lambda answer: replace(answer, body=DATA[at : at + PART])
        part_by_part(promising(DATA))(exchange)

    return handle


def test_d4_parts_that_change_places_are_no_object(tmp_path: Path) -> None:
    """Each part alone looks right; the CRC-64 of the whole depends on the order: exit code 8 and no file."""
    with serving(swapped(2, 7)) as server, pytest.raises(fastdl.IntegrityError):
        fetch(server, tmp_path)
    assert names(tmp_path) == set()


def test_d4_parts_that_changed_places_once_are_put_right(tmp_path: Path) -> None:
    """Asked again, the server gives them in order: both are replaced and named."""
    seen: set[int] = set()

    def handle(exchange: Exchange) -> None:
        start = (exchange.request.range or (0, None))[0]
        if start in seen:
            part_by_part(promising(DATA))(exchange)
        else:
            seen.add(start)
            swapped(2, 7)(exchange)

    with serving(handle) as server:
        result = fetch(server, tmp_path)
    assert (tmp_path / "out").read_bytes() == DATA
    assert result.parts_repaired == (2, 7)


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 3 * PART, 7 * PART + 1])
def test_d5_the_crc_of_parts_in_any_order_is_that_of_the_whole(tmp_path: Path, size: int) -> None:
    """The first part comes last, the last one may be a byte, or there is none: the promise is met by what combines."""
    data = DATA[:size]
    right = promising(data)

    def late(exchange: Exchange) -> None:
        if size > 4 * PART:
            exchange.break_body(PART - 1, lambda: wait_until(lambda: bits(tmp_path / "out.cp") >= 3))
        right(exchange)

    opening = part_by_part(scripted.by_offset({0: late}, otherwise=right))
    with serving(opening) as server:
        result = fetch(server, tmp_path, connections=3)
    assert (tmp_path / "out").read_bytes() == data
    assert (result.integrity, result.crc64, result.retries) == ("crc64", crc64.xz(data), 0)


@pytest.mark.parametrize(
    "etag",
    [
        pytest.param(f'"{hashlib.md5(b"other").hexdigest()}"', id="looks like an MD5"),
        pytest.param(f'"{hashlib.md5(b"other").hexdigest()}-3"', id="looks like that of an upload in parts"),
        pytest.param(f'W/"{hashlib.md5(b"other").hexdigest()}"', id="weak"),
    ],
)
def test_d6_an_etag_is_no_digest(tmp_path: Path, etag: str) -> None:
    """On plain HTTP an ETag is a name of the object's state and nothing is concluded from it."""
    with serving(ranged(DATA, etag=etag)) as server:
        result = fetch(server, tmp_path)
    assert (tmp_path / "out").read_bytes() == DATA
    assert (result.integrity, result.etag) == ("length", etag)
