"""The output is this run's own file until it is published."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import stat
import sys
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from fastdl import disk
from fastdl import output as module
from fastdl.disk import part_path_of
from fastdl.errors import Busy, DiskError, UsageError
from fastdl.header import STAMP, Stored
from fastdl.output import Output, create_output, reopen_output
from fastdl.plan import Plan
from fastdl.validator import Validator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DATA = b"0123456789" * 1000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Name an output that does not exist."""
    return tmp_path / "out"


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """Set the umask for a block."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def written(path: Path) -> Iterator[Output]:
    """Yield an output with all of its bytes, not yet published."""
    with closing(create_output(path)) as output:
        output.allocate(len(DATA))
        os.pwrite(output.fd, DATA, 0)
        yield output


def inode(path: Path) -> tuple[int, int]:
    """Tell which file a name means."""
    status = path.lstat()
    return status.st_dev, status.st_ino


def stored(output: Output, **changes: tuple[int, int] | bytes) -> Stored:
    """Make the header of the checkpoint that is about an output."""
    known = Stored(Plan(len(DATA), 100), b"", Validator(), None, output.inode, output.stamp, 1)
    return replace(known, **changes)  # type: ignore[arg-type]


def names(folder: Path) -> list[str]:
    """List a directory."""
    return [path.name for path in folder.iterdir()]


def open_descriptors() -> int:
    """Count this process's descriptors."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 10**7])
def test_an_allocated_output_has_its_size_and_zeros(path: Path, size: int) -> None:
    """Before the first byte arrives the file holds the object's zeros and a stamp, private, under another name."""
    with closing(create_output(path)) as output:
        output.allocate(size)
        output.check()
        status = os.fstat(output.fd)
        assert (status.st_size, stat.S_IMODE(status.st_mode)) == (size + STAMP, 0o600)
        assert os.pread(output.fd, min(size, 10), 0) == bytes(min(size, 10))
        assert os.pread(output.fd, 100, size) == output.stamp
    assert not path.exists()


def test_no_room_is_an_error_before_the_first_byte(path: Path) -> None:
    """A size that no disk has is refused at once, with the size in the text."""
    with closing(create_output(path)) as output, pytest.raises(DiskError, match=f"no room for {2**60} bytes"):
        output.allocate(2**60)


def test_allocating_again_keeps_the_bytes(path: Path) -> None:
    """Resuming allocates anew and loses nothing."""
    with written(path) as output:
        output.allocate(len(DATA))
        assert os.pread(output.fd, len(DATA), 0) == DATA


@pytest.mark.parametrize("fsync", [False, True])
def test_publishing_gives_the_final_name_and_takes_the_other(path: Path, *, fsync: bool) -> None:
    """All bytes, one name, the very inode that was written."""
    with written(path) as output:
        output.publish(fsync=fsync)
        assert inode(path) == output.inode
    assert path.read_bytes() == DATA
    assert names(path.parent) == ["out"]


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o027, 0o077])
def test_the_published_mode_is_the_umasks(path: Path, mask: int) -> None:
    """As every program's files: 0666 without the umask; until then nobody else may read."""
    with umask(mask), written(path) as output:
        assert stat.S_IMODE(os.fstat(output.fd).st_mode) == 0o600
        output.publish(fsync=False)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize(("before", "after"), [(0o600, 0o600), (0o444, 0o444), (0o777, 0o644), (0o666, 0o644)])
def test_the_published_mode_is_no_wider_than_that_of_the_file_replaced(path: Path, before: int, after: int) -> None:
    """Who closed a file to others finds its next version closed. Source: CVE-2022-32207."""
    path.write_bytes(b"older")
    path.chmod(before)
    with umask(0o022), written(path) as output:
        output.publish(fsync=False)
    assert stat.S_IMODE(path.stat().st_mode) == after


def test_an_existing_output_is_replaced_in_one_step(path: Path) -> None:
    """Whoever has the old file open keeps it; the name means the new one."""
    path.write_bytes(b"old")
    with path.open("rb") as old, written(path) as output:
        assert path.read_bytes() == b"old"
        output.publish(fsync=False)
        assert old.read() == b"old"
    assert path.read_bytes() == DATA


