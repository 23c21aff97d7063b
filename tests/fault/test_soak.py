"""A process that downloads without end, through faults, stays as it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.fault.soak import Look, Soak, soak

SHORT = 20.0  # seconds
_SAW = 32.0  # MiB: in so short a time nothing tells a leak from what waits for the garbage collector


def test_twenty_seconds_of_downloads_leave_nothing_behind() -> None:
    """Broken, refused, killed, cancelled and finished downloads: no descriptor, thread, process more than before."""
    seen = soak(SHORT)
    assert seen.leaks(_SAW) == []
    assert seen.looks[-1].children == 0
    assert seen.ends["done"]
    assert sum(seen.faults.values())


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_ten_minutes_of_downloads_leave_nothing_behind() -> None:
    """The same, long enough for memory to be judged; ``python -m tests.fault.soak`` goes on for an hour."""
    assert soak(600.0).leaks(4.0) == []


@pytest.mark.parametrize("name", ["descriptors", "threads", "children", "private"])
def test_what_grows_is_a_leak(name: str) -> None:
    """The judge itself."""
    flat = Look(3, 1, 0, 30.0)
    seen = Soak(looks=[flat] * 40)
    assert seen.leaks(4.0) == []
    seen.looks = [replace(flat, **{name: getattr(flat, name) + at // 8}) for at in range(60)]
    assert len(seen.leaks(4.0)) == 1
