"""Rows N4, N15 and N31 where the object comes in one answer: what ends a body, and what its end proves."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

import pytest

import fastdl
from tests.e2e.command import names, run
from tests.servers import scripted
from tests.servers.scripted import Handler, chunked, no_length, serving

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
        outcome = run(server.url(), "-o", "out", *flags, cwd=tmp_path)
    assert (outcome.code, WARNING in outcome.stderr) == (0, warned)
    assert len(outcome.stderr.splitlines()) == warned
    assert not warned or outcome.last["integrity"] == "none"
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
