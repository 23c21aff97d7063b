"""Disk rows F1 to F15: what the kernel answers, and what others do to the file meanwhile."""

from __future__ import annotations

import errno
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.processes import program, run, running_any
from tests.fault.judge import Call, Key, Pretend, Refuse, failing
from tests.fault.scenes import DATA, OLD, PART, Scene, Stage, stage
from tests.servers.scripted import Pattern, ranged, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.nursery import Born
    from tests.fault.judge import Verdict

MIB = 1 << 20


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Have the scenes ready."""
    with stage(tmp_path_factory.mktemp("stage")) as ready:
        yield ready


def assert_told(play: Stage, scene: str, born: Born, *said: str, code: int = 9) -> None:
    """The run ended with ``code`` and one line that says all of this; the next one is exact."""
    assert born.code == code, born.stderr
    assert len(born.stderr.splitlines()) == 1, born.stderr
    assert all(text in born.stderr for text in said), born.stderr
    assert play.sound(play.scenes[scene], born) == ""
    assert play.recovered(play.scenes[scene]) == ""


@pytest.mark.parametrize("error", ["ENOSPC", "EDQUOT", "EFBIG"])
def test_f1_no_room_to_reserve(play: Stage, error: str) -> None:
    """Told before a second request is sent; what this run created is gone, the old file stays."""
    asked = len(play.server.log)
    born, _ = play.judged(play.scenes["fresh"], failing("fallocate", "part", error))
    assert len(play.server.log) == asked + 1
    assert play.names() == {"out"}
    assert play.output.read_bytes() == OLD
    assert_told(play, "fresh", born, "no room for", os.strerror(getattr(errno, error)))


def test_f2_a_page_without_a_block_kills_a_worker_and_not_the_command(play: Stage) -> None:
    """Truncated between a worker's look at the size and its mapping: SIGBUS there, one line and exit 9 here."""

    def cut(call: Call) -> Verdict:
        if call.key == Key("mmap", "part"):
            os.truncate(call.path, 0)
        return None

    born, judge = play.judged(play.scenes["resume"], cut)
    assert judge.counts[Key("mmap", "part")] >= 1
    assert_told(play, "resume", born, "another process truncated")


