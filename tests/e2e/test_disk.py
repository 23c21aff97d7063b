"""A full, failing or tampered disk is exit 9 and a line; the caller lives, and no wrong file gets the final name."""

from __future__ import annotations

import os
import socket
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

import fastdl
from tests.e2e.partial import bits, checkpoint_of, leftovers, partial_of
from tests.e2e.processes import PATIENCE, program, run, running, running_any, wait_until
from tests.servers.scripted import Exchange, Pattern, ranged, serving, stall_after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from _pytest.mark.structures import ParameterSet

    from tests.servers.wire import Server

KIB, MIB = 1 << 10, 1 << 20
PART = MIB
SIZE = 24 * MIB + 5
PATTERN = Pattern(SIZE)
FLAGS = ("-p", PART, "-x", 4, "-w", 2)


def long(*values: object) -> ParameterSet:
    """Keep a case for the long form: another name for what a short one shows."""
    return pytest.param(*values, marks=pytest.mark.long)


@contextmanager
def serving_gated(data: bytes | Pattern, sent: int) -> Iterator[tuple[Server, threading.Event]]:
    """Serve ``sent`` bytes of each answer, then nothing before the gate opens."""
    gate = threading.Event()
    right = ranged(data)

    def handle(exchange: Exchange) -> None:
        exchange.otherwise = right
        stall_after(sent, gate)(exchange)

    with serving(handle) as server:
        yield server, gate


def in_small_tmpfs(tmp_path: Path, nbytes: int, *arguments: object) -> tuple[int, str, list[str]]:
    """Run the command with its working directory on a tmpfs of its own; return exit code, errors, leftovers."""
    script = (
        'mount -t tmpfs -o size="$1" tmpfs "$2" || exit 99; cd "$2" || exit 99; listing=$3; shift 3; '
        '"$@"; code=$?; ls -A > "$listing"; exit "$code"'
    )
    (tmp_path / "disk").mkdir()
    listing = tmp_path / "listing"
    unshare = [program("unshare", "util-linux"), "-rm", "sh", "-c", script, "sh"]
    fixed = [str(nbytes), str(tmp_path / "disk"), str(listing)]
    command = [*unshare, *fixed, sys.executable, "-m", "fastdl", *map(str, arguments)]
    with running_any(tmp_path / "logs", command) as command_running:
        code = command_running.wait()
        assert code != 99, f"no tmpfs could be mounted: {command_running.stderr}"
        assert "Traceback" not in command_running.stderr
        return code, command_running.stderr, listing.read_text().split()


def test_a_full_disk_is_noticed_before_the_download(tmp_path: Path) -> None:
    """64 MiB onto 16 MiB: exit 9 after the first answer's head, no second request, nothing left behind."""
    with serving(ranged(Pattern(64 * MIB))) as server:
        code, errors, left = in_small_tmpfs(tmp_path, 16 * MIB, server.url(), "-o", "object")
        assert len(server.log) == 1
    assert (code, left) == (9, [])
    assert "no room for 67108864 bytes" in errors
    assert len(errors.splitlines()) == 1


def test_a_disk_with_just_enough_room(tmp_path: Path) -> None:
    """An object that fills the disk to a few pages is no error."""
    with serving(ranged(Pattern(15 * MIB))) as server:
        code, errors, left = in_small_tmpfs(tmp_path, 16 * MIB, server.url(), "-o", "object", "-p", PART)
    assert (code, left) == (0, ["object"]), errors


def test_no_room_for_the_checkpoint_alone(tmp_path: Path) -> None:
    """The object fits, its checkpoint does not: said so or done without; never a wrong file or a traceback."""
    with serving(ranged(Pattern(64 * KIB))) as server:
        code, errors, left = in_small_tmpfs(tmp_path, 16 * 4 * KIB + 8 * KIB, server.url(), "-o", "object", "-p", 4)
    assert (code, left) in ((0, ["object"]), (9, [])), errors


