"""What the machine is short of is what the kernel says."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

import fastdl.machine
from fastdl.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE = 30.0  # seconds; only failing tests take as long
BURN = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nprint(flush=True)\nwhile True: pass\n"


@contextmanager
def every_processor_burning() -> Iterator[None]:
    """Keep each processor that this process may use busy with a process of its own."""
    burning = [
        subprocess.Popen([sys.executable, "-c", BURN, str(number)], stdout=subprocess.PIPE)
        for number in os.sched_getaffinity(0)
    ]
    try:
        for process in burning:
            assert process.stdout is not None
            process.stdout.readline()  # it runs
        yield
    finally:
        for process in burning:
            process.kill()
            process.communicate()


def look_until(machine: Machine, *, busy: bool) -> None:
    """Look again and again until the processors are found busy, or not."""
    deadline = time.monotonic() + PATIENCE
    while machine.busy != busy:
        assert time.monotonic() < deadline, f"never found {'busy' if busy else 'idle'}"
        machine.look(time.monotonic())
        time.sleep(0.01)


def table(monkeypatch: pytest.MonkeyPatch, **files: str) -> None:
    """Let the machine read these texts in place of ``/proc/stat`` and ``/proc/vmstat``."""
    monkeypatch.setattr(
        fastdl.machine,
        "_table",
        lambda path: [line.split() for line in files.get(path.removeprefix("/proc/"), "").splitlines()],
    )


def test_processors_that_burn_are_busy() -> None:
    """Whoever burns them, and only while they do."""
    machine = Machine()
    with every_processor_burning():
        look_until(machine, busy=True)


def test_what_was_short_most_of_the_time_is_named() -> None:
    """After a while of nothing but burning, processors are what was short."""
    with every_processor_burning():
        machine = Machine()
        deadline = time.monotonic() + PATIENCE
        while machine.short_of != "processors":
            assert time.monotonic() < deadline
            machine.look(time.monotonic())
            time.sleep(0.01)


@pytest.mark.parametrize(("used", "ours"), [(0.0, False), (3.0, False), (5.0, True), (40.0, True)])
def test_who_uses_little_is_not_held_up_by_busy_processors(
    monkeypatch: pytest.MonkeyPatch, used: float, ours: bool
) -> None:
    """Of two processors in twenty seconds: a tenth of each at least must have gone to this process and its children."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(os, "times", lambda: os.times_result((1.0, 1.0, 1.0, 1.0, 100.0)))
    machine = Machine()
    quarter = 1.0 + used / 4
    monkeypatch.setattr(os, "times", lambda: os.times_result((quarter, quarter, quarter, quarter, 120.0)))
    assert machine.ours is ours


def test_nothing_is_short_before_the_first_look() -> None:
    """Nothing is claimed that was not seen."""
    machine = Machine()
    assert (machine.busy, machine.short_of) == (False, "")


def stat(**busy_and_idle: tuple[int, int]) -> str:
    """Write a ``/proc/stat`` of each processor's hundredths of a second: used and idle."""
    rows = [f"{name} {busy} 0 0 {idle} 0 0 0 0 0 0" for name, (busy, idle) in busy_and_idle.items()]
    return "\n".join(["cpu 1 2 3 4 5 6 7 8 9 10", *rows, "intr 5 5", "ctxt 7"])


def looking() -> Machine:
    """Make a machine that has seen the tables once, a moment after it was made."""
    machine = Machine()
    machine.look(0.0)
    machine.look(0.5)
    return machine


def test_only_processors_at_our_disposal_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """What idles elsewhere is of no use, and what burns elsewhere does no harm."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 2})
    table(monkeypatch, stat=stat(cpu0=(9, 9), cpu1=(9, 9), cpu2=(9, 9), cpu12=(9, 9)))
    machine = looking()
    table(monkeypatch, stat=stat(cpu0=(9, 109), cpu1=(109, 9), cpu2=(104, 14), cpu12=(9, 109)))
    machine.look(1.0)
    assert machine.busy
    table(monkeypatch, stat=stat(cpu0=(109, 109), cpu1=(129, 89), cpu2=(204, 14), cpu12=(109, 109)))
    machine.look(2.0)
    assert not machine.busy


def test_two_looks_are_some_time_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel counts in hundredths: what passed in a moment says nothing."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    table(monkeypatch, stat=stat(cpu0=(9, 9)))
    machine = looking()
    table(monkeypatch, stat=stat(cpu0=(109, 9)))
    machine.look(1.0)
    assert machine.busy
    table(monkeypatch, stat=stat(cpu0=(109, 10)))
    machine.look(1.0 + fastdl.machine._OFTEN / 2)
    assert machine.busy
    table(monkeypatch, stat=stat(cpu0=(109, 39)))
    machine.look(2.0)
    assert not machine.busy


@pytest.mark.parametrize(
    ("dirty", "short"), [(0, ""), (100, ""), (149, ""), (150, "disk"), (200, "disk"), (1000, "disk")]
)
def test_a_disk_is_late_where_the_kernel_slows_writers_down(
    monkeypatch: pytest.MonkeyPatch, dirty: int, short: str
) -> None:
    """Half-way between the threshold where it begins to write and the one where it takes nothing more."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    lines = ("nr_free_pages 7", f"nr_dirty {dirty}", "nr_dirty_threshold 200", "nr_dirty_background_threshold 100")
    machine = Machine()
    for second in range(5):
        table(monkeypatch, stat=stat(cpu0=(9, 100 * second)), vmstat="\n".join(lines))
        machine.look(float(second))
    assert machine.short_of == short


def test_systems_that_tell_nothing_are_short_of_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the kernel's files, and without a set of processors, every look is in vain and no error."""
    monkeypatch.delattr(os, "sched_getaffinity")
    real = fastdl.machine._table
    monkeypatch.setattr(fastdl.machine, "_table", lambda _: real(str(tmp_path / "missing")))
    machine = Machine()
    for second in range(1, 10):
        machine.look(float(second))
    assert (machine.busy, machine.short_of) == (False, "")
