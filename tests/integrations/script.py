"""A program of a user's in a session of its own: it must end well, print no warning and leave no process."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tests.e2e.processes import running_any

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE = 90.0  # seconds; workers that are spawned import torch, one after the other on a busy machine
# torch finds four workers too many for two processors.
_OPTIONS = ("-W", "error", "-W", "ignore:This DataLoader will create:UserWarning")


def run_script(folder: Path, text: str, *arguments: str, environment: dict[str, str] | None = None) -> str:
    """Run ``text`` as a file, with ``arguments`` in ``sys.argv``; return what it printed."""
    path = folder / "caller.py"
    path.write_text(text)
    command = [sys.executable, *_OPTIONS, str(path), *arguments]
    with running_any(folder / "logs", command, cwd=folder, environment=environment) as caller:
        assert caller.wait(PATIENCE) == 0, caller.stderr
        assert caller.stderr == ""
        caller.wait_gone(PATIENCE)
        return caller.stdout