def test_a_stream_of_unknown_length_fills_the_disk(tmp_path: Path) -> None:
    """Nothing can be reserved for it; the write that fails is exit 9, and nothing is left behind."""

    def endless(exchange: Exchange) -> None:
        exchange.head(200, {"Content-Type": "application/octet-stream"}, version="HTTP/1.0")
        while True:
            exchange.body(bytes(MIB))

    with serving(endless) as server:
        code, errors, left = in_small_tmpfs(tmp_path, 16 * MIB, server.url(), "-o", "object")
    assert (code, left) == (9, []), errors
    assert "No space left" in errors


def cut_to_nothing(partial: Path) -> None:
    """Truncate to zero."""
    os.truncate(partial, 0)


def cut_in_half(partial: Path) -> None:
    """Truncate to half."""
    os.truncate(partial, SIZE // 2)


def grow(partial: Path) -> None:
    """Append."""
    os.truncate(partial, SIZE + 1)


def remove(partial: Path) -> None:
    """Unlink."""
    partial.unlink()


def replace(partial: Path) -> None:
    """Put another file of the same size in its place."""
    other = partial.with_name("other")
    other.write_bytes(bytes(SIZE))
    other.replace(partial)


TAMPERING = [cut_to_nothing, cut_in_half, grow, remove, replace]


@pytest.mark.parametrize("spoil", TAMPERING)
def test_an_output_changed_by_somebody_else_ends_the_command(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    """Truncated, extended, removed or replaced while connections are writing to it: exit 9, one line, no process."""
    output = tmp_path / "out" / "object"
    output.parent.mkdir()
    with (
        serving_gated(PATTERN, PART * 5 // 2) as (server, gate),
        running(tmp_path / "logs", server.url(), "-o", output, *FLAGS) as command,
    ):
        command.wait_until(lambda: bits(checkpoint_of(output)) >= 4 and len(server.log) >= 4)
        spoil(partial_of(output))
        gate.set()
        assert command.wait() == 9, command.stderr
        assert len(command.stderr.splitlines()) == 1
        command.wait_gone()
    assert not output.exists()


@pytest.mark.parametrize("spoil", [cut_to_nothing, replace, long(cut_in_half), long(grow), long(remove)])
def test_an_output_changed_by_somebody_else_ends_the_call(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    """The library raises; the caller's process, which is this one, lives on."""
    output = tmp_path / "out" / "object"
    output.parent.mkdir()
    outcome: list[BaseException] = []

    def call(url: str) -> None:
        try:
            fastdl.download(url, output, part_size=PART, connections=4, workers=2)
        except fastdl.FastdlError as error:
            outcome.append(error)

    with serving_gated(PATTERN, PART * 5 // 2) as (server, gate):
        thread = threading.Thread(target=call, args=(server.url(),))
        thread.start()
        wait_until(lambda: bits(checkpoint_of(output)) >= 4 and len(server.log) >= 4)
        spoil(partial_of(output))
        gate.set()
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert [type(error) for error in outcome] == [fastdl.DiskError]
    assert not output.exists()


@pytest.mark.parametrize("attempt", range(3))  # the file is looked at ten times a second: once might be luck
def test_a_truncation_just_before_the_last_byte_is_noticed(tmp_path: Path, attempt: int) -> None:
    """Truncated and at once extended again by the last write, the file has its right size, and a hole of zeros."""
    output = tmp_path / "out" / "object"
    output.parent.mkdir()
    data = Pattern(4 * MIB, seed=attempt)
    with (
        serving_gated(data, data.size - 1) as (server, gate),
        running(tmp_path / "logs", server.url(), "-o", output, "-p", 256 * KIB, "-x", 1) as command,
    ):
        command.wait_until(lambda: bits(checkpoint_of(output)) >= 14)
        os.truncate(partial_of(output), 0)
        gate.set()
        code = command.wait()
    assert code == 9 or output.read_bytes() == data.read(0, data.size), "a file with a hole was published"


def make_directory(path: Path) -> None:
    """Put a directory there."""
    path.mkdir()
    (path / "object").mkdir()  # without -o's last name a directory means "in it"


def make_link(path: Path) -> None:
    """Put a symbolic link to a file there."""
    target = path.with_name("target")
    target.write_bytes(b"precious")
    path.symlink_to(target)


def make_dangling_link(path: Path) -> None:
    """Put a symbolic link to nothing there."""
    path.symlink_to(path.with_name("nothing"))


def make_fifo(path: Path) -> None:
    """Put a pipe there, which blocks whoever opens it."""
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    """Put a socket there."""
    here = os.getcwd()  # noqa: PTH109 - socket names are short, so it is bound by a relative one
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(here)


THINGS = [make_directory, make_link, make_dangling_link, make_fifo, make_socket]


@pytest.mark.parametrize("suffix", ["", ".part", ".cp"], ids=["output", "partial", "checkpoint"])
@pytest.mark.parametrize("make", THINGS)
def test_what_is_no_regular_file_is_refused(tmp_path: Path, make: Callable[[Path], None], suffix: str) -> None:
    """In place of the output, its partial file or its checkpoint: exit 2 or 9, one line, everything as it was."""
    output = tmp_path / "out" / "object"
    output.parent.mkdir()
    make(output.with_name(output.name + suffix))
    before = leftovers(output.parent)
    with serving(ranged(b"bytes")) as server, running(tmp_path / "logs", server.url(), "-o", output) as command:
        assert command.wait() in (2, 9), command.stderr
        assert len(command.stderr.splitlines()) == 1
    assert leftovers(output.parent) == before
    assert not (output.parent / "nothing").exists()
    if (output.parent / "target").exists():
        assert (output.parent / "target").read_bytes() == b"precious"


@pytest.mark.parametrize("size", [1000, SIZE])
def test_no_clobber_replaces_nothing_that_came_meanwhile(tmp_path: Path, size: int) -> None:
    """Exit 2, both files whole; without -n the same command publishes what was kept."""
    output = tmp_path / "out" / "object"
    output.parent.mkdir()
    data = Pattern(size, seed=1)
    with serving_gated(data, size - 1 if size == 1000 else PART * 5 // 2) as (server, gate):
        with running(tmp_path / "logs", server.url(), "-o", output, "-n", *FLAGS) as command:
            command.wait_until(lambda: partial_of(output).exists() and len(server.log) >= 1)
            output.write_bytes(b"precious")
            gate.set()
            assert command.wait() == 2, command.stderr
            assert "not replaced" in command.stderr
        assert output.read_bytes() == b"precious"
        told = run(tmp_path / "logs", server.url(), "-o", output, *FLAGS, "-v", expect=0)
    assert output.read_bytes() == data.read(0, size)
    assert "starting over" not in told.stderr
    assert leftovers(output.parent) == ["object"]


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    """Exit 9 before anything is asked of the server; the directory is not made."""
    with serving(ranged(b"bytes")) as server:
        command = run(tmp_path / "logs", server.url(), "-o", tmp_path / "no" / "object", expect=9)
        assert server.log == ()
    assert "no such directory" in command.stderr
    assert not (tmp_path / "no").exists()


def test_a_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    """Exit 2 or 9 and one line."""
    (tmp_path / "file").write_bytes(b"precious")
    with (
        serving(ranged(b"bytes")) as server,
        running(tmp_path / "logs", server.url(), "-o", tmp_path / "file" / "object") as command,
    ):
        assert command.wait() in (2, 9), command.stderr
        assert len(command.stderr.splitlines()) == 1
    assert (tmp_path / "file").read_bytes() == b"precious"


@pytest.mark.parametrize("error", ["EOPNOTSUPP", long("ENOSYS"), long("EINVAL")])
def test_without_fallocate_workers_write_by_pwrite(tmp_path: Path, error: str) -> None:
    """Where blocks cannot be reserved a mapping would be SIGBUS on a full disk: exact bytes through pwrite."""
    output = tmp_path / "out" / "object"
    output.parent.mkdir()
    trace = tmp_path / "trace"
    strace = [program("strace", "strace"), "-f", "-qq", "-o", trace, "-P", partial_of(output)]
    prefix = [*strace, "-e", "trace=fallocate,pwrite64,mmap", "-e", f"inject=fallocate:error={error}"]
    with serving(ranged(PATTERN)) as server:
        run(tmp_path / "logs", server.url(), "-o", output, *FLAGS, prefix=prefix)
    assert output.read_bytes() == PATTERN.read(0, SIZE)
    calls = trace.read_text()
    assert error in calls
    assert "mmap(" not in calls
    writers = {line.split()[0] for line in calls.splitlines() if "pwrite64(" in line}
    assert len(writers) >= 3, "beside the stamp and the first answer nobody wrote"


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("fallocate", "ENOSPC"),
        ("fallocate", "EDQUOT"),
        ("fallocate", "EFBIG"),
        ("pwrite64", "ENOSPC"),
        ("pwrite64", "EIO"),
    ],
)
def test_an_error_of_the_disk_is_exit_9(tmp_path: Path, call: str, error: str) -> None:
    """Whatever the kernel says of the output, it is one line with its text."""
    output = tmp_path / "out" / "object"
    output.parent.mkdir()
    strace = [program("strace", "strace"), "-f", "-qq", "-o", "/dev/null", "-P", partial_of(output)]
    with serving(ranged(PATTERN)) as server:
        prefix = [*strace, "-e", f"trace={call}", "-e", f"inject={call}:error={error}"]
        command = run(tmp_path / "logs", server.url(), "-o", output, *FLAGS, prefix=prefix, expect=9)
    assert len(command.stderr.splitlines()) == 1
    assert leftovers(output.parent) in ([], ["object.cp", "object.part"])


def test_a_failing_checkpoint_does_not_stop_the_download(tmp_path: Path) -> None:
    """Marks that cannot be written cost resumability, said in a warning; the object comes out exact."""
    output = tmp_path / "out" / "object"
    output.parent.mkdir()
    strace = [program("strace", "strace"), "-f", "-qq", "-o", "/dev/null", "-P", checkpoint_of(output)]
    prefix = [*strace, "-e", "trace=pwrite64", "-e", "inject=pwrite64:error=ENOSPC:when=4+"]
    with serving(ranged(PATTERN)) as server:
        command = run(tmp_path / "logs", server.url(), "-o", output, *FLAGS, prefix=prefix)
    assert "can be resumed only from here" in command.stderr
    assert output.read_bytes() == PATTERN.read(0, SIZE)
    assert leftovers(output.parent) == ["object"]


@pytest.mark.parametrize("error", ["EXDEV", long("ENOSPC"), long("EACCES")])
def test_a_failed_rename_keeps_the_bytes(tmp_path: Path, error: str) -> None:
    """Nothing is published, the finished bytes stay where the message says, and the next run only publishes them."""
    output = tmp_path / "out" / "object"
    output.parent.mkdir()
    strace = [program("strace", "strace"), "-f", "-qq", "-o", "/dev/null", "-P", partial_of(output)]
    calls = "rename,renameat,renameat2"
    prefix = [*strace, "-e", f"trace={calls}", "-e", f"inject={calls}:error={error}"]
    with serving(ranged(PATTERN)) as server:
        command = run(tmp_path / "logs", server.url(), "-o", output, *FLAGS, prefix=prefix, expect=9)
        assert str(partial_of(output)) in command.stderr
        assert not output.exists()
        assert run(tmp_path / "logs", server.url(), "-o", output, *FLAGS, "--json").result["bytes_fetched"] == 0
    assert output.read_bytes() == PATTERN.read(0, SIZE)


def test_the_published_mode_follows_the_umask(tmp_path: Path) -> None:
    """Private while unfinished, then 0666 without the umask's bits."""
    output = tmp_path / "out" / "object"
    output.parent.mkdir()
    with serving_gated(PATTERN, PART) as (server, gate):
        command = ["sh", "-c", 'umask 027; exec "$@"', "sh", sys.executable, "-m", "fastdl", server.url(), "-o"]
        with running_any(tmp_path / "logs", [*command, str(output)]) as running_command:
            running_command.wait_until(partial_of(output).exists)
            assert partial_of(output).stat().st_mode & 0o777 == 0o600
            gate.set()
            assert running_command.wait() == 0, running_command.stderr
    assert output.stat().st_mode & 0o777 == 0o640
