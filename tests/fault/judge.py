"""Who judges the calls of a watched command: counts those that matter, and lets one of them fail, or be the last.

A call matters if it touches the output, its partial file, its checkpoint or their directory, or makes one of the
things that processes share. Everything else passes unseen.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import threading
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from tests.fault import seccomp

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

    from tests.fault.seccomp import Notice

_PATHS = {  # which argument names the file
    "openat": 1, "newfstatat": 1, "lstat": 0, "rename": 0, "renameat": 1, "renameat2": 1, "unlink": 0, "unlinkat": 1,
    "statfs": 0,
}  # fmt: skip
_DESCRIPTORS = {
    "pread64": 0, "pwrite64": 0, "preadv": 0, "preadv2": 0, "fstat": 0, "flock": 0, "fsync": 0, "fdatasync": 0,
    "ftruncate": 0, "fchmod": 0, "fallocate": 0, "fstatfs": 0, "mmap": 4, "copy_file_range": 2, "fcntl": 0,
    "newfstatat": 0,
}  # fmt: skip
_MAKING = frozenset(("clone", "clone3", "fork", "vfork", "memfd_create", "socketpair", "pipe", "pipe2"))
_EMPTY_PATH = 0x1000
_CREATE = 0o100


@dataclass(frozen=True, slots=True)
class Key:
    """What calls are counted together: ``open`` tells files made from files opened."""

    call: str
    file: str  # "part", "checkpoint", "output", "folder", "memory", or "" where no file is meant

    def __str__(self) -> str:
        return f"{self.call}({self.file})"


@dataclass(frozen=True, slots=True)
class Call:
    """The ``nth`` call of its key in the whole tree, counted from 1, before it happens."""

    key: Key
    nth: int
    process: int
    path: str
    notice: Notice

    def done(self, share: float = 1.0) -> int | None:
        """Do what it asks for, as far as it changes files, and return its result; None if it changes none.

        Of a write only ``share`` of the bytes, at least one.
        """
        arguments, name = self.notice.arguments, self.key.call
        if name == "pwrite64":
            data = _memory(self.process, arguments[1], max(1, int(arguments[2] * share)))
            with self._again() as fd:
                return os.pwrite(fd, data, arguments[3])
        if name == "ftruncate":
            with self._again() as fd:
                os.ftruncate(fd, arguments[1])
        elif name == "fallocate":
            with self._again() as fd:
                os.posix_fallocate(fd, arguments[2], arguments[3])
        elif name == "fchmod":
            with self._again() as fd:
                os.fchmod(fd, arguments[1])
        elif name.startswith("rename"):
            other = arguments[1] if name == "rename" else arguments[3]
            Path(self.path).rename(_string(self.process, other))
        elif name.startswith("unlink"):
            Path(self.path).unlink()
        elif name == "openat" and arguments[2] & _CREATE and not os.path.lexists(self.path):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, arguments[3] & 0o777))
        else:
            return None
        return 0

    @contextmanager
    def _again(self) -> Iterator[int]:
        fd = os.open(f"/proc/{self.process}/fd/{_signed(self.notice.arguments[0])}", os.O_WRONLY)
        try:
            yield fd
        finally:
            os.close(fd)


@dataclass(frozen=True, slots=True)
class Refuse:
    """Let a call fail with ``code``."""

    code: int


@dataclass(frozen=True, slots=True)
class Pretend:
    """Let a call return ``value``."""

    value: int


Verdict: TypeAlias = Refuse | Pretend | None  # None lets the call happen


class Judge:
    """Judges in a thread of its own until no watched process lives; :func:`judging` starts it."""

    def __init__(self, output: Path, decide: Callable[[Call], Verdict]) -> None:
        self.counts: Counter[Key] = Counter()
        self.calls: list[tuple[Key, int]] = []  # in order, each with its process
        self.address = f"\0fastdl-judge-{os.getpid()}-{id(self)}"
        self.error: BaseException | None = None
        self._files = {
            str(output): "output",
            f"{output}.part": "part",
            f"{output}.cp": "checkpoint",
            str(output.parent): "folder",
        }
        self._decide = decide
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.address)
        self._listener.listen(1)
        self._thread = threading.Thread(target=self._run, name="judge", daemon=True)

    def start(self) -> None:
        """Wait for the command from now on."""
        self._thread.start()

    def close(self) -> None:
        """Wait until no watched process lives."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            peer, _ = self._listener.accept()
        except OSError:  # nobody came
            return
        with peer:
            _, (listener, *_), _, _ = socket.recv_fds(peer, 1, 1)
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        try:
            while True:
                ((_, events),) = poll.poll()
                if not events & select.POLLIN:
                    return
                notice = seccomp.receive(listener)
                if notice is not None:
                    self._judge(listener, notice)
        finally:
            os.close(listener)

    def _judge(self, listener: int, notice: Notice) -> None:
        verdict: Verdict = None
        try:
            call = self._understand(notice)
            if call is not None:
                verdict = self._decide(call)
        except (FileNotFoundError, ProcessLookupError):  # the caller was killed meanwhile
            pass
        except BaseException as error:  # noqa: BLE001 - told to the test when it closes the judge
            self.error = self.error or error
        if isinstance(verdict, Refuse):
            seccomp.refuse(listener, notice, verdict.code)
        elif isinstance(verdict, Pretend):
            seccomp.pretend(listener, notice, verdict.value)
        else:
            seccomp.let(listener, notice)

    def _understand(self, notice: Notice) -> Call | None:
        path = ""
        if notice.name not in _MAKING:
            path = _named(notice)
            file = "memory" if path.startswith("/memfd:fastdl") else self._files.get(path, "")
            if not file:
                return None
            key = Key("dup" if notice.name == "fcntl" else notice.name, file)
        else:
            key = Key(notice.name, "")
        self.counts[key] += 1
        process = _process_of(notice.pid)
        self.calls.append((key, process))
        return Call(key, self.counts[key], process, path, notice)


