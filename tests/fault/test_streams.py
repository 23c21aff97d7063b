"""Rows N4, N15 and N31 where the object comes in one answer: what ends a body, and what its end proves."""

from __future__ import annotations

import hashlib
import logging
import random
from typing import TYPE_CHECKING

import pytest

import fastdl
from tests.e2e.command import names, run
from tests.servers import scripted
from tests.servers.scripted import Handler, chunked, ignores_range, no_length, ranged, serving

if TYPE_CHECKING:
    from pathlib import Path

DATA = random.Random(15).randbytes(300_000)
RIGHT = f"sha256={hashlib.sha256(DATA).hexdigest()}"
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
WARNING = "only the end of the connection"


@pytest.mark.parametrize(
    ("handler", "flags", "warned"),
    [
        pytest.param(no_length(DATA), (), True, id="ended by the connection"),
        pytest.param(no_length(DATA), ("--checksum", RIGHT), False, id="and proven by a digest"),
        pytest.param(no_length(DATA, {"Content-Length": str(len(DATA))}), (), False, id="HTTP/1.0 with a length"),
        pytest.param(chunked(DATA), (), False, id="chunked"),
    ],
)
def test_n15_what_nothing_proves_is_said(
    tmp_path: Path, handler: Handler, flags: tuple[str, ...], warned: bool
) -> None:
    """A cut body without a length looks like a whole one: one warning, unless a digest speaks, and integrity none."""
    with serving(handler) as server:
        outcome = run(server.url(), "-o", "out", "-q", *flags, cwd=tmp_path)
    assert (outcome.code, WARNING in outcome.stderr) == (0, warned)
    assert len(outcome.stderr.splitlines()) == warned
    assert not warned or outcome.last["integrity"] == "none"
    assert (tmp_path / "out").read_bytes() == DATA


@pytest.mark.parametrize(
    ("handler", "why"),
    [
        pytest.param(chunked(DATA), "does not say how long the object is", id="of unknown length"),
        pytest.param(ignores_range(DATA), "serves no ranges", id="large"),
        pytest.param(ranged(DATA), "", id="with ranges"),
    ],
)
def test_what_cannot_be_resumed_is_told_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, handler: Handler, why: str
) -> None:
    """Of objects that are large, or may be: nobody shall hear of it after the first hour."""
    monkeypatch.setattr("fastdl.transfer._LARGE", len(DATA) - 1)
    with serving(handler) as server:
        fastdl.download(server.url(), tmp_path / "out")
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == bool(why)
    assert all(f"the server {why}: one connection, and it cannot be resumed" in text for text in warnings)


@pytest.mark.parametrize("flags", [(), ("-q",)])
def test_who_wants_quiet_hears_no_advice(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """One line on standard error, or none; a small object of known length is not worth one."""
    with serving(chunked(DATA)) as server:
        outcome = run(server.url(), "-o", "out", *flags, cwd=tmp_path)
    assert (outcome.code, "cannot be resumed" in outcome.stderr) == (0, not flags)
    with serving(ignores_range(DATA)) as server:
        assert run(server.url(), "-o", "out", *flags, cwd=tmp_path).stderr == ""


def test_parts_of_one_stream_are_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a stream nothing is recorded, so that no number of parts is too many."""
    monkeypatch.setattr("fastdl.plan.MAX_PART_COUNT", len(DATA) // 2)
    with serving(ranged(DATA)) as server, pytest.raises(fastdl.UsageError, match="--part-size 2 or more"):
        fastdl.download(server.url(), tmp_path / "out", part_size=1)
    with serving(ignores_range(DATA)) as server:
        fastdl.download(server.url(), tmp_path / "out", part_size=1)
    assert (tmp_path / "out").read_bytes() == DATA


def test_n15_a_digest_tells_a_cut_body_from_a_whole_one(tmp_path: Path) -> None:
    """Where the end proves nothing the user's digest does: exit code 8 and no file."""
    with serving(no_length(DATA[:-1])) as server:
        outcome = run(server.url(), "-o", "out", "--checksum", RIGHT, cwd=tmp_path)
    assert outcome.code == 8, outcome.message
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="no chunk at all"),
        pytest.param(b"5\r\nwhole\r\n", id="no last chunk"),
        pytest.param(b"5\r\nwhole\r\n0", id="half a last chunk"),
        pytest.param(b"5\r\nwhol", id="half a chunk"),
        pytest.param(b"5\r\nwhole", id="no end of a chunk"),
        pytest.param(b"-5\r\nwhole\r\n0\r\n\r\n", id="negative size"),
        pytest.param(b"+5\r\nwhole\r\n0\r\n\r\n", id="signed size"),
        pytest.param(b"0x5\r\nwhole\r\n0\r\n\r\n", id="size with a prefix"),
        pytest.param(b"1_0\r\n" + b"w" * 16 + b"\r\n0\r\n\r\n", id="size with an underscore"),
        pytest.param(b" 5\r\nwhole\r\n0\r\n\r\n", id="size behind a space"),
        pytest.param(b"zz\r\nwhole\r\n0\r\n\r\n", id="no number"),
        pytest.param(b"\r\nwhole\r\n0\r\n\r\n", id="empty size"),
        pytest.param(b"5\r\nwholeXX0\r\n\r\n", id="something else behind a chunk"),
        pytest.param(b"4\r\nwhole\r\n0\r\n\r\n", id="chunk longer than its size"),
        pytest.param(b"f" * 40 + b"\r\nwhole\r\n0\r\n\r\n", id="size beyond every disk"),
        pytest.param(b"5;" + b"x" * 70_000 + b"\r\nwhole\r\n0\r\n\r\n", id="endless extension"),
    ],
)
def test_n4_chunks_that_are_none_are_no_object(tmp_path: Path, body: bytes) -> None:
    """The last chunk alone ends a chunked body, and a size is hexadecimal digits. Source: RFC 9112, 7.1."""
    with serving(scripted.raw(HEAD + body)) as server, pytest.raises((fastdl.NetworkError, fastdl.ProtocolError)):
        fastdl.download(server.url(), tmp_path / "out", retry=0)
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"5\r\nwhole\r\n0\r\n\r\n", id="plain"),
        pytest.param(b"00005\r\nwhole\r\n000\r\n\r\n", id="leading zeros"),
        pytest.param(b"5;name=value\r\nwhole\r\n0;x\r\n\r\n", id="extensions"),
        pytest.param(b"2\r\nwh\r\n3\r\nole\r\n0\r\nX-Trailer: x\r\n\r\n", id="trailers"),
    ],
)
def test_n4_every_legal_form_of_chunks(tmp_path: Path, body: bytes) -> None:
    """Extensions and trailers are passed over."""
    with serving(scripted.raw(HEAD + body)) as server:
        fastdl.download(server.url(), tmp_path / "out", retry=0)
    assert (tmp_path / "out").read_bytes() == b"whole"