@pytest.mark.parametrize("known", [True, False], ids=["renameat2", "link"])
@pytest.mark.parametrize("late", ["file", "dangling link"])
def test_what_took_the_name_meanwhile_is_not_replaced(
    path: Path, monkeypatch: pytest.MonkeyPatch, late: str, *, known: bool
) -> None:
    """Looked at in the very step that publishes: the other's file stays, and so do the finished bytes."""
    if not known:
        monkeypatch.setattr(disk, "_renamed", lambda *_: False)
    with written(path) as output:
        path.symlink_to("nothing") if late == "dangling link" else path.write_bytes(b"another's")
        before = inode(path)
        with pytest.raises(UsageError, match=r"not replaced, the bytes are kept in .*out\.part"):
            output.publish(fsync=False, replace=False)
        assert inode(path) == before
        assert part_path_of(path).read_bytes() == DATA
        path.unlink()
    with closing(create_output(path)) as output:
        output.publish(fsync=False, replace=False)
        assert inode(path) == output.inode
    assert names(path.parent) == ["out"]


def test_a_failed_publication_keeps_the_bytes(path: Path) -> None:
    """A directory that took the name is no reason to throw the download away."""
    with written(path) as output:
        (path / "full").mkdir(parents=True)
        with pytest.raises(DiskError, match=r"cannot be published: .*; the bytes are kept in .*out\.part"):
            output.publish(fsync=False)
    assert part_path_of(path).read_bytes()[: len(DATA)] == DATA


@pytest.mark.parametrize("kind", ["symlink", "dangling", "directory", "fifo"])
def test_what_stands_in_the_parts_place_is_not_touched(path: Path, kind: str) -> None:
    """A planted link is not followed, and nothing that is not a file is opened or removed."""
    part_path, target = part_path_of(path), path.with_name("target")
    if kind == "directory":
        part_path.mkdir()
    elif kind == "fifo":
        os.mkfifo(part_path)
    else:
        part_path.symlink_to(target)
    if kind == "symlink":
        target.write_bytes(b"precious")
    before, descriptors = part_path.lstat(), open_descriptors()
    with pytest.raises(DiskError):
        create_output(path)
    assert part_path.lstat().st_ino == before.st_ino
    assert target.exists() == (kind == "symlink")
    assert open_descriptors() == descriptors


def test_a_leftover_is_replaced(path: Path) -> None:
    """What an earlier run left and nobody can resume makes room for a new file."""
    part_path_of(path).write_bytes(b"leftover")
    with part_path_of(path).open("rb") as old, closing(create_output(path)) as output:
        assert os.fstat(output.fd).st_size == 0
        assert os.fstat(old.fileno()).st_nlink == 0
        assert inode(part_path_of(path)) == output.inode


@pytest.mark.parametrize("again", ["create", "reopen"])
def test_a_second_downloader_is_kept_out(path: Path, again: str) -> None:
    """While one writes, another is Busy and changes nothing; afterwards it is free."""
    with written(path) as output:
        descriptors = open_descriptors()
        with pytest.raises(Busy, match="another downloader holds it"):
            create_output(path) if again == "create" else reopen_output(path, stored(output), complete=False)
        assert open_descriptors() == descriptors
        output.check()
    create_output(path).close()


def test_an_unfinished_output_is_reopened(path: Path) -> None:
    """The same stamp behind the same size, with its bytes; the inode's number may have changed with the disk."""
    with written(path) as output:
        known = stored(output, inode=(0, 0))
    reopened = reopen_output(path, known, complete=False)
    assert reopened is not None
    with closing(reopened):
        assert (reopened.stamp, reopened.sealed) == (known.stamp, False)
        assert os.pread(reopened.fd, len(DATA), 0) == DATA