def failing(call: str, file: str, error: str, nths: Container[int] = range(1, 10**6)) -> Callable[[Call], Verdict]:
    """Return what lets the calls of one key fail, all of them or the ``nths``."""
    key, refuse = Key(call, file), Refuse(getattr(errno, error))
    return lambda each: refuse if each.key == key and each.nth in nths else None


@contextmanager
def judging(output: Path, decide: Callable[[Call], Verdict] = lambda _: None) -> Iterator[Judge]:
    """Judge one command that writes ``output``: the one that gets this judge's ``address``."""
    judge = Judge(output, decide)
    judge.start()
    try:
        yield judge
    finally:
        judge.close()


def _named(notice: Notice) -> str:
    if notice.name == "madvise":
        return _mapped(notice)
    if notice.name in _PATHS:
        name = _string(notice.pid, notice.arguments[_PATHS[notice.name]])
        if name or notice.name not in _DESCRIPTORS:
            return name
    fd = _signed(notice.arguments[_DESCRIPTORS[notice.name]])
    return str(Path(f"/proc/{notice.pid}/fd/{fd}").readlink()).removesuffix(" (deleted)")


def _mapped(notice: Notice) -> str:
    """Return the file behind an address."""
    for line in Path(f"/proc/{notice.pid}/maps").read_text("utf-8", "replace").splitlines():
        first, _, last = line.partition(" ")[0].partition("-")
        if int(first, 16) <= notice.arguments[0] < int(last, 16):
            return line.split(maxsplit=5)[5] if line.count("/") else ""
    return ""


def _process_of(thread: int) -> int:
    status = Path(f"/proc/{thread}/status").read_text("utf-8", "replace")
    return int(status.partition("\nTgid:")[2].split()[0])


def _string(pid: int, address: int) -> str:
    with suppress(OSError):
        text = _memory(pid, address, 4096 - address % 4096)
        if b"\0" not in text:  # it goes on in the next page, which is not there behind most strings
            text += _memory(pid, address + len(text), 4096)
        return os.fsdecode(text.partition(b"\0")[0])
    return ""


def _memory(pid: int, address: int, nbytes: int) -> bytes:
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        memory.seek(address)
        return memory.read(nbytes)


def _signed(word: int) -> int:
    number: int = struct.unpack("=i", struct.pack("=I", word & 0xFFFFFFFF))[0]
    return number
