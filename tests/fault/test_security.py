"""Rows S2 to S10 of the fault catalogue; S1, secrets, is ``test_echoes`` and ``tests/e2e/test_secrets``."""

from __future__ import annotations

import ast
import gzip
import os
import random
import stat
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import fastdl
from tests.e2e.command import names, run
from tests.e2e.processes import running_any
from tests.servers import scripted
from tests.servers.scripted import Exchange, Handler, Server, ranged, redirect, routes, script, serving
from tests.servers.tls import certificate

if TYPE_CHECKING:
    from collections.abc import Callable

PART = 16 * 1024
DATA = random.Random(3).randbytes(40 * PART + 9)
NAMES = (
    *("Authorization", "aUTHORIZATION", "Cookie", "COOKIE2", "Proxy-Authorization", "x-oss-security-token", "X-Secret"),
    *("X-Amz-Security-Token", "X-Api-Key", "Referer", "X-Amz-Server-Side-Encryption-Customer-Key"),
)
SECRETS = {name: "s3cr3t-value" for name in NAMES if name != "aUTHORIZATION"}


def told(server: Server) -> list[bool]:
    """Tell of each request whether it held a secret."""
    return [b"s3cr3t" in seen.raw for seen in server.log]


def one_part_then(handler: Handler, nbytes: int = PART) -> Handler:
    """Give the first part, or so many bytes, and whatever ``handler`` does to every later request."""

    def handle(exchange: Exchange) -> None:
        exchange.otherwise = ranged(DATA)
        (scripted.short_206(nbytes) if exchange.request.number == 1 else handler)(exchange)

    return handle


def stopped_half_way(folder: Path) -> None:
    """Leave a partial file and a checkpoint there."""
    with serving(one_part_then(scripted.status(403))) as server, pytest.raises(fastdl.AccessDenied):
        fastdl.download(server.url(), folder / "out", part_size=PART)
    assert names(folder) == {"out.part", "out.cp"}


@pytest.mark.parametrize("spelling", NAMES[:2])
def test_s2_secrets_never_come_back_in_a_chain(tmp_path: Path, spelling: str) -> None:
    """From A to B and back to A: neither B nor, on its word, A again is told anything, by no worker either."""
    handlers: dict[str, Handler] = {"/back": ranged(DATA)}
    headers = {spelling: "s3cr3t-value", **{name: value for name, value in SECRETS.items() if name != "Authorization"}}
    with serving(routes(handlers)) as first, serving(redirect(first.url("/back"))) as second:
        handlers["/object"] = redirect(second.url())
        for _ in range(2):  # a new request of the user's may tell A again, and A alone
            fastdl.download(first.url(), tmp_path / "out", headers=headers, part_size=PART)
        asked = [seen.target == "/object" for seen in first.log]
        assert told(first) == asked
        assert sum(asked) == 2
        assert not any(told(second))
    assert (tmp_path / "out").read_bytes() == DATA


def test_s2_a_login_of_the_url_and_the_scheme_belong_to_the_origin(tmp_path: Path) -> None:
    """The same host and path by https is another origin: the password stays with http."""
    with (
        certificate() as pem,
        serving(ranged(DATA), tls=pem.server_context()) as secure,
        serving(redirect(secure.url())) as plain,
    ):
        fastdl.download(plain.url().replace("://", "://user:s3cr3t@"), tmp_path / "out", cacert=pem.ca)
        assert "authorization" in plain.log[0].headers
        assert not any("authorization" in seen.headers for seen in secure.log)


@pytest.mark.parametrize("later", [False, True], ids=["first answer", "later answer"])
def test_s2_a_store_that_redirects_gets_no_signature_sent_elsewhere(tmp_path: Path, *, later: bool) -> None:
    """Workers follow no redirect with what was entrusted to another origin."""
    with serving(ranged(DATA)) as other:
        handler = one_part_then(redirect(other.url())) if later else redirect(other.url())
        with serving(handler) as server:
            fastdl.download(server.url(), tmp_path / "out", headers=SECRETS, part_size=PART)
            assert not any(told(other))
    assert (tmp_path / "out").read_bytes() == DATA


