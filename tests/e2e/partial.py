"""Unfinished downloads: made by killing real ones, read by the checkpoint's own functions."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from fastdl.checkpoint import open_checkpoint
from fastdl.header import SLOT
from tests.e2e.processes import running

if TYPE_CHECKING:
    from pathlib import Path

    from fastdl.plan import Plan


def checkpoint_of(output: Path) -> Path:
    """Return where the checkpoint of ``output`` lives."""
    return output.with_name(output.name + ".cp")


def partial_of(output: Path) -> Path:
    """Return where the unfinished bytes of ``output`` live."""
    return output.with_name(output.name + ".part")


def leftovers(folder: Path) -> list[str]:
    """List all names in ``folder``."""
    return sorted(path.name for path in folder.iterdir())


def marked(checkpoint: Path) -> tuple[Plan | None, set[int]]:
    """Read the plan and the marked parts of a checkpoint that nobody holds; None and no part if it is unusable."""
    if not checkpoint.exists():
        return None, set()
    with closing(open_checkpoint(checkpoint)) as opened:
        if opened.stored is None:
            return None, set()
        return opened.stored.plan, {index for run in opened.marks.runs()[0] for index in range(run.first, run.stop)}


def bits(checkpoint: Path) -> int:
    """Count the marks of a checkpoint that a running command holds: the bitmap begins behind two slots."""
    try:
        with checkpoint.open("rb") as file:
            file.seek(2 * SLOT)
            return int.from_bytes(file.read(SLOT), "little").bit_count()
    except FileNotFoundError:
        return 0


def interrupt(folder: Path, parts: int, checkpoint: Path, *arguments: object) -> tuple[Plan, set[int]]:
    """Run the command until ``parts`` parts are marked, kill it; return its plan and what was marked."""
    with running(folder, *arguments) as command:
        command.wait_until(lambda: bits(checkpoint) >= parts)
        command.kill_tree()
        command.wait_gone()
    plan, found = marked(checkpoint)
    assert plan is not None
    assert parts <= len(found) < plan.count, "killed too late to have anything left to resume"
    return plan, found
