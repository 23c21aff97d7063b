"""What is asked of directories and file systems before they are trusted with an output."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from fastdl import disk
from fastdl.disk import check_path, check_room
from fastdl.errors import DiskError, UsageError


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    """Name an output that does not exist."""
    return tmp_path / "out"


@pytest.mark.parametrize("kind", ["directory", "symlink", "fifo", "device"])
def test_an_output_that_can_be_none_is_refused(path: Path, kind: str) -> None:
    """Before anything is asked of the network; the text says it once."""
    if kind == "directory":
        path.mkdir()
    elif kind == "symlink":
        path.symlink_to("target")
    elif kind == "fifo":
        os.mkfifo(path)
    target = Path("/dev/null") if kind == "device" else path
    with pytest.raises(UsageError) as caught:
        check_path(target)
    assert str(caught.value) == f"{target}: exists and is no regular file"


@pytest.mark.parametrize("name", ["x" * 256, "a\0b", "a\ud800"], ids=["long", "NUL", "surrogate"])
def test_an_impossible_name_is_refused(tmp_path: Path, name: str) -> None:
    """Too long or with a NUL: a usage error and no traceback."""
    with pytest.raises(UsageError, match="cannot be an output"):
        check_path(tmp_path / name)


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    """It is not made: a mistyped path should not fill another disk."""
    with pytest.raises(DiskError, match="missing: no such directory"):
        check_path(tmp_path / "missing" / "out")


def test_a_name_too_long_for_the_partial_file_is_refused(tmp_path: Path) -> None:
    """Before anything is asked of the network."""
    check_path(tmp_path / ("x" * 250))
    with pytest.raises(UsageError, match=r"cannot be an output: .*too long"):
        check_path(tmp_path / ("x" * 251))


def test_ordinary_outputs_are_accepted(path: Path) -> None:
    """A new name, and an existing file."""
    check_path(path)
    path.write_bytes(b"old")
    check_path(path)
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENOSPC, errno.EIO])
def test_reserving_goes_on_after_an_interruption(path: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal is no answer; the answer that comes then tells whether to do without, or to stop."""
    answers = [errno.EINTR, errno.EINTR, code, 0]
    asked: list[tuple[int, ...]] = []

    def fallocate(*arguments: int) -> int:
        asked.append(arguments)
        ctypes.set_errno(answers[0])
        return -1 if answers.pop(0) else 0

    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: SimpleNamespace(fallocate=fallocate))
    with path.open("wb") as file:
        if code in (errno.ENOSPC, errno.EIO):
            with pytest.raises(OSError, match=os.strerror(code)) as caught:
                disk.fallocate(file.fileno(), 5)
            assert caught.value.errno == code
        else:
            assert disk.fallocate(file.fileno(), 5) is False
        assert asked == [(file.fileno(), 0, 0, 5)] * 3
        assert disk.fallocate(file.fileno(), 5) is True


def test_a_length_beyond_32_bits_reaches_the_kernel(path: Path) -> None:
    """It would be cut to its lower half without a word."""
    with path.open("wb") as file, pytest.raises(OSError, match=r"No space left|File too large"):
        disk.fallocate(file.fileno(), 2**60)


def test_nothing_to_reserve_is_no_system_call(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """fallocate(2) refuses a length of zero."""
    monkeypatch.setattr(ctypes, "CDLL", None)
    with path.open("wb") as file:
        assert disk.fallocate(file.fileno(), 0) is False


@pytest.mark.parametrize("free", [0, 3, 999, 3 * 10**9])
def test_an_object_larger_than_the_room_is_refused(path: Path, free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What only root may use does not count; what fits to the byte is accepted."""
    told = SimpleNamespace(f_bavail=free // 3, f_frsize=3, f_bfree=2**60, f_bsize=4096)  # blocks of an odd size
    monkeypatch.setattr(os, "statvfs", lambda _: told)
    check_room(path, free)
    check_room(path, free // 2)
    with pytest.raises(DiskError) as caught:
        check_room(path, free + 1)
    assert str(caught.value) == f"{path}: no room for {free + 1} bytes: {free} are free"


def test_a_directory_that_takes_no_new_file_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is made in it, so writing and searching must be allowed."""
    asked = []

    def access(where: Path, mode: int) -> bool:
        asked.append((where, mode))
        return False

    monkeypatch.setattr(os, "access", access)
    with pytest.raises(DiskError) as caught:
        check_path(path)
    assert str(caught.value) == f"{path.parent}: not writable"
    assert asked == [(path.parent, os.W_OK | os.X_OK)]


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOMEM, errno.ESTALE])
def test_a_fault_of_the_disk_is_no_fault_of_the_name(path: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever gave the name can do nothing about it."""

    def fail(_: Path) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "lstat", fail)
    with pytest.raises(DiskError, match=os.strerror(code)) as caught:
        check_path(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("unreadable", [OSError("no /proc"), "", "Umask:\tjunk\n"])
def test_the_umask_is_found_without_the_kernels_word_too(
    unreadable: OSError | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By setting it, and setting it back."""

    def read_text(*_: object) -> str:
        if isinstance(unreadable, OSError):
            raise unreadable
        return unreadable

    masks: list[int] = []
    really = os.umask

    def noted(mask: int) -> int:
        masks.append(mask)
        return really(mask)

    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_text", read_text)
            patch.setattr(os, "umask", noted)
            assert disk.umask() == 0o027
        assert masks == [0o077, 0o027]  # whatever another thread creates meanwhile is nobody else's to read
    finally:
        assert os.umask(before) == 0o027


def test_the_umask_is_not_touched_where_the_kernel_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other threads may be creating files."""
    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "umask", None)
            assert disk.umask() == 0o027
    finally:
        os.umask(before)