@pytest.mark.parametrize(("mask", "mode"), [("000", 0o666), ("077", 0o600), ("027", 0o640)])
def test_s4_files_are_private_until_they_are_whole(tmp_path: Path, mask: str, mode: int) -> None:
    """Under any umask: 0600 while unfinished, then what the umask leaves; nothing else is made."""
    gate, folder = threading.Event(), tmp_path / "to"
    folder.mkdir()

    with serving(one_part_then(scripted.stall_after(10, gate))) as server:
        shell = ["sh", "-c", f'umask {mask}; exec "$@"', "sh", sys.executable, "-m", "fastdl", server.url()]
        with running_any(tmp_path / "logs", [*shell, "-o", str(folder / "out"), "-p", str(PART)]) as command:
            command.wait_until(lambda: names(folder) == {"out.part", "out.cp"})
            assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
            gate.set()
            assert command.wait() == 0, command.stderr
    assert [(path.name, stat.S_IMODE(path.stat().st_mode)) for path in folder.iterdir()] == [("out", mode)]


@pytest.mark.parametrize("name", ["out", "out.part", "out.cp", "other.cp"])
@pytest.mark.parametrize("target", ["file", "nothing", "checkpoint"])
def test_s5_a_planted_link_is_not_followed(tmp_path: Path, name: str, target: str) -> None:
    """At any name that is written: an error, and what the link leads to stays as it was, or away."""
    folder, victim = tmp_path / "shared", tmp_path / "victim"
    folder.mkdir()
    if target == "checkpoint":
        stopped_half_way(folder)
        (folder / "out.cp").rename(victim)
    elif target == "file":
        victim.write_bytes(b"precious")
    before = victim.read_bytes() if victim.exists() else None
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(victim)
    with serving(ranged(DATA)) as server, pytest.raises((fastdl.DiskError, fastdl.UsageError)):
        fastdl.download(
            server.url(),
            folder / "out",
            part_size=PART,
            checkpoint_path=folder / "other.cp" if name == "other.cp" else None,
        )
    assert (victim.read_bytes() if victim.exists() else None) == before
    assert (folder / name).is_symlink()


def test_s6_an_endless_body_ends_at_the_limit_of_the_process(tmp_path: Path) -> None:
    """What has no length may be bounded by ulimit -f, as anything: exit code 9, and nothing is left."""

    def endless(exchange: Exchange) -> None:
        exchange.head(200, version="HTTP/1.0")
        while True:
            exchange.body(bytes(1 << 16))

    folder = tmp_path / "to"
    folder.mkdir()
    with serving(endless) as server:
        shell = ["sh", "-c", 'ulimit -f 2048; exec "$@"', "sh", sys.executable, "-m", "fastdl", server.url()]
        with running_any(tmp_path / "logs", [*shell, "-o", str(folder / "out")]) as command:
            assert command.wait() == 9, command.stderr
            assert "too large" in command.stderr
    assert names(folder) == set()


@pytest.mark.parametrize("code", [302, 403, 503])
def test_s6_the_body_of_an_answer_without_data_is_bounded(tmp_path: Path, code: int) -> None:
    """A redirect's and a refusal's are read to 64 KiB at most, then the connection is closed."""

    def endless(exchange: Exchange) -> None:
        exchange.head(code, {"Location": "/elsewhere", "Content-Length": str(2**40)})
        while True:
            exchange.body(bytes(1 << 16))

    with serving(script({1: endless}, otherwise=ranged(DATA))) as server:
        if code == 403:
            with pytest.raises(fastdl.AccessDenied):
                fastdl.download(server.url(), tmp_path / "out")
        else:
            fastdl.download(server.url(), tmp_path / "out")
            assert (tmp_path / "out").read_bytes() == DATA
        assert server.sent < 1 << 24  # what fits into the kernel's buffers included


