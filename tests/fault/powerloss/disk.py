"""What a disk keeps of a series of file operations when the power goes.

The model is weaker than any journalling file system, so that nothing is believed only because ext4 orders it:

- Each write since the file's last fsync or fdatasync is on the disk, or not, or torn into its sectors of 512 bytes.
- Each change of a file's size since then likewise, independently of the writes: kept writes beyond a size that was
  lost are lost, and a size that was kept without them shows zeros.
- Each creation, rename and removal of a name since the directory's last fsync is kept or not, one by one, whatever
  became of the file's bytes: a rename may be there before the data, and a fsynced file without its name.
- What was kept takes effect in the order it was done in; a rename and a removal are there as a whole or not at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SECTOR = 512  # bytes that a disk writes as a whole
File = int  # which file it is, whatever its name; counted in order of creation


@dataclass(frozen=True, slots=True)
class Create:
    """An empty file got a name."""

    name: str
    file: File


@dataclass(frozen=True, slots=True)
class Rename:
    """A file changed its name, replacing what had the new one."""

    old: str
    new: str
    file: File


@dataclass(frozen=True, slots=True)
class Unlink:
    """A name was removed."""

    name: str


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes were written into a file."""

    file: File
    offset: int
    data: bytes

    @property
    def sectors(self) -> int:
        """How many sectors it touches."""
        return (self.offset + len(self.data) - 1) // SECTOR - self.offset // SECTOR + 1

    def torn(self, mask: int) -> Iterable[tuple[int, bytes]]:
        """Return the pieces, with their offsets, that lie in the sectors whose bits are set in ``mask``."""
        first, stop = self.offset // SECTOR, self.offset + len(self.data)
        for number in range(self.sectors):
            if mask >> number & 1:
                start = max(self.offset, (first + number) * SECTOR)
                end = min(stop, (first + number + 1) * SECTOR)
                yield start, self.data[start - self.offset : end - self.offset]


@dataclass(frozen=True, slots=True)
class Resize:
    """A file's size was set, by truncation or by allocation."""

    file: File
    size: int


@dataclass(frozen=True, slots=True)
class Mode:
    """A file's permissions were set."""

    file: File
    mode: int


@dataclass(frozen=True, slots=True)
class Sync:
    """A file was made durable; with ``data_only`` what reading it back does not need may still be lost: its mode."""

    file: File
    data_only: bool


@dataclass(frozen=True, slots=True)
class SyncFolder:
    """The names were made durable."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The command ended; negative for a signal."""

    code: int


Change: TypeAlias = Create | Rename | Unlink | Write | Resize | Mode
Operation: TypeAlias = Change | Sync | SyncFolder | Ended
ALL = -1  # as a choice: the whole of an operation is on the disk; 0: nothing of it; else the mask of a write's sectors


@dataclass(slots=True)
class State:
    """Names and contents as they are found after the power came back."""

    names: dict[str, File]
    contents: dict[File, bytes]  # of the files that have a name
    modes: dict[File, int]


@dataclass(slots=True)
class Disk:
    """What is surely on the disk, and what is not yet: ``pending``, in order."""

    names: dict[str, File]
    contents: dict[File, bytes]  # of all files that ever were
    modes: dict[File, int] = field(default_factory=dict)
    pending: list[Change] = field(default_factory=list)

    def do(self, operation: Operation) -> None:
        """Carry one operation out."""
        if isinstance(operation, Sync | SyncFolder):
            waiting, self.pending = self.pending, []
            for change in waiting:
                if _makes_durable(operation, change):
                    self._keep(change)
                else:
                    self.pending.append(change)
        elif not isinstance(operation, Ended):
            if isinstance(operation, Create):
                self.contents[operation.file] = b""
            self.pending.append(operation)

    def after(self, choices: Sequence[int]) -> State:
        """Return the state in which of each pending operation just what its choice says is on the disk."""
        state = State(dict(self.names), {}, dict(self.modes))
        changed: dict[File, bytearray] = {}
        for change, choice in zip(self.pending, choices, strict=True):
            if choice == 0:
                continue
            if isinstance(change, Write | Resize):
                if change.file not in changed:
                    changed[change.file] = bytearray(self.contents[change.file])
                _fill(changed[change.file], change, choice)
            elif isinstance(change, Mode):
                state.modes[change.file] = change.mode
            else:
                _rename(state.names, change)
        for file in state.names.values():
            state.contents[file] = bytes(changed[file]) if file in changed else self.contents[file]
        return state

    def live(self) -> State:
        """Return what a program sees now: everything."""
        return self.after([ALL] * len(self.pending))

    def cached(self, file: File) -> bytes:
        """Return what a program reads of ``file`` now, though it may have no name any more."""
        content = bytearray(self.contents[file])
        for change in self.pending:
            if isinstance(change, Write | Resize) and change.file == file:
                _fill(content, change, ALL)
        return bytes(content)

    def _keep(self, change: Change) -> None:
        if isinstance(change, Write | Resize):
            content = bytearray(self.contents[change.file])
            _fill(content, change, ALL)
            self.contents[change.file] = bytes(content)
        elif isinstance(change, Mode):
            self.modes[change.file] = change.mode
        else:
            _rename(self.names, change)


def _makes_durable(sync: Sync | SyncFolder, change: Change) -> bool:
    if isinstance(sync, SyncFolder):
        return isinstance(change, Create | Rename | Unlink)
    if isinstance(change, Mode):
        return change.file == sync.file and not sync.data_only
    return isinstance(change, Write | Resize) and change.file == sync.file


def _rename(names: dict[str, File], change: Create | Rename | Unlink) -> None:
    if isinstance(change, Create):
        names[change.name] = change.file
    elif isinstance(change, Unlink):
        names.pop(change.name, None)
    else:  # the new entry names the file itself, whatever became of the old one
        names.pop(change.old, None)
        names[change.new] = change.file


def _fill(content: bytearray, change: Write | Resize, choice: int) -> None:
    """Let a content take one change; without a size that reaches so far, what was written is not to be seen."""
    if isinstance(change, Resize):
        if change.size <= len(content):
            del content[change.size :]
        else:
            content.extend(bytes(change.size - len(content)))
        return
    for start, piece in ((change.offset, change.data),) if choice == ALL else change.torn(choice):
        end = min(start + len(piece), len(content))
        if end > start:
            content[start:end] = piece[: end - start]
