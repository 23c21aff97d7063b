"""Power loss at every moment of a run: nothing wrong is ever taken for done, and what is sound is used again.

The short form of ``python -m tests.fault.powerloss``. ``--resume trust`` is not among this: it believes marks unread.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.e2e.nursery import Nursery, nursery
from tests.fault.powerloss import scenarios
from tests.fault.powerloss.campaign import play
from tests.fault.powerloss.disk import ALL, Create, Disk, Mode, Rename, Resize, Sync, SyncFolder, Write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.fault.powerloss.campaign import Count
    from tests.fault.powerloss.stage import Recorded, Stage

ENUMERATED = 7  # unsynced operations of which every combination is tried here
NOT_DURABLE = (scenarios.without_fsync, scenarios.killed_after_rename)


@pytest.fixture(scope="module", name="bearer")
def _bearer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    with nursery(tmp_path_factory.mktemp("nursery")) as bearer:
        yield bearer


def short(scenario: Callable[[Stage], Recorded], folder: Path, bearer: Nursery) -> Count:
    """Judge some hundred different states, and run the command on one of each kind and few more."""
    return play(scenario, folder / "stage", bearer, states=700, reruns=2, few=ENUMERATED)


@pytest.mark.parametrize("scenario", scenarios.SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_power_lost_at_any_moment(tmp_path: Path, bearer: Nursery, scenario: Callable[[Stage], Recorded]) -> None:
    """What is believed is right, what is done stays done, and a sound part whose mark was kept is not fetched again.

    Without --fsync the same holds of the unfinished file; the published one may be lost, and that alone is what
    --fsync buys.
    """
    count = short(scenario, tmp_path, bearer)
    assert not count.failures, count.failures[:5]
    assert count.distinct > 100
    assert (count.torn_output > 0) == (scenario in NOT_DURABLE)


@pytest.mark.parametrize("missing", [Sync, SyncFolder])
def test_a_run_that_leaves_out_a_sync_is_found_out(tmp_path: Path, bearer: Nursery, missing: type) -> None:
    """The replay can fail: the same recording without what makes files, or names, durable."""

    def careless(stage: Stage) -> Recorded:
        recorded = scenarios.over_an_older_file(stage)
        log = [each for each in recorded.tape.log if not isinstance(each, missing)]
        return replace(recorded, tape=replace(recorded.tape, log=log))

    assert any("lost after it was done" in failure for failure in short(careless, tmp_path, bearer).failures)


def test_an_unsynced_write_is_lost_kept_or_torn() -> None:
    """In whole sectors; what lies beyond a size that was lost is lost."""
    disk = Disk({"a": 0}, {0: b"." * 1024})
    disk.do(Write(0, 500, b"x" * 600))
    disk.do(Resize(0, 1100))
    assert disk.after((0, 0)).contents[0] == b"." * 1024
    assert disk.after((ALL, 0)).contents[0] == b"." * 500 + b"x" * 524
    assert disk.after((0b010, ALL)).contents[0] == b"." * 512 + b"x" * 512 + bytes(76)
    assert disk.after((0b001, 0)).contents[0] == b"." * 500 + b"x" * 12 + b"." * 512


def test_what_is_synced_stays() -> None:
    """A file's bytes by its own sync, its mode not by one of data only, its name by its folder's."""
    disk = Disk({}, {})
    for operation in (Create("a", 0), Resize(0, 3), Write(0, 0, b"abc"), Mode(0, 0o644), Sync(0, data_only=True)):
        disk.do(operation)
    assert disk.pending == [Create("a", 0), Mode(0, 0o644)]
    disk.do(Rename("a", "b", 0))
    assert disk.after((0, 0, ALL)).contents == {0: b"abc"}
    assert disk.after((ALL, 0, 0)).names == {"a": 0}
    assert disk.after((0, 0, ALL)).names == {"b": 0}
    disk.do(SyncFolder())
    disk.do(Sync(0, data_only=False))
    assert (disk.names, disk.contents, disk.modes, disk.pending) == ({"b": 0}, {0: b"abc"}, {0: 0o644}, [])
