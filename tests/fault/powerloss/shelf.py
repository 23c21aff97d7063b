"""States on a real file system, one after the other."""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from typing import TYPE_CHECKING

import xxhash

from fastdl.header import SLOT, STAMP, decode
from tests.fault.powerloss.disk import Write

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fault.powerloss.disk import File, Operation, State

_INODE = struct.Struct("<QQ")
_INODE_AT = 40  # in a slot


class Shelf:
    """A folder that holds one state after the other. Its files keep their inodes, which checkpoints name, for ever."""

    def __init__(self, folder: Path) -> None:
        self._pool, self.folder = folder / "pool", folder / "files"
        self._pool.mkdir(parents=True)
        self.folder.mkdir()
        self._fds: list[int] = []
        self._held: list[bytes | None] = []
        self._linked: dict[str, File] | None = {}

    def inode(self, file: File) -> tuple[int, int]:
        """Return device and inode that ``file`` has here."""
        while len(self._fds) <= file:
            path = self._pool / str(len(self._fds))
            self._fds.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._held.append(None)
        status = os.fstat(self._fds[file])
        return status.st_dev, status.st_ino

    def put(self, state: State) -> None:
        """Let the folder hold ``state`` and nothing else."""
        for file, content in state.contents.items():
            if self._held[file] != content:
                os.pwrite(self._fds[file], content, 0)
                os.ftruncate(self._fds[file], len(content))
                self._held[file] = content
        if self._linked != state.names:
            for name in os.listdir(self.folder):  # noqa: PTH208 - names, not paths; hundreds of thousands of times
                os.unlink(f"{self.folder}/{name}")  # noqa: PTH108
            for name, file in state.names.items():
                os.link(f"{self._pool}/{file}", f"{self.folder}/{name}")
            self._linked = state.names

    def touched(self) -> None:
        """Take note that files were changed by somebody else."""
        self._held = [None] * len(self._held)
        self._linked = None

    def close(self) -> None:
        """Let go of the files."""
        for fd in self._fds:
            os.close(fd)

    def adapted(self, log: list[Operation]) -> list[Operation]:
        """Return ``log`` with checkpoints that name the inodes of this shelf's files, found by their stamps."""
        stamps = {each.data: each.file for each in log if isinstance(each, Write) and len(each.data) == STAMP}
        return [self._adapt(each, stamps) if isinstance(each, Write) else each for each in log]

    def _adapt(self, write: Write, stamps: dict[bytes, File]) -> Write:
        slots = [write.data[at : at + SLOT] for at in range(0, len(write.data), SLOT)]
        known = [len(slot) == SLOT and decode(slot) for slot in slots]
        if not all(known):
            return write
        data = b""
        for slot, stored in zip(slots, known, strict=True):
            body = bytearray(slot[:-8])
            if stored and stored.stamp in stamps:
                _INODE.pack_into(body, _INODE_AT, *self.inode(stamps[stored.stamp]))
            data += body + xxhash.xxh3_64_digest(body)[::-1]  # the digest is big-endian, the slot little-endian
        return replace(write, data=data)