@pytest.mark.parametrize("change", ["stamp", "no stamp", "size", "symlink", "missing", "directory", "owner"])
def test_another_file_is_not_resumed(path: Path, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes of another file, of another owner or behind a link never count as ours."""
    with written(path) as output:
        known = stored(output)
    part_path, kept = part_path_of(path), path.with_name("kept")
    if change == "size":
        os.truncate(part_path, len(DATA) - 1)
    elif change == "no stamp":
        os.truncate(part_path, len(DATA))
    elif change == "stamp":
        known = stored(output, stamp=bytes(STAMP))
    elif change == "owner":
        stranger = os.geteuid() + 1
        monkeypatch.setattr(os, "geteuid", lambda: stranger)
    else:
        part_path.rename(kept)
        if change == "symlink":
            part_path.symlink_to(kept)
        elif change == "directory":
            part_path.mkdir()
    descriptors = open_descriptors()
    assert reopen_output(path, known, complete=False) is None
    assert open_descriptors() == descriptors


def test_a_publication_that_was_killed_is_resumed(path: Path) -> None:
    """Killed between rename and the removal of its checkpoint, the bytes are judged and published again."""
    with written(path) as output:
        known = stored(output)
        output.publish(fsync=False)
    assert reopen_output(path, known, complete=False) is None
    again = reopen_output(path, known, complete=True)
    assert again is not None
    with closing(again):
        assert (again.sealed, again.published) == (True, True)
        again.discard()
    assert (path.read_bytes(), names(path.parent)) == (DATA, ["out"])


def test_an_unrelated_finished_file_is_not_taken_for_an_unfinished_one(path: Path) -> None:
    """A file of the same size that the user put there keeps its only name."""
    with written(path) as output:
        known = stored(output)
        output.discard()
        path.write_bytes(DATA)
    assert reopen_output(path, known, complete=False) is None
    again = reopen_output(path, known, complete=True)
    assert again is not None
    with closing(again):
        assert (again.published, again.sealed) == (True, True)
        again.discard()
    assert names(path.parent) == ["out"]


@pytest.mark.parametrize(
    "change", ["truncated", "truncated and extended", "extended", "removed", "replaced", "replaced by a link"]
)
def test_meddling_is_noticed(path: Path, change: str) -> None:
    """A file that another process changed is neither written on nor published."""
    with written(path) as output:
        part_path = output.part_path
        if change == "truncated":
            os.truncate(part_path, 1)
        elif change == "truncated and extended":
            os.truncate(part_path, len(DATA) - 1)
            os.truncate(part_path, len(DATA) + STAMP)
        elif change == "extended":
            os.truncate(part_path, len(DATA) + STAMP + 1)
        else:
            part_path.rename(path.with_name("moved"))
            if change == "replaced":
                part_path.write_bytes(DATA)
            elif change == "replaced by a link":
                part_path.symlink_to("moved")
        with pytest.raises(DiskError, match="another process"):
            output.check()
        with pytest.raises(DiskError, match="another process"):
            output.publish(fsync=False)
    assert not path.exists()


def test_a_stream_may_grow_its_file(path: Path) -> None:
    """Where the size was not known before, it is noted as bytes arrive."""
    with closing(create_output(path)) as output:
        output.allocate(None)
        os.pwrite(output.fd, DATA, 0)
        with pytest.raises(DiskError, match="another process"):
            output.settle(len(DATA) - 1)
        output.settle(len(DATA))
        output.publish(fsync=False)
    assert path.read_bytes() == DATA


def test_discarding_removes_the_own_file(path: Path) -> None:
    """Nothing unusable is left behind, and doing it twice is no error."""
    with written(path) as output:
        output.discard()
        output.discard()
    assert names(path.parent) == []


def test_discarding_never_removes_another_file(path: Path) -> None:
    """What took the name meanwhile stays, and so does the published file."""
    with written(path) as output:
        output.publish(fsync=False)
        part_path_of(path).write_bytes(b"another's")
        output.discard()
    assert part_path_of(path).read_bytes() == b"another's"
    assert path.read_bytes() == DATA


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """Let the kernel give this process only so many more descriptors."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def room(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """Make the file system tell of ``free`` bytes for users, in odd blocks, and of many more for root."""
    told = SimpleNamespace(f_bavail=free // 3, f_frsize=3, f_bfree=2**60, f_bsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda _: told)
    monkeypatch.setattr(os, "fstatvfs", lambda _: told)


def test_blocks_are_reserved_before_the_first_byte(path: Path) -> None:
    """All of them and the stamp's, so that the disk cannot become full in the middle."""
    with closing(create_output(path)) as output:
        output.allocate(10**6)
        assert os.fstat(output.fd).st_blocks * 512 >= 10**6 + STAMP


def test_nothing_is_reserved_for_an_unknown_size(path: Path) -> None:
    """And the file is still checked to be the very one that the name means."""
    with closing(create_output(path)) as output:
        output.allocate(None)
        assert os.fstat(output.fd).st_size == 0
        output.check()
        part_path_of(path).rename(path)
        with pytest.raises(DiskError, match="removed or replaced by another process"):
            output.check()


@pytest.mark.parametrize("where", ["procfs", "elsewhere"])
def test_where_blocks_cannot_be_reserved_the_file_is_sparse(
    path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The length is right all the same, and so is the stamp behind it."""
    if where == "procfs":  # the kernel's own refusal
        with Path("/proc/self/comm").open("rb+", buffering=0) as file:
            assert disk.fallocate(file.fileno(), 10) is False
        monkeypatch.setattr(module, "fallocate", lambda *_: False)
    else:
        monkeypatch.setattr(sys, "platform", "darwin")
        monkeypatch.setattr(ctypes, "CDLL", None)
    with closing(create_output(path)) as output:
        output.allocate(10**6)
        output.check()
        status = os.fstat(output.fd)
        assert (status.st_size, os.pread(output.fd, 100, 10**6)) == (10**6 + STAMP, output.stamp)
        assert status.st_blocks * 512 < 10**6


def test_an_empty_object_is_published_empty(path: Path) -> None:
    """No byte of the stamp stays behind."""
    with closing(create_output(path)) as output:
        output.allocate(0)
        output.publish(fsync=False)
    assert path.read_bytes() == b""


@pytest.mark.parametrize(("missing", "fits"), [(0, True), (3, False)])
def test_room_for_a_sparse_file_is_looked_for(
    path: Path, monkeypatch: pytest.MonkeyPatch, missing: int, *, fits: bool
) -> None:
    """What the file has already needs no room; a byte that has none is an error before the first one is used."""
    monkeypatch.setattr(module, "fallocate", lambda *_: False)
    with closing(create_output(path)) as output:
        os.pwrite(output.fd, bytes(30 * 4096), 0)
        has = os.fstat(output.fd).st_blocks * 512
        size = has + 3 * 10**6 - STAMP
        room(monkeypatch, 3 * 10**6 - missing)
        if fits:
            output.allocate(size)
            output.check()
        else:
            with pytest.raises(DiskError, match=f"no room for {size} bytes: No space left on device"):
                output.allocate(size)


def test_a_name_that_is_taken_in_the_same_moment_is_busy(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that begin together: the file of the one who came first is not touched."""
    monkeypatch.setattr(module, "remove_leftover", lambda path: part_path_of(path).write_bytes(b"first"))
    with pytest.raises(Busy, match=r"another downloader created out\.part just now"):
        create_output(path)
    assert part_path_of(path).read_bytes() == b"first"


def test_a_file_that_is_replaced_before_it_is_locked_is_busy(path: Path) -> None:
    """The lock would be of somebody else's file."""
    with part_path_of(path).open("wb") as ours:
        part_path_of(path).unlink()
        part_path_of(path).write_bytes(b"another's")
        descriptors = open_descriptors()
        with pytest.raises(Busy, match=r"another downloader replaced out\.part just now"):
            Output(path, part_path_of(path), ours.fileno(), bytes(STAMP))
        assert open_descriptors() == descriptors


@pytest.mark.parametrize("again", [False, True])
def test_too_few_descriptors_are_an_error_that_leaves_none(path: Path, *, again: bool) -> None:
    """One for the bytes and one for the lock are needed; with fewer both are given back."""
    with written(path) as output:
        known = stored(output)
    descriptors = open_descriptors()
    with descriptors_left(1), pytest.raises(DiskError, match=r"out\.part: cannot be opened: Too many open files"):
        reopen_output(path, known, complete=False) if again else create_output(path)
    assert open_descriptors() == descriptors


def test_an_output_that_cannot_be_opened_now_is_not_given_up(path: Path) -> None:
    """What is finished in it must not be thrown away because descriptors are short."""
    with written(path) as output:
        known = stored(output)
    with descriptors_left(0), pytest.raises(DiskError, match=r"out\.part: cannot be opened: Too many open files"):
        reopen_output(path, known, complete=False)
    assert part_path_of(path).exists()


def test_closing_gives_lock_and_descriptors_back(path: Path) -> None:
    """Though a fork of the caller may hold the descriptors for longer."""
    descriptors = open_descriptors()
    output = create_output(path)
    kept = os.dup(output._lock_fd)
    output.close()
    with part_path_of(path).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(kept)
    assert open_descriptors() == descriptors


@pytest.mark.parametrize("error", [Busy("taken"), KeyboardInterrupt("taken")])
@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_cannot_be_locked_is_removed_unless_it_is_anothers(
    path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, *, replaced: bool
) -> None:
    """What was made an instant ago goes again, after Ctrl-C too; what somebody put in its place stays."""

    def lock(*_: object) -> None:
        if replaced:
            part_path_of(path).unlink()
            part_path_of(path).write_bytes(b"another's")
        raise error

    descriptors = open_descriptors()
    monkeypatch.setattr(module, "lock", lock)
    with pytest.raises(type(error), match="taken"):
        create_output(path)
    assert names(path.parent) == (["out.part"] if replaced else [])
    assert open_descriptors() == descriptors


def test_a_durable_publication_syncs_the_bytes_then_renames_then_syncs_the_name(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In that order: a name that survives a power loss means bytes that do."""
    done: list[str] = []

    def noting(name: str, call: Callable[..., object]) -> Callable[..., object]:
        def noted(fd: int, *arguments: object) -> object:
            directory = isinstance(fd, int) and stat.S_ISDIR(os.fstat(fd).st_mode)
            done.append(f"{name} of the directory" if directory else name)
            return call(fd, *arguments)

        return noted

    descriptors = open_descriptors()
    with written(path) as output:
        for owner, name in ((os, "ftruncate"), (os, "fchmod"), (os, "fsync"), (Path, "replace")):
            monkeypatch.setattr(owner, name, noting(name, getattr(owner, name)))
        output.publish(fsync=True)
        monkeypatch.undo()
    assert done == ["ftruncate", "fchmod", "fsync", "replace", "fsync of the directory"]
    assert open_descriptors() == descriptors


def test_what_the_disk_did_not_keep_is_lost(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked once: the kernel may show bytes that the disk does not have, so nothing is published."""
    asked = []

    def fail(fd: int) -> None:
        asked.append(fd)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with written(path) as output:
        assert output.lost is False
        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(DiskError) as caught:
            output.publish(fsync=True)
        assert str(caught.value) == f"{path}.part: the disk did not keep it: Input/output error; start over"
        assert (output.lost, asked, path.exists()) == (True, [output.fd], False)


@pytest.mark.parametrize("change", ["truncated", "removed"])
def test_meddling_while_the_disk_syncs_is_noticed(path: Path, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """That may take minutes; each of the two is enough."""

    def meddle(_: int) -> None:
        if change == "truncated":
            os.truncate(part_path_of(path), 1)
        else:
            part_path_of(path).rename(path.with_name("moved"))

    with written(path) as output:
        monkeypatch.setattr(os, "fsync", meddle)
        with pytest.raises(DiskError) as caught:
            output.publish(fsync=True)
        assert str(caught.value) == f"{path}.part: another process truncated, removed or replaced it"
        assert (output.lost, path.exists()) == (False, False)


@pytest.mark.parametrize("fails", [0, 1, 2])
def test_a_file_made_durable_is_synced_and_then_its_name(
    path: Path, fails: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever wrote it; a refusal of either is an error with the reason."""
    synced: list[bool] = []

    def noted(fd: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(fd).st_mode))
        if len(synced) == fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with written(path) as output:
        monkeypatch.setattr(os, "fsync", noted)
        if fails:
            with pytest.raises(DiskError) as caught:
                output.sync()
            assert str(caught.value) == f"{path}: cannot be made durable: Input/output error"
        else:
            output.sync()
    assert synced == [False, True][: fails or 2]


def test_nothing_is_synced_unasked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would cost minutes on a large file."""
    with written(path) as output:
        monkeypatch.setattr(os, "fsync", None)
        output.publish(fsync=False)


def test_an_unfinished_output_that_was_cut_already_is_taken_only_if_all_is_marked(path: Path) -> None:
    """Killed between cut and rename: the very inode, every mark, and hashed whatever the user trusts."""
    with written(path) as output:
        known = stored(output)
        os.ftruncate(output.fd, len(DATA))
    assert reopen_output(path, known, complete=False) is None
    another = stored(output, inode=(0, 0))
    assert reopen_output(path, another, complete=True) is None
    again = reopen_output(path, known, complete=True)
    assert again is not None
    with closing(again):
        assert (again.sealed, again.published, again.part_path) == (True, False, part_path_of(path))
        again.allocate(len(DATA))
        assert again.sealed is False
        again.check()
    again = reopen_output(path, known, complete=True)  # killed again: it must not have become another file
    assert again is not None
    with closing(again):
        again.allocate(len(DATA))
        again.publish(fsync=False)
    assert path.read_bytes() == DATA


def test_a_file_under_its_final_name_that_is_longer_is_not_taken(path: Path) -> None:
    """With the stamp behind it the file was never published."""
    with written(path) as output:
        known = stored(output)
    part_path_of(path).rename(path)
    assert reopen_output(path, known, complete=True) is None


def test_every_output_has_a_stamp_of_its_own(tmp_path: Path) -> None:
    """Sixteen random bytes: marks of one file are never believed of another."""
    with closing(create_output(tmp_path / "a")) as one, closing(create_output(tmp_path / "b")) as two:
        assert len(one.stamp) == len(two.stamp) == STAMP
        assert one.stamp != two.stamp


def test_the_output_is_not_inherited_by_programs(path: Path) -> None:
    """A program that the caller starts would hold file and lock for as long as it runs."""
    with closing(create_output(path)) as output:
        assert not os.get_inheritable(output.fd)
        assert not os.get_inheritable(output._lock_fd)
