"""The command as a process: its exit code, what it printed, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import fastdl

if TYPE_CHECKING:
    from collections.abc import Sequence

# The command with something else for its inside.
INSTEAD = """
import gc, sys
import fastdl.cli
from fastdl.__main__ import run
def main():
    {}
fastdl.cli.main = main
run()
"""


def started(
    *arguments: str, redirection: str = "", out: int = subprocess.PIPE, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Python with the project's modules; ``redirection`` is the shell's."""
    command: Sequence[str] = [sys.executable, "-W", "error", *arguments]
    if redirection:
        command = ["sh", "-c", f'exec "$@" {redirection}', "sh", *command]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    environment["PYTHONPATH"] = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    return subprocess.run(
        command,
        stdout=out,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        check=False,
        text=True,
        timeout=60,
        cwd=cwd,
        env=environment,
    )


def test_the_version_is_told_by_the_process() -> None:
    """Nothing that was printed is lost by ending at once."""
    done = started("-m", "fastdl", "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"fastdl, version {fastdl.__version__}\n"


def test_without_arguments_the_process_shows_help(tmp_path: Path) -> None:
    """As the command does in the caller's own process."""
    done = started("-m", "fastdl", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: fastdl")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flag", ["--version", "--help"])
def test_a_full_standard_output_is_one_line(flag: str) -> None:
    """Not a traceback, and not what Python says of a stream that it cannot flush at the end."""
    done = started("-m", "fastdl", flag, redirection=">/dev/full")
    assert (done.returncode, done.stderr) == (9, "fastdl: standard output: No space left on device\n")


@pytest.mark.parametrize("flag", ["--version", "--help"])
def test_a_reader_that_left_hears_nothing(flag: str) -> None:
    """As in `fastdl --help | head -1`."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = started("-m", "fastdl", flag, out=writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-", "2>/dev/full"])
def test_a_stream_that_is_not_there_changes_no_exit_code(redirection: str) -> None:
    """What goes to the other one, or to nobody, is done."""
    done = started("-m", "fastdl", "--version", redirection=redirection)
    assert (done.returncode, done.stderr) == (0, "")
    assert (fastdl.__version__ in done.stdout) == (">&-" not in redirection.split())


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-", "2>&-", ">&- 2>&-"])
def test_a_usage_error_keeps_its_exit_code(redirection: str) -> None:
    """Whoever reads what of it."""
    done = started("-m", "fastdl", "nonsense", redirection=redirection)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == ("2>&-" not in redirection)


@pytest.mark.parametrize(
    ("inside", "code"),
    [("sys.exit(7)", 7), ("sys.exit(0)", 0), ("sys.exit()", 0), ("return", 0), ("sys.exit(255)", 255)],
)
def test_the_process_ends_as_the_command_said(inside: str, code: int) -> None:
    """With its exit code, after what it wrote to both streams and did not flush."""
    write = "sys.stdout.write('one'); sys.stderr.write('two'); "
    done = started("-c", INSTEAD.format(write + inside))
    assert (done.returncode, done.stdout, done.stderr) == (code, "one", "two")


@pytest.mark.parametrize("lost", ["sys.stdout.close()", "sys.stdout = None", "sys.stderr = None; sys.stdout.close()"])
def test_streams_that_the_command_lost_are_no_failure(lost: str) -> None:
    """There is nothing to flush then."""
    done = started("-c", INSTEAD.format(f"{lost}; sys.exit(3)"))
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")


def test_what_cannot_be_flushed_does_not_keep_the_other_stream() -> None:
    """Standard output is full: what was said on standard error still comes, and so does the exit code."""
    inside = "sys.stdout.write('one'); sys.stderr.write('two'); sys.exit(4)"
    done = started("-c", INSTEAD.format(inside), redirection=">/dev/full")
    assert (done.returncode, done.stderr) == (4, "two")


def test_garbage_is_not_looked_for_before_the_download() -> None:
    """While modules are imported there is none; from then on there may be."""
    inside = """
    import fastdl.api
    seen = [gc.isenabled()]
    def download(*_, **__):
        seen.append(gc.isenabled())
        raise fastdl.UsageError("enough")
    fastdl.api.download = download
    sys.argv[1:] = ["http://host/object", "-w", "1"]
    try:
        whole()
    finally:
        print(*seen)
"""
    done = started("-c", INSTEAD.replace("def main", "whole = fastdl.cli.main\ndef main").format(inside))
    assert (done.returncode, done.stdout, done.stderr) == (2, "False True\n", "fastdl: enough\n")


@pytest.mark.parametrize("redirection", ["2>/dev/full", ">/dev/full 2>&1"])
def test_a_failure_that_nobody_can_be_told_keeps_its_exit_code(redirection: str) -> None:
    """Programs look at the code alone."""
    assert started("-m", "fastdl", "nonsense", redirection=redirection).returncode == 2
