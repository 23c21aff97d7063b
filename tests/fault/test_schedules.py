"""Random schedules of faults: the final name is absent or exact, every end is bounded and documented, nothing leaks."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.fault.schedules.campaign import Outcome, campaign
from tests.fault.schedules.generate import make
from tests.fault.schedules.kept import KEPT
from tests.fault.schedules.shrink import shrink
from tests.fault.schedules.stage import Stage, stage
from tests.fault.schedules.values import Fault, Run, Schedule, Thing, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

SHORT = range(2000)
LONG = range(2000, 12_000)
JOBS = 4  # most of what a schedule takes is waiting


@pytest.fixture(name="place", scope="module")
def _place() -> Iterator[Stage]:
    with stage() as place:
        yield place


@pytest.mark.timeout(600)
def test_random_schedules() -> None:
    """Two thousand seeds, the same every time: no wrong file, no hang, no traceback, no orphan, no secret said."""
    _all_well(campaign(SHORT, JOBS, small=True), len(SHORT))


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_more_random_schedules() -> None:
    """Ten thousand more."""
    _all_well(campaign(LONG, JOBS, small=True), len(LONG))


@pytest.mark.parametrize("name", KEPT)
def test_a_schedule_that_once_failed(name: str, place: Stage) -> None:
    """Whatever was found once stays found; three times, because threads and processes decide too."""
    assert [place.play(KEPT[name], Counter()) for _ in range(3)] == ["", "", ""]


def test_a_wrong_byte_that_nothing_promises_is_seen_by_the_rules(place: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge itself: without its excuse, the one lie that cannot be noticed is a failure."""
    lied_to = Schedule(1, Thing(5000), (Run(faults=(Fault("flip", 1, 7),)),))
    assert not place.play(lied_to, Counter())
    monkeypatch.setattr("tests.fault.schedules.play.excuse", lambda *_: "")
    assert "wrong" in place.play(lied_to, Counter())


def test_failing_schedules_are_shrunk() -> None:
    """To what makes them fail, and nothing else."""
    drawn = next(schedule for schedule in map(make, range(1000)) if _has_cut(schedule))
    small = shrink(drawn, _has_cut, 10_000)
    assert [len(step.faults) for step in small.steps if isinstance(step, Run)] == [1]
    assert len(small.steps) == 1
    assert eval(shown(small), vars(__import__("tests.fault.schedules.values", fromlist=["values"]))) == small


def test_a_seed_makes_one_schedule() -> None:
    """Else a printed seed would be worth nothing."""
    assert [make(seed) for seed in range(50)] == [make(seed) for seed in range(50)]


def _all_well(outcome: Outcome, count: int) -> None:
    told = [
        f"seed {failure.seed}: {failure.complaint}\n{shown(failure.shrunk or failure.schedule)}"
        for failure in outcome.failures
    ]
    assert not told, "\n\n".join(told)
    assert outcome.seeds == count
    assert outcome.counts["excused runs"] < outcome.counts["runs"] / 10, "too much is excused to mean anything"


def _has_cut(schedule: Schedule) -> bool:
    return any(fault.kind == "cut" for step in schedule.steps if isinstance(step, Run) for fault in step.faults)
