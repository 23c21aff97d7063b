"""The nth-failure sweep: whatever the kernel refuses, once or for ever, no wrong file, no traceback, no hang."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.fault.scenes import Stage, stage
from tests.fault.sweep import counted, points, strike

if TYPE_CHECKING:
    from collections.abc import Iterator

SCENES = ("fresh", "resume", "keep", "reuse", "repair", "stream")
SPARED = {"fresh": 2, "resume": 2, "reuse": 6}  # one kind of so many in the short form; reuse starts programs
LEAST = 15  # kinds of calls that each scene makes, at least: fewer, and the judge sees nothing


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Have the scenes ready."""
    with stage(tmp_path_factory.mktemp("stage")) as ready:
        yield ready


@pytest.mark.timeout(600)
@pytest.mark.parametrize("scene", SCENES)
def test_one_failure_of_each_kind_of_call(play: Stage, scene: str) -> None:
    """Each call of the scene fails in one way: a documented exit code, one line, a right file or none, then exact."""
    counts = counted(play, play.scenes[scene])
    assert len(counts) >= LEAST
    chosen = {}
    for index, point in enumerate(points(scene, counts, every=False)):
        if hash_of(index) % 5 == 0 or point.key not in chosen:
            chosen[point.key] = point
    for point in list(chosen.values())[:: SPARED.get(scene, 1)]:
        _, wrong = strike(play, point)
        assert not wrong, f"{point}: {wrong}"


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("scene", SCENES)
def test_every_failure_of_every_kind_of_call(play: Stage, scene: str) -> None:
    """The first, second and last call of each kind with every error, once and from then on."""
    codes: Counter[int | None] = Counter()
    for point in points(scene, counted(play, play.scenes[scene]), every=False):
        code, wrong = strike(play, point)
        assert not wrong, f"{point}: {wrong}"
        codes[code] += 1
    assert codes[0] > 100
    assert codes[9] > 100


def hash_of(number: int) -> int:
    """Scatter numbers, the same way each time."""
    return number * 2654435761 >> 7
