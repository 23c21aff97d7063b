"""What happens to files between runs, or behind the back of one."""

from __future__ import annotations

import os
import random
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fault.schedules.values import Damage

_HEAD = 8192  # bytes of a checkpoint's two slots


def damage(path: Path, done: Damage, older: bytes | None) -> bool:
    """Do it to the file at ``path``, which was ``older`` before the last run; tell whether anything was done."""
    if done.how == "older":
        if older is not None:
            path.write_bytes(older)
        return older is not None
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return False
    at = len(data) * done.amount // 1000
    if done.how == "flip" and data:
        at = _position(done, len(data))
        _write(path, at, bytes((data[at] ^ (1 << done.amount % 8),)))
    elif done.how == "cut":
        os.truncate(path, at)
    elif done.how == "extend":
        _write(path, len(data), _junk(done.amount, 1 + done.amount))
    elif done.how == "delete":
        path.unlink()
    elif done.how == "junk":
        path.write_bytes(_junk(done.amount, 1 + 2 * at))
    elif done.how == "swap":
        path.unlink()
        path.write_bytes(_junk(done.amount, len(data)))
    return True


def _position(done: Damage, size: int) -> int:
    """Tell which byte of a file to flip; in a checkpoint, most of which is head, its marks twice out of three times."""
    if done.what == "cp" and done.amount % 3 and size > _HEAD:
        return _HEAD + (done.amount // 3 % 8 if done.amount % 3 == 1 else done.amount * 37 % (size - _HEAD))
    return min(size - 1, size * done.amount // 1000)


def behind_its_back(path: Path, how: str) -> None:
    """Delete or cut a file that a run has open."""
    with suppress(FileNotFoundError):
        if how == "delete":
            path.unlink()
        else:
            os.truncate(path, path.stat().st_size // 2)


def contents(folder: Path) -> dict[str, bytes]:
    """Read every file."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _write(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def _junk(seed: int, nbytes: int) -> bytes:
    return random.Random(seed).randbytes(nbytes)
