"""--checksum-file: a digest of the object from a file of many, from this machine or from a server."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest

import fastdl
from tests.e2e.command import names, run
from tests.servers.oss import KEY, serving_oss
from tests.servers.scripted import (
    Handler,
    Pattern,
    ignores_range,
    ranged,
    redirect,
    routes,
    script,
    serving,
    stall_before_head,
    status,
    truncate_after,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DATA = bytes(Pattern(300_000).read(0, 300_000))
RIGHT = f"{hashlib.sha256(DATA).hexdigest()}  models/object.bin\n{'0' * 64}  other.bin\n".encode()
WRONG = RIGHT.replace(RIGHT[:8], b"00000000")
LIMIT = 16 * 1024 * 1024


@pytest.mark.parametrize(("content", "code"), [(RIGHT, 0), (WRONG, 8)])
def test_a_file_of_this_machine(tmp_path: Path, content: bytes, code: int) -> None:
    """By the object's name; a wrong digest is never published."""
    (tmp_path / "SHA256SUMS").write_bytes(content)
    with serving(routes({"/models/object.bin": ranged(DATA)})) as server:
        outcome = run(server.url("/models/object.bin"), "-o", "out", "--checksum-file", "SHA256SUMS", cwd=tmp_path)
    assert outcome.code == code
    assert names(tmp_path) == {"SHA256SUMS", "out"} if code == 0 else {"SHA256SUMS"}
    assert code or outcome.last["integrity"] == "sha256"


def fetch(folder: Path, sums: Handler, **settings: Any) -> fastdl.DownloadResult:
    """Download with a checksum file from the same server."""
    with serving(routes({"/models/object.bin": ranged(DATA), "/SHA256SUMS": sums})) as server:
        where = server.url("/SHA256SUMS?token=s3cr3t")
        return fastdl.download(server.url("/models/object.bin"), folder / "out", checksum_file=where, **settings)


@pytest.mark.parametrize("sums", [ranged, ignores_range])
def test_a_url(tmp_path: Path, sums: Callable[[bytes], Handler]) -> None:
    """However it is served."""
    assert fetch(tmp_path, sums(RIGHT)).integrity == "sha256"
    with pytest.raises(fastdl.IntegrityError):
        fetch(tmp_path, sums(WRONG))
    assert names(tmp_path) == {"out"}, "the older file stays"


@pytest.mark.parametrize(
    ("sums", "error", "text"),
    [
        (status(404), fastdl.NotFound, "SHA256SUMS"),
        (status(403), fastdl.AccessDenied, "SHA256SUMS"),
        (ranged(b"nothing\n"), fastdl.UsageError, "has no digest of 'object.bin'"),
        (ranged(b""), fastdl.UsageError, "has no digest of 'object.bin'"),
        (ignores_range(Pattern(LIMIT + 1)), fastdl.UsageError, "more than 16777216 bytes"),
        (ranged(RIGHT, extra_headers={"Content-Encoding": "gzip"}), fastdl.ProtocolError, "content coding"),
    ],
    ids=["missing", "denied", "no line", "empty", "endless", "coded"],
)
def test_a_checksum_file_that_cannot_be_used(tmp_path: Path, sums: Handler, error: type[Exception], text: str) -> None:
    """Nothing is downloaded; the text shows no secret of its URL."""
    with pytest.raises(error, match=text) as caught:
        fetch(tmp_path, sums, retry=0)
    assert "s3cr3t" not in str(caught.value)
    assert names(tmp_path) == set()


def test_one_that_breaks_is_asked_for_again(tmp_path: Path) -> None:
    """Half a file must not pass for one without the object's line."""
    handler = script({1: truncate_after(10)}, ranged(RIGHT))
    with serving(handler) as sums, serving(ranged(DATA)) as server:
        where = sums.url("/SHA256SUMS")
        result = fastdl.download(server.url("/models/object.bin"), tmp_path / "out", checksum_file=where)
    assert result.integrity == "sha256"


def test_it_may_take_no_longer_than_everything(tmp_path: Path) -> None:
    """--max-time holds for it too."""
    with serving(stall_before_head()) as server, pytest.raises(fastdl.NetworkError):
        fastdl.download(server.url("/x"), tmp_path / "out", checksum_file=server.url("/SUMS"), max_time=0.3, retry=0)


@pytest.mark.parametrize("arguments", [("missing",), (".",), ("",), ("ftp://host/SUMS",), ("http://[/SUMS",)])
def test_what_is_no_checksum_file_is_a_usage_error(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """One line, exit code 2, before anything is asked of the network."""
    outcome = run("http://127.0.0.1:1/object", "-o", "out", "--checksum-file", *arguments, cwd=tmp_path)
    assert outcome.code == 2
    assert names(tmp_path) == set()


def test_headers_go_to_the_same_origin_only(tmp_path: Path) -> None:
    """They may be secrets."""
    headers = {"X-Secret": "s3cr3t"}
    with (
        serving(routes({"/object.bin": ranged(DATA), "/SUMS": ranged(RIGHT)})) as server,
        serving(ranged(RIGHT)) as stranger,
    ):
        url = server.url("/object.bin")
        for where in (server.url("/SUMS"), stranger.url("/SUMS")):
            fastdl.download(url, tmp_path / "out", checksum_file=where, headers=headers)
        assert all(seen.headers["x-secret"] == "s3cr3t" for seen in server.log)
        assert all("x-secret" not in seen.headers for seen in stranger.log)
        assert len(stranger.log) == 1


def test_a_redirect_is_followed(tmp_path: Path) -> None:
    """As for objects."""
    handlers = {"/object.bin": ranged(DATA), "/SUMS": redirect("/real/SUMS", 302), "/real/SUMS": ranged(RIGHT)}
    with serving(routes(handlers)) as server:
        result = fastdl.download(server.url("/object.bin"), tmp_path / "out", checksum_file=server.url("/SUMS"))
    assert result.integrity == "sha256"


def test_a_file_in_the_store(tmp_path: Path) -> None:
    """Signed as the object is, by the same credentials."""
    variables = {"OSS_REGION": "cn-hangzhou", "OSS_ACCESS_KEY_ID": KEY.id, "OSS_ACCESS_KEY_SECRET": KEY.secret}
    with serving_oss({"models/object.bin": DATA, "SHA256SUMS": RIGHT}) as server:
        flags = ("--endpoint-url", server.url(""), "--checksum-file", "oss://bucket/SHA256SUMS")
        outcome = run("oss://bucket/models/object.bin", "-o", "out", *flags, cwd=tmp_path, variables=variables)
    assert (outcome.code, outcome.last["integrity"]) == (0, "sha256")
