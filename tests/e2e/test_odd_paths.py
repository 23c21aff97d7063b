"""Names that cannot be meant, or belong to others: one line, the right exit code, and nothing of theirs is touched."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import fastdl
from fastdl.checkpoint import open_checkpoint
from tests.e2e.command import names, run, running
from tests.servers.scripted import ranged, serving

if TYPE_CHECKING:
    from tests.servers.exchange import Exchange

PART = 16 * 1024
DATA = random.Random(15).randbytes(20 * PART + 11)
URL = "http://127.0.0.1:9/object"
NOBODY = 65534


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("verify", "/"), 2, "/: is a directory"),
        (("verify", "/", URL), 2, "/: is a directory"),
        ((URL, "-d", "x" * 300), 2, "no such directory"),
        ((URL, "-o", "name/"), 2, "name/: no such directory"),
        ((URL, "-d", "name/"), 2, "name/: no such directory"),
        ((URL, "-o", "out", "--checkpoint", "loop.cp"), 2, "cannot be a checkpoint"),
        (("verify", "two\nlines"), 3, "two%0Alines: no such file"),
    ],
)
def test_names_that_cannot_be_meant(tmp_path: Path, arguments: tuple[str, ...], code: int, text: str) -> None:
    """Told before anything is asked of the network."""
    (tmp_path / "loop.cp").symlink_to("loop.cp")
    outcome = run(*arguments, cwd=tmp_path)
    assert (outcome.code, text in outcome.message) == (code, True), outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1
    assert names(tmp_path) == {"loop.cp"}


@pytest.mark.parametrize("arguments", [("verify", "x"), (URL, "-o", "x"), (URL,)])
def test_a_working_directory_that_was_removed(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Nothing can be named from there."""
    gone = tmp_path / "gone"
    gone.mkdir()
    script = "import os, sys; os.rmdir(os.getcwd()); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    command = [sys.executable, "-c", script, "-P", "-m", "fastdl", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(fastdl.__file__).parents[1])}
    ended = subprocess.run(command, cwd=gone, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 2
    assert ended.stderr.startswith("fastdl: ")
    assert len(ended.stderr.splitlines()) == 1


def test_a_key_log_that_cannot_be_written(tmp_path: Path) -> None:
    """Python opens it with every context."""
    outcome = run("https://127.0.0.1:9/x", cwd=tmp_path, variables={"SSLKEYLOGFILE": "/nonexistent/log"})
    assert (outcome.code, "SSLKEYLOGFILE" in outcome.message) == (2, True)


def test_the_checkpoint_or_partial_file_of_another_download_is_no_output(tmp_path: Path) -> None:
    """Fetching ``m.cp`` or ``m.part`` beside an unfinished ``m`` would cost what is finished of it."""
    go = threading.Event()

    def stuck(exchange: Exchange) -> None:
        exchange.break_body(9 * PART, lambda: exchange.hold(go))
        ranged(DATA)(exchange)

    with serving(stuck) as server, running(server.url(), "-o", "m", "-p", "16K", "-x", "1", cwd=tmp_path) as command:
        server.wait_until(lambda: (tmp_path / "m.cp").exists() and any((tmp_path / "m.cp").read_bytes()[8192:]))
        command.process.send_signal(signal.SIGKILL)
        command.process.wait()
        go.set()
    before = {name: (tmp_path / name).read_bytes() for name in ("m.cp", "m.part")}
    for name in before:
        outcome = run(URL, "-o", name, cwd=tmp_path)
        assert (outcome.code, "an unfinished download needs it" in outcome.message) == (2, True), outcome.stderr
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_without_a_checkpoint_it_is_said_that_what_is_there_is_lost(tmp_path: Path) -> None:
    """A line, as whenever bytes are thrown away."""
    (tmp_path / "out.part").write_bytes(b"what another run left")
    with serving(ranged(DATA)) as server:
        outcome = run(server.url(), "-o", "out", "--no-checkpoint", cwd=tmp_path)
    assert outcome.code == 0
    assert "starting over: without a checkpoint nothing is resumed" in outcome.stderr
    assert (tmp_path / "out").read_bytes() == DATA


def test_a_mistyped_checksum_costs_no_records_that_the_store_vouches_for(tmp_path: Path) -> None:
    """They would be right for the next run with the right one; where nothing vouches for them they go."""
    promised = {"Repr-Digest": f"sha-256=:{_base64(hashlib.sha256(DATA).digest())}:"}
    for extra, kept in ((promised, True), ({}, False)):
        with serving(ranged(DATA, extra_headers=extra)) as server:
            arguments = (server.url(), "-o", "out", "-p", "16K", "--keep-records")
            assert run(*arguments, cwd=tmp_path).code == 0
            assert run(*arguments, "--checksum", "sha256=" + "0" * 64, cwd=tmp_path).code == 8
            assert ("out.cp" in names(tmp_path)) == kept
            if kept:
                assert run(*arguments, cwd=tmp_path).last["parts_reused"] == 21
        assert (tmp_path / "out").read_bytes() == DATA


def _base64(data: bytes) -> str:
    import base64  # noqa: PLC0415 - for one test

    return base64.b64encode(data).decode()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_file_that_only_its_owner_may_replace(tmp_path: Path) -> None:
    """As in /tmp: it is told at the start and not after the last byte."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "out").write_bytes(b"roots")
    for folder in (tmp_path, *tmp_path.parents):
        with suppress(PermissionError):
            folder.chmod(stat.S_IMODE(folder.stat().st_mode) | 0o711)
    with serving(ranged(DATA)) as server:
        assert _as_nobody(f"fastdl.download({server.url()!r}, {str(shared / 'out')!r})", tmp_path / "warm") == (
            f"DiskError {shared}/out: belongs to somebody else, who alone may replace it in such a directory"
        )
        assert len(server.log) == 1  # root's
        assert _as_nobody(f"fastdl.download({server.url()!r}, {str(shared / 'own')!r})", tmp_path / "warm") == ""
    assert (shared / "out").read_bytes() == b"roots"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_the_group_of_a_replaced_file_is_kept(tmp_path: Path) -> None:
    """Its members read the new one too."""
    out = tmp_path / "out"
    out.write_bytes(b"old")
    shutil.chown(out, group=NOBODY)
    out.chmod(0o640)
    with serving(ranged(DATA)) as server:
        fastdl.download(server.url(), out)
    status = out.stat()
    assert (out.read_bytes(), status.st_gid, stat.S_IMODE(status.st_mode)) == (DATA, NOBODY, 0o640)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_group_that_cannot_be_kept_gives_its_rights_to_no_other(tmp_path: Path) -> None:
    """The new file's group is the downloader's own: it may read what everybody may."""
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(0o777)
    out = folder / "out"
    out.write_bytes(b"old")
    out.chmod(0o660)
    for parent in (tmp_path, *tmp_path.parents):
        with suppress(PermissionError):
            parent.chmod(stat.S_IMODE(parent.stat().st_mode) | 0o711)
    with serving(ranged(DATA)) as server:
        assert _as_nobody(f"fastdl.download({server.url()!r}, {str(out)!r})", tmp_path / "warm") == ""
    assert (out.read_bytes(), stat.S_IMODE(out.stat().st_mode)) == (DATA, 0o600)


def _as_nobody(call: str, warm: Path) -> str:
    """Run a call as a user without rights, after one as root that imports all; return the error that it raised."""
    first = call.replace(call.split("'")[3], str(warm))
    script = (
        f"import os, sys; sys.path[:] = eval(sys.argv[2]); import fastdl; {first}\n"
        f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY}); os.umask(0)\n"
        "try: exec(sys.argv[1])\nexcept fastdl.FastdlError as error: print(type(error).__name__, error)\n"
    )
    command = [sys.executable, "-c", script, call, repr(sys.path)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def test_a_fork_of_a_caller_that_was_killed_keeps_nobody_out(tmp_path: Path) -> None:
    """It has the caller's descriptors, but not its locks."""
    lock = tmp_path / "out.cp"
    checkpoint = open_checkpoint(lock)
    ready, done = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(ready[1], b"x")
        os.read(done[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    os.close(checkpoint._fd)  # as the kernel does for a process that is killed: no lock is given back by hand
    again = open_checkpoint(lock)
    again.close()
    os.write(done[1], b"x")
    assert os.waitpid(pid, 0)[1] == 0
    for fd in (*ready, *done):
        os.close(fd)
