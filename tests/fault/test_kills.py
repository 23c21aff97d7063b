"""SIGKILL at the system calls of every path to the disk: what is marked is there, what was promised is all it costs."""

from __future__ import annotations

import errno
import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.fault.judge import Key, Refuse
from tests.fault.kills import Kill, campaign, every_kill, suffer
from tests.fault.scenes import Stage, stage
from tests.fault.sweep import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fault.judge import Call, Verdict


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Have the scenes ready."""
    with stage(tmp_path_factory.mktemp("stage")) as ready:
        yield ready


def test_p11_death_at_each_step_of_publishing(play: Stage) -> None:
    """Killed before and after the stamp goes, the mode is set, the file is synced and renamed, the records removed."""
    counts = counted(play, play.scenes["fresh"])
    steps = (
        "ftruncate(part)",
        "fchmod(part)",
        "fsync(part)",
        "rename(part)",
        "fsync(folder)",
        "unlink(checkpoint)",
    )
    kills = [kill for kill in every_kill("fresh", counts) if str(kill.key) in steps and kill.victim != "worker"]
    assert {str(kill.key) for kill in kills} == set(steps)
    for kill in kills:
        assert suffer(play, [kill]) == (1, "")


def test_death_between_two_names(play: Stage) -> None:
    """Killed after the link that publishes and before the old name goes, the next run never writes into that file."""

    def decide(call: Call) -> Verdict:
        if call.key == Key("renameat2", "part"):
            return Refuse(errno.EINVAL)  # as file systems do that do not know it
        if call.key == Key("unlink", "part"):
            os.killpg(os.getpgid(call.process), signal.SIGKILL)
            return Refuse(errno.EPERM)  # should the answer overtake the signal
        return None

    fresh = play.scenes["fresh"]
    scene = replace(fresh, arguments=(*fresh.arguments, "-n"), before={})
    born, _ = play.judged(scene, decide)
    assert born.code == -signal.SIGKILL
    assert play.names() == {"out", "out.part", "out.cp"}
    before = play.output.stat()
    assert before.st_nlink == 2
    assert play.recovered(fresh) == ""
    after = play.output.stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_nlink) == (before.st_ino, before.st_mtime_ns, 1)


@pytest.mark.timeout(600)
def test_death_at_random_calls(play: Stage) -> None:
    """Chains of up to three kills, of the tree, the command or a worker: 80 points of one seed."""
    for _, wrong in campaign(play, 80, seed=20261126, every=False):
        assert not wrong


@pytest.mark.long
@pytest.mark.timeout(14400)
def test_ten_thousand_deaths(play: Stage) -> None:
    """Every call of every scene, before, after and half-way, each victim; then chains at random."""
    total = 0
    for struck, wrong in campaign(play, 10_000, seed=1):
        assert not wrong
        total += struck
    assert total >= 10_000


def test_a_wrong_mark_would_be_seen(play: Stage) -> None:
    """The campaign can fail: a kill that tears a part's bytes after its mark is told."""
    scene = play.scenes["resume"]
    broken = dict(scene.before)
    data = bytearray(broken["out.part"])
    data[2 * 16 * 1024 + 5] ^= 1  # a marked part that the scene does not know to be damaged
    play.scenes["broken"] = type(scene)("broken", scene.arguments, broken | {"out.part": bytes(data)})
    try:
        assert suffer(play, [Kill("broken", None, 25, "tree")])[1]
    finally:
        del play.scenes["broken"]
