"""Rows I1 to I8 of the fault catalogue: sizes, names, URLs and headers at and beyond their bounds."""

from __future__ import annotations

import random
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

import fastdl
from fastdl.contract import check_partial
from fastdl.job import file_name
from fastdl.plan import make_plan
from fastdl.sources.base import _RESERVED
from tests.e2e.command import names, run
from tests.e2e.processes import run as run_logged
from tests.e2e.test_sizes import assert_equal, sparse
from tests.servers.nginx import serving_nginx
from tests.servers.scripted import Exchange, Handler, ranged, redirect, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PART = 16 * 1024
DATA = random.Random(2).randbytes(5 * PART + 7)
BORDERS = [border + delta for border in (2**31, 2**32) for delta in (-1, 0, 1)]


def promising(size: int) -> Handler:
    """Answer the first mebibyte of an object of ``size`` bytes, if it has so many."""
    return lambda exchange: exchange.reply(206, {"Content-Range": f"bytes 0-1048575/{size}"}, bytes(1 << 20))


@pytest.mark.parametrize("size", BORDERS)
def test_i1_parts_around_2_and_4_gibibytes_meet_exactly(size: int) -> None:
    """The last parts end where the object does, and the answer to the last request is taken for what it is."""
    plan = make_plan(size, None)
    parts = [plan.part(index) for index in (plan.count - 2, plan.count - 1)]
    assert (parts[0].stop, parts[1].stop) == (parts[1].start, size)
    start = parts[1].start
    head = {"Content-Range": f"bytes {start}-{size - 1}/{size}", "Content-Length": str(size - start)}
    assert check_partial(206, head, "http://host/x", start, size, size).stop == size


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("size", BORDERS)
def test_i1_objects_around_2_and_4_gibibytes(tmp_path: Path, size: int) -> None:
    """One byte beside where signed and unsigned numbers of 32 bits end."""
    for folder in ("out", "store"):
        (tmp_path / folder).mkdir()
    sparse(tmp_path / "store" / "object", size)
    output = tmp_path / "out" / "object"
    with serving_nginx(tmp_path / "store") as server:
        result = run_logged(tmp_path / "logs", server.url("/object"), "-o", output, "--json").result
    assert result["bytes_fetched"] == size
    assert_equal(tmp_path / "store" / "object", output)
    output.unlink()


@pytest.mark.parametrize("size", [2**63 - 1, 2**63, 2**64, 10**19 - 1, 10**30])
def test_i2_a_size_that_no_file_has_is_refused_before_anything_is_made(tmp_path: Path, size: int) -> None:
    """Larger than any disk, or than what a file's size can be: exit code 6 or 9 after the first answer."""
    with serving(promising(size)) as server:
        outcome = run(server.url(), "-o", "out", "--retry", "0", cwd=tmp_path)
        assert len(server.log) == 1
    assert outcome.code in (6, 9), outcome.message
    assert names(tmp_path) == set()


@pytest.mark.parametrize("part_size", [0, -1, -(2**63), 5 * 2**30 + 1, 2**64])
def test_i3_a_part_size_out_of_bounds_is_refused(tmp_path: Path, part_size: int) -> None:
    """A ValueError that names the bounds, before anything is asked."""
    with serving(ranged(DATA)) as server:
        with pytest.raises(ValueError, match="1 B to 5 GiB"):
            fastdl.download(server.url(), tmp_path / "out", part_size=part_size)
        assert not server.log


def test_i3_a_part_larger_than_the_object_is_the_object(tmp_path: Path) -> None:
    """The largest part there is, for a small object."""
    with serving(ranged(DATA)) as server:
        result = fastdl.download(server.url(), tmp_path / "out", part_size=5 * 2**30)
    assert ((tmp_path / "out").read_bytes(), result.parts) == (DATA, 1)


HOSTILE = (
    *("..", "%2e%2e", "a%2f%2e%2e", "..%5c..%5cb", "C%3A%5Cb", "a:b", "CON", "nul.txt", "COM1", "a.", "a%20"),
    *("a%00b", "a%0Ab", "a%0D", "a%1b%5B2J", "a%E2%80%AEb", "%ED%A0%80%20", "x" * 256, "a%3Fb", "a%7Cb"),
)


@pytest.mark.parametrize("name", HOSTILE)
def test_i4_i5_a_hostile_name_of_a_url_is_not_taken(tmp_path: Path, name: str) -> None:
    """Told to name the file himself, the user gets no file elsewhere, and nobody is asked for anything."""
    with serving(ranged(DATA)) as server:
        with pytest.raises(fastdl.UsageError, match="give one with -o"):
            fastdl.download(server.url(f"/x/{name}"), tmp_path)
        assert not server.log
    assert names(tmp_path) == set()


@pytest.mark.parametrize("scheme", ["oss", "s3"])
@pytest.mark.parametrize("key", ["a/..", "..", "a\\..\\b", "C:b", "a/", "a\nb", "a\u202eb", "a/CON", "a.", "a\ud800"])
def test_i4_i5_a_hostile_key_names_nothing(scheme: str, key: str) -> None:
    """The last segment of a key is judged as that of a URL is."""
    with pytest.raises(fastdl.UsageError, match="give one with -o"):
        file_name(f"{scheme}://bucket/{key}")


@pytest.mark.parametrize("name", ["CON", "a:b", "a\\b", "a\nb", "a.", " a ", "a\u202eb", "e\u0301", "-rf", "x" * 250])
def test_i4_the_users_own_name_is_obeyed(tmp_path: Path, name: str) -> None:
    """He knows his file system."""
    with serving(ranged(DATA)) as server:
        fastdl.download(server.url(), tmp_path / name)
    assert names(tmp_path) == {name}
    assert (tmp_path / name).read_bytes() == DATA