@pytest.mark.parametrize("error", ["EOPNOTSUPP", "ENOSYS", "EINVAL"])
def test_f3_a_file_system_without_fallocate(play: Stage, error: str) -> None:
    """Asked once and never emulated: the only writes are the stamp, the first answer's windows and the parts."""
    born, judge = play.judged(play.scenes["fresh"], failing("fallocate", "part", error))
    assert (born.code, play.output.read_bytes() == DATA) == (0, True), born.stderr
    assert judge.counts[Key("fallocate", "part")] == 1
    assert judge.counts[Key("pwrite64", "part")] <= 6 * (len(DATA) // PART + 1)


@pytest.mark.parametrize("error", ["ENODEV", "ENOMEM", "EACCES"])
def test_f4_a_file_system_without_mappings(play: Stage, error: str) -> None:
    """Parts of an earlier run are read instead, and used."""
    born, judge = play.judged(play.scenes["resume"], failing("mmap", "part", error))
    assert (born.code, play.output.read_bytes() == DATA) == (0, True), born.stderr
    assert judge.counts[Key("preadv2", "part")] + judge.counts[Key("preadv", "part")] >= 1
    assert (born.last["parts_reused"] >= 3, born.last["parts_damaged"]) == (True, [0])


@pytest.mark.parametrize("error", ["EIO", "ENOSPC", "EDQUOT"])
def test_f5_a_failed_sync_is_not_believed_the_next_time(play: Stage, error: str) -> None:
    """Not repeated; nothing of that file is used again, because only the page cache could say that it is right."""

    def refuse(call: Call) -> Verdict:
        syncing = call.key.call in ("fsync", "fdatasync") and call.key.file == "part"
        return Refuse(getattr(errno, error)) if syncing else None

    born, judge = play.judged(play.scenes["fresh"], refuse)
    assert judge.counts[Key("fsync", "part")] + judge.counts[Key("fdatasync", "part")] == 1
    assert play.names() == {"out"}
    assert_told(play, "fresh", born, "start over")
    assert play.fetched == len(DATA)


@pytest.mark.parametrize("nth", [2, 5, 9])
def test_f5_a_write_that_fails_is_not_marked(play: Stage, nth: int) -> None:
    """EIO of one window: exit 9; the parts marked before are used by the next run, the others fetched."""
    born, _ = play.judged(play.scenes["resume"], failing("pwrite64", "part", "EIO", {nth}))
    assert_told(play, "resume", born, "Input/output error")


CHECKED_FIRST = [
    ("openat", "checkpoint", error) for error in ("EROFS", "EACCES", "EMFILE", "ENOMEM", "EDQUOT", "ENFILE")
]


@pytest.mark.parametrize(("call", "file", "error"), CHECKED_FIRST)
def test_f6_what_cannot_be_written_is_told_before_the_network_is_asked(
    play: Stage, call: str, file: str, error: str
) -> None:
    """Exit 9 and not one request."""
    asked = len(play.server.log)
    born, _ = play.judged(play.scenes["fresh"], failing(call, file, error))
    assert len(play.server.log) == asked
    assert_told(play, "fresh", born, "cannot be opened")


@pytest.mark.parametrize("limit", [9, 12, 15, 18, 24])
def test_f6_few_descriptors(tmp_path: Path, limit: int) -> None:
    """Under every limit a run succeeds or says in one line what is short; the next one is exact."""
    output = tmp_path / "out" / "object"
    output.parent.mkdir()
    data = Pattern(20 * MIB)
    with serving(ranged(data)) as server:
        fetch = _fastdl(server.url(), "-o", output, "-w", 2, "-x", 4, "--retry", 1)
        with running_any(tmp_path / "logs", [program("prlimit", "util-linux"), f"--nofile={limit}", *fetch]) as limited:
            assert limited.wait() in (0, 9), limited.stderr
            assert "unexpected" not in limited.stderr
            assert len(limited.stderr.splitlines()) == (limited.process.returncode != 0)
        assert not output.exists() or output.read_bytes() == data.read(0, data.size)
        run(tmp_path / "logs", server.url(), "-o", output, "-w", 2)
    assert output.read_bytes() == data.read(0, data.size)


def test_f6_a_file_size_limit(tmp_path: Path) -> None:
    """EFBIG, and SIGXFSZ with it, is exit 9 and leaves nothing."""
    output = tmp_path / "out" / "object"
    output.parent.mkdir()
    with serving(ranged(Pattern(4 * MIB))) as server:
        command = [program("prlimit", "util-linux"), f"--fsize={MIB}", *_fastdl(server.url(), "-o", output)]
        with running_any(tmp_path / "logs", command) as limited:
            assert limited.wait() == 9, limited.stderr
            assert "File too large" in limited.stderr
    assert list(output.parent.iterdir()) == []


def truncated(path: str) -> None:
    """Cut the file in half."""
    os.truncate(path, len(DATA) // 2)


def removed(path: str) -> None:
    """Take its name."""
    Path(path).unlink()


def swapped(path: str) -> None:
    """Put another file of the same size under its name."""
    other = Path(path).with_name("other")
    other.write_bytes(bytes(len(DATA)))
    other.replace(path)


@pytest.mark.parametrize("spoil", [truncated, removed, swapped], ids=["f7-truncated", "f8-removed", "f8-replaced"])
@pytest.mark.parametrize("call", ["fchmod", "fsync", "pwrite64"])
def test_f7_f8_a_file_that_others_change_until_it_is_published(
    play: Stage, spoil: Callable[[str], None], call: str
) -> None:
    """While the last part is written, its mode set, or a long sync goes on: exit 9, and the old file stays."""
    nth = play.judged(play.scenes["fresh"])[1].counts[Key(call, "part")]
    done: list[Call] = []

    def meddle(each: Call) -> Verdict:
        if each.key == Key(call, "part") and each.nth == max(1, nth - 4) and not done:
            done.append(each)
            spoil(each.path)
        return None

    born, _ = play.judged(play.scenes["fresh"], meddle)
    assert done
    assert play.output.read_bytes() == OLD
    (play.output.parent / "other").unlink(missing_ok=True)
    assert_told(play, "fresh", born, "another process")


@pytest.mark.parametrize(
    "there",
    [DATA, DATA + b"more", DATA[:100], b"", b"unrelated"],
    ids=["same", "bigger", "smaller", "empty", "unrelated"],
)
def test_f9_what_is_there_stays_until_it_is_replaced_in_one_step(play: Stage, there: bytes) -> None:
    """Whatever the file has in common with the object, nothing of it is touched, or used, before the rename."""
    scene = replace(play.scenes["fresh"], before={"out": there})

    def look(call: Call) -> Verdict:
        assert call.key.file != "output" or play.output.read_bytes() in (there, DATA)
        if call.key == Key("rename", "part"):
            assert play.output.read_bytes() == there
        return None

    inode = play.prepare(scene).stat().st_ino
    born, judge = play.judged(scene, look)
    assert (born.code, born.last["bytes_fetched"], judge.counts[Key("rename", "part")]) == (0, len(DATA), 1)
    assert play.output.read_bytes() == DATA
    assert play.output.stat().st_ino != inode or not there


@pytest.mark.parametrize("output", ["-", "/dev/stdout", "/dev/null", "/dev/full", "/proc/self/fd/1"])
def test_f10_what_cannot_be_renamed_to_is_refused(play: Stage, output: str) -> None:
    """A pipe, a device: what has left through one cannot be verified first; exit 2 or 9, nothing asked."""
    asked = len(play.server.log)
    born = play.run(Scene("device", (play.server.url(), "-o", output, "--json")))
    assert born.code in (2, 9), born.stderr
    assert born.stderr.count("\n") == 1
    assert len(play.server.log) == asked


def test_f11_a_read_only_file_system(tmp_path: Path) -> None:
    """A mount that is read-only, for root too: exit 9, nothing asked of the server."""
    mount = 'mount -t tmpfs tmpfs "$1" && mount -o remount,ro "$1" || exit 99; target=$1; shift; '
    script = mount + 'exec "$@" -o "$target/object"'
    (tmp_path / "disk").mkdir()
    unshare = [program("unshare", "util-linux"), "-rm", "sh", "-c", script, "sh", str(tmp_path / "disk")]
    with (
        serving(ranged(b"bytes")) as server,
        running_any(tmp_path / "logs", [*unshare, *_fastdl(server.url())]) as command,
    ):
        assert command.wait() == 9, command.stderr
        assert "not writable" in command.stderr
        assert server.log == ()


@pytest.mark.parametrize("file", ["part", "checkpoint"])
@pytest.mark.parametrize("scene", ["fresh", "resume", "stream"])
def test_f12_every_write_is_cut_short(play: Stage, scene: str, file: str) -> None:
    """The kernel takes half of each write, as it may: whoever needs all of it goes on with the rest."""

    def half(call: Call) -> Verdict:
        if call.key == Key("pwrite64", file) and call.notice.arguments[2] > 1:
            count = call.done(0.5)
            assert count is not None
            return Pretend(count)
        return None

    born, _ = play.judged(play.scenes[scene], half)
    assert (born.code, play.output.read_bytes() == DATA) == (0, True), born.stderr
    assert play.names() == play.scenes[scene].after


def test_f13_a_slow_disk_fills_no_memory(play: Stage) -> None:
    """Each write takes 5 ms while the server sends as fast as it can: nobody collects what is not written yet."""
    resident: dict[int, list[int]] = {}

    def slow(call: Call) -> Verdict:
        if call.key == Key("pwrite64", "part"):
            time.sleep(0.005)
            status = Path(f"/proc/{call.process}/status").read_text("utf-8", "replace")
            resident.setdefault(call.process, []).append(int(status.partition("RssAnon:")[2].split()[0]) * 1024)
        return None

    data = Pattern(32 * MIB)
    with serving(ranged(data)) as server:
        scene = Scene("slow", (server.url(), "-o", "OUT", "-p", MIB, "-x", 4, "-w", 2, "--json"))
        born, _ = play.judged(scene, slow)
    assert (born.code, play.output.read_bytes() == data.read(0, data.size)) == (0, True), born.stderr
    assert sum(map(len, resident.values())) >= 32 * MIB // (256 * 1024)
    for history in resident.values():
        assert max(history) - history[0] <= 4 * MIB


@pytest.mark.parametrize("error", ["EXDEV", "ENOSPC", "EACCES"])
def test_f15_a_rename_that_fails_costs_no_byte(play: Stage, error: str) -> None:
    """The bytes stay where the line says, and the next run only publishes them."""
    born, _ = play.judged(play.scenes["fresh"], failing("rename", "part", error))
    assert play.output.read_bytes() == OLD
    assert_told(play, "fresh", born, f"kept in {play.output}.part")
    assert play.fetched == 0


def _fastdl(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "fastdl", *map(str, arguments)]
