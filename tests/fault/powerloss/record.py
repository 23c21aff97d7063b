"""The real command under strace: every operation on the files of its folder, of all its processes, in order."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.e2e.processes import program, running
from tests.fault.powerloss.disk import (
    Create,
    Disk,
    Ended,
    File,
    Mode,
    Operation,
    Rename,
    Resize,
    Sync,
    SyncFolder,
    Unlink,
    Write,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CHANGING = (
    *("openat", "pwrite64", "ftruncate", "fallocate", "copy_file_range", "fchmod", "fsync", "fdatasync"),
    *("rename", "renameat", "renameat2", "unlink", "unlinkat"),
)
# What nothing of fastdl's is known to call: were it called on our files, the recording would miss it.
_UNKNOWN = (
    *("write", "writev", "pwritev", "pwritev2", "truncate", "creat", "link", "linkat", "symlink", "symlinkat"),
    *("sync_file_range", "msync", "sync", "syncfs", "sendfile", "splice", "chmod", "fchmodat"),
)
_STRING = 1 << 20  # bytes of a string that strace prints
_CALL = re.compile(r"(?P<pid>\d+) +(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+)")
_BEGUN = re.compile(r"(?P<pid>\d+) +(?P<call>\w+\(.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"(?P<pid>\d+) +<\.\.\. \w+ resumed>(?P<rest>.*)$")
_END = re.compile(r"(?P<pid>\d+) +\+\+\+ (?:exited with (?P<code>\d+)|killed by SIG(?P<signal>\w+).*) \+\+\+$")
_PIECES = re.compile(
    r'"(?P<text>[^"]*)"(?P<cut>\.\.\.)?|(?:\d+|AT_FDCWD)<(?P<path>[^>]*)>(?P<gone>\(deleted\))?|(?P<word>[^,\s]+)'
)
_KILLED = -9


@dataclass(slots=True)
class Tape:
    """Everything that commands did to the files of ``folder`` from a moment on at which all of them were durable."""

    folder: Path
    files: dict[str, bytes]  # what was there before, each under a name of its own
    log: list[Operation] = field(default_factory=list)

    def start(self) -> Disk:
        """Return the disk as it was before the first operation."""
        numbers = {name: number for number, name in enumerate(sorted(self.files))}
        return Disk(dict(numbers), {number: self.files[name] for name, number in numbers.items()})


class Recorder:
    """Runs commands in ``folder`` and writes them to one tape; checks that the tape tells what is really there."""

    def __init__(self, folder: Path, logs: Path) -> None:
        self.tape = Tape(folder, _contents(folder))
        self._logs = logs
        self._disk = self.tape.start()
        self._names = dict(self._disk.names)

    def run(self, *arguments: object, expect: int = 0, kill: str = "") -> None:
        """Run ``fastdl ARGUMENTS``; with ``kill`` it gets SIGKILL on entering the first such system call."""
        trace = self._logs / "trace"
        calls = ",".join((*_CHANGING, *_UNKNOWN))
        prefix = [program("strace", "strace"), "-f", "-y", "-xx", "-s", _STRING, "-o", trace, "-e", f"trace={calls}"]
        # Stopping only at the calls that are traced saves half of the time, but then strace sends no signals.
        prefix += ["-e", f"inject={kill}:signal=KILL:when=1"] if kill else ["--seccomp-bpf"]
        with running(self._logs, *arguments, prefix=prefix) as command:
            code = command.wait()
            assert code == (_KILLED if kill else expect), f"exit {code}: {command.stderr[-2000:]}"
            command.kill_tree()
            command.wait_gone()
        before = len(self.tape.log)
        for line in _complete(trace.read_text("ascii").splitlines()):
            self._take(line)
        self._add(Ended(_KILLED if kill else expect))
        assert len(self.tape.log) > before + 1, "nothing was recorded"
        live = self._disk.live()
        seen = {name: live.contents[file] for name, file in live.names.items()}
        assert seen == _contents(self.tape.folder), "the recording differs from what is there"

    def _add(self, operation: Operation) -> None:
        self.tape.log.append(operation)
        self._disk.do(operation)
        if isinstance(operation, Create):
            self._names[operation.name] = operation.file
        elif isinstance(operation, Rename):
            self._names[operation.new] = self._names.pop(operation.old)
        elif isinstance(operation, Unlink):
            del self._names[operation.name]

    def _take(self, line: str) -> None:
        call = _CALL.match(line)
        if call is None or int(call["result"]) < 0:
            return
        name, result = call["name"], int(call["result"])
        values = [_value(piece) for piece in _PIECES.finditer(call["arguments"])]
        ours = [value for value in values if isinstance(value, bytes) and self._name(value) in self._names]
        folder = os.fsencode(self.tape.folder)
        inside = any(isinstance(value, bytes) and value.startswith(folder) for value in values)
        if name == "openat":
            path = _bytes(values[1])
            if "O_CREAT" in str(values[2]) and _is_in(path, folder) and not ours:
                self._add(Create(self._name(path), len(self._disk.contents)))
            assert not (ours and "O_TRUNC" in str(values[2])), line
        elif name.startswith(("rename", "unlink")):
            paths = [self._name(value) for value in values if isinstance(value, bytes) and _is_in(value, folder)]
            if paths and name.startswith("unlink"):
                self._add(Unlink(paths[0]))
            elif paths:
                self._add(Rename(paths[0], paths[1], self._names[paths[0]]))
        elif name == "fsync" and values[0] == folder:
            self._add(SyncFolder())
        elif inside:
            self._change(name, values, result, line)

    def _change(self, name: str, values: list[bytes | str | None], result: int, line: str) -> None:
        """Take a call on an open file, which must still have its name."""
        assert name in _CHANGING, f"not recorded: {line[:200]}"
        file = self._names[self._name(_bytes(values[2 if name == "copy_file_range" else 0]))]
        if name == "pwrite64":
            offset = int(str(values[3]))
            self._write(file, offset, _bytes(values[1])[:result])
        elif name == "copy_file_range":
            source = self._names[self._name(_bytes(values[0]))]
            start, offset = (int(str(values[at]).strip("[]")) for at in (1, 3))
            self._write(file, offset, self._disk.cached(source)[start : start + result])
        elif name == "ftruncate":
            self._add(Resize(file, int(str(values[1]))))
        elif name == "fallocate":
            size = int(str(values[2])) + int(str(values[3]))
            if size > len(self._disk.cached(file)):
                self._add(Resize(file, size))
        elif name == "fchmod":
            self._add(Mode(file, int(str(values[1]), 8)))
        else:
            self._add(Sync(file, name == "fdatasync"))

    def _write(self, file: File, offset: int, data: bytes) -> None:
        """Record a write; where it makes the file longer, that is a change of its own that may be kept without it."""
        if offset + len(data) > len(self._disk.cached(file)):
            self._add(Resize(file, offset + len(data)))
        self._add(Write(file, offset, data))

    def _name(self, path: bytes) -> str:
        return os.fsdecode(path.rpartition(b"/")[2]) if _is_in(path, os.fsencode(self.tape.folder)) else ""


def _is_in(path: bytes, folder: bytes) -> bool:
    return path.rpartition(b"/")[0] == folder


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _complete(lines: list[str]) -> Iterator[str]:
    """Join calls that strace wrote in two pieces, at the place where they ended."""
    begun: dict[str, str] = {}
    for line in lines:
        if half := _BEGUN.match(line):
            begun[half["pid"]] = half["call"]
        elif rest := _RESUMED.match(line):
            yield f"{rest['pid']} {begun.pop(rest['pid'])}{rest['rest']}"
        else:
            yield line


def _value(piece: re.Match[str]) -> bytes | str | None:
    """Return a string or the path behind a descriptor as bytes, anything else as a word; None for a deleted file."""
    assert not piece["cut"], "strace cut a string"
    if piece["word"] is not None:
        return piece["word"]
    if piece["gone"]:
        return None
    text = piece["text"] if piece["text"] is not None else piece["path"]
    return bytes.fromhex(text.replace("\\x", "")) if text.startswith("\\x") else b""


def _bytes(value: bytes | str | None) -> bytes:
    assert isinstance(value, bytes), "an operation on a file without a name"
    return value