@pytest.mark.parametrize(
    "value",
    [
        *('attachment; filename="../evil"', "attachment; filename=/etc/passwd", "attachment; filename=other.bin"),
        *("attachment; filename*=UTF-8''..%2f..%2fevil", 'attachment; filename="C:\\evil"', "inline; filename=.bashrc"),
    ],
)
def test_i5_content_disposition_names_nothing(tmp_path: Path, value: str) -> None:
    """It is not read: the file has the name that the user saw, whatever the server would like."""
    with serving(ranged(DATA, extra_headers={"Content-Disposition": value})) as server:
        result = fastdl.download(server.url("/model.bin"), tmp_path)
    assert (result.path, names(tmp_path)) == (tmp_path / "model.bin", {"model.bin"})


@pytest.mark.parametrize("location", ["/x/../../.bashrc", "/.ssh/authorized_keys", "/%2e%2e%2fevil", "/a%5c..%5cevil"])
def test_i5_a_redirect_names_nothing(tmp_path: Path, location: str) -> None:
    """The name is the user's URL's, wherever that leads."""

    def target(exchange: Exchange) -> None:
        (redirect(location) if exchange.request.number == 1 else ranged(DATA))(exchange)

    with serving(target) as server:
        fastdl.download(server.url("/model.bin"), tmp_path)
    assert names(tmp_path) == {"model.bin"}


TARGETS = ["/a//b", "/a/./b/../c", "/a%2Fb%2f", "/a+b%2B", "/%7Ea~", "/a?b=%2B+c&&d", "/%E6%97%A5", "/a;b=c", "/a@b:c"]


@pytest.mark.parametrize("target", TARGETS)
def test_i6_a_path_is_asked_for_as_it_is_written(tmp_path: Path, target: str) -> None:
    """A signature may cover every character; userinfo becomes a header, the fragment stays at home."""
    with serving(ranged(DATA)) as server:
        url = server.url(target).replace("://", "://us%40er:p%3Aw@") + "#fragment"
        fastdl.download(url, tmp_path / "out")
        assert {seen.target for seen in server.log} == {target}
        assert {seen.headers["authorization"] for seen in server.log} == {"Basic dXNAZXI6cDp3"}
        assert {seen.headers["host"] for seen in server.log} == {f"127.0.0.1:{server.port}"}


@contextmanager
def one_answer_over_ipv6() -> Iterator[tuple[int, list[bytes]]]:
    """Answer one request on ``::1``; yield the port and what was received."""
    seen: list[bytes] = []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            seen.append(connection.recv(65536))
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(DATA)}\r\n\r\n"
            connection.sendall(head.encode() + DATA)

    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1], seen
        thread.join()


def test_i6_an_address_of_ipv6(tmp_path: Path) -> None:
    """In brackets, as the Host field has it too."""
    with one_answer_over_ipv6() as (port, seen):
        fastdl.download(f"http://[::1]:{port}/x", tmp_path / "out", workers=1)
    assert f"Host: [::1]:{port}\r\n".encode() in seen[0]
    assert (tmp_path / "out").read_bytes() == DATA


def test_i6_a_name_beyond_ascii(tmp_path: Path) -> None:
    """Is asked for as IDNA spells it."""
    with serving(ranged(DATA)) as server:
        fastdl.download("http://b\xfccher.example/x", tmp_path / "out", proxy=server.url(""))
        assert {seen.headers["host"] for seen in server.log} == {"xn--bcher-kva.example"}


@pytest.mark.parametrize("char", ["\r", "\n", "\r\nX: y", "\0", "\x7f"])
def test_i7_nothing_is_injected(tmp_path: Path, char: str) -> None:
    """Into a header's name or value, a URL, a proxy, a referred name: a ValueError, and nobody is asked."""
    with serving(ranged(DATA)) as server:
        attempts: list[tuple[str, dict[str, Any]]] = [
            (server.url(), {"headers": {"X-One": f"a{char}b"}}),
            (server.url(), {"headers": {f"X{char}One": "a"}}),
            (server.url(f"/a{char}b"), {}),
            (server.url(f"/a?b{char}c"), {}),
            (server.url().replace("127", f"127{char}"), {}),
            ("http://name.invalid/x", {"proxy": server.url("") + char}),
        ]
        for url, settings in attempts:
            with pytest.raises(ValueError):  # noqa: PT011 - its class is all that a caller needs
                fastdl.download(url, tmp_path / "out", **settings)
        assert not server.log
    assert names(tmp_path) == set()


@pytest.mark.parametrize("name", sorted(_RESERVED))
def test_i8_what_fastdl_decides_on_cannot_be_set(tmp_path: Path, name: str) -> None:
    """Ranges, conditions, framing, in any case of letters: a second value would break what is checked."""
    with serving(ranged(DATA)) as server:
        for spelling in (name, name.upper(), name.title()):
            with pytest.raises(fastdl.UsageError, match="cannot be set"):
                fastdl.download(server.url(), tmp_path / "out", headers={spelling: "x"})
        assert not server.log


def test_i8_the_list_of_reserved_names_is_complete() -> None:
    """What the range contract and the framing rest on."""
    assert {"range", "if-range", "if-match", "host", "accept-encoding", "content-length", "connection"} <= _RESERVED
    assert {"transfer-encoding", "te", "upgrade", "expect", "if-none-match"} <= _RESERVED