@pytest.mark.parametrize("handler", [scripted.ignores_range, scripted.chunked])
def test_s6_nothing_is_decompressed(tmp_path: Path, handler: Callable[[bytes], Handler]) -> None:
    """Bytes are the object's as they come; a body that says it is coded is refused, however it is coded."""
    bomb = gzip.compress(bytes(1 << 20))
    with serving(handler(bomb)) as server:
        fastdl.download(server.url("/x.gz"), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == bomb
    for coding in ("gzip", "deflate", "br", "zstd", "gzip, gzip, gzip", "identity, gzip"):
        fields = {"Content-Encoding": coding}
        with serving(scripted.status(200, fields, bomb)) as server, pytest.raises(fastdl.ProtocolError):
            fastdl.download(server.url("/x.gz"), tmp_path / "new")
    assert names(tmp_path) == {"out"}


def test_s7_a_wrong_digest_withholds_the_file(tmp_path: Path) -> None:
    """Neither a new name nor an older file's gets bytes that are not what was promised."""
    (tmp_path / "older").write_bytes(b"older")
    with serving(ranged(DATA)) as server:
        for name in ("out", "older"):
            with pytest.raises(fastdl.IntegrityError):
                fastdl.download(server.url(), tmp_path / name, checksum="sha256=" + "0" * 64)
    assert names(tmp_path) == {"older"}
    assert (tmp_path / "older").read_bytes() == b"older"


@pytest.mark.parametrize("suffix", [".part", ".cp"])
def test_s8_what_somebody_put_in_its_place_is_not_removed(tmp_path: Path, suffix: str) -> None:
    """A failing run removes its own files, known by inode, and never what has their names by now."""
    theirs = tmp_path / f"out{suffix}"

    def swap(exchange: Exchange) -> None:
        theirs.unlink()
        theirs.write_bytes(b"theirs")
        exchange.reply(403)

    # Less than a part is there: nothing is kept of such a run.
    with serving(one_part_then(swap, nbytes=100)) as server, pytest.raises(fastdl.FastdlError):
        fastdl.download(server.url(), tmp_path / "out", part_size=PART, connections=1, workers=1, retry=1)
    assert theirs.read_bytes() == b"theirs"


def test_s9_connections_are_shared_by_nobody(tmp_path: Path) -> None:
    """Other trust, other credentials, another proxy: each call has connections of its own, and none outlives it."""
    with certificate() as pem, serving(ranged(DATA), tls=pem.server_context()) as server:
        fastdl.download(server.url(), tmp_path / "out", insecure=True, headers={"X-Secret": "one"})
        trusting = server.connections
        with pytest.raises(fastdl.ProtocolError, match="certificate refused"):
            fastdl.download(server.url(), tmp_path / "out", retry=0)
        fastdl.download(server.url(), tmp_path / "out", cacert=pem.ca, headers={"X-Secret": "two"})
        by_connection = {seen.connection: {"one", "two"} & {seen.headers.get("x-secret", "")} for seen in server.log}
        assert {number <= trusting for number, secret in by_connection.items() if secret == {"one"}} == {True}
        assert {number <= trusting for number, secret in by_connection.items() if secret == {"two"}} == {False}
        server.wait_until(lambda: server.open_connections == 0)


@pytest.mark.parametrize("resume", ["verify", "trust"])
def test_s10_what_others_own_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resume: str) -> None:
    """A checkpoint of another user's, in a directory that others write to, is refused, whatever it says."""
    stopped_half_way(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    stranger = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: stranger)
    with serving(ranged(DATA)) as server:
        with pytest.raises(fastdl.DiskError, match="no checkpoint of this user"):
            fastdl.download(server.url(), tmp_path / "out", part_size=PART, resume=resume)
        assert not server.log
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_s10_nothing_read_from_a_disk_or_a_server_is_executed() -> None:
    """Objects cross the pipes to the own workers alone, which unpickle; nothing else does, and nothing is evaluated."""
    package = Path(fastdl.__file__).parent
    forbidden = {"pickle", "marshal", "shelve", "yaml", "eval", "exec", "compile", "multiprocessing.connection"}
    users = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            found = {alias.name for alias in node.names} if isinstance(node, ast.Import | ast.ImportFrom) else set()
            found |= {node.module or ""} if isinstance(node, ast.ImportFrom) else set()
            found |= {node.func.id} if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else set()
            users |= {(path.name, name) for name in forbidden & found}
    assert users == {(name, "multiprocessing.connection") for name in ("crew.py", "pipe.py", "pool.py")}


def test_tls_is_verified_in_the_command_unless_told_otherwise(tmp_path: Path) -> None:
    """No variable, and no failure, turns it off; --insecure does."""
    with certificate() as pem, serving(ranged(DATA), tls=pem.server_context()) as server:
        off = {"PYTHONHTTPSVERIFY": "0", "CURL_INSECURE": "1", "NODE_TLS_REJECT_UNAUTHORIZED": "0"}
        refused = run(server.url(), "-o", "out", cwd=tmp_path, variables=off)
        assert (refused.code, "certificate refused" in refused.message) == (6, True)
        assert server.log == ()
        assert run(server.url(), "-o", "out", "--insecure", cwd=tmp_path).code == 0
