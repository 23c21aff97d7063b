"""One flipped bit is found where the store promises a CRC-64, wherever it flips; ``tests.fault.flips`` in short."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.e2e.nursery import Nursery, nursery
from tests.fault.flips.commands import spoilt_always, spoilt_once
from tests.fault.flips.download import PART, SIZE, Object
from tests.fault.flips.trials import SHARES, Found

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

COUNT = 50  # trials for each hundredth that a kind has in the long form


@pytest.fixture(scope="module", name="bearer")
def _bearer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    with nursery(tmp_path_factory.mktemp("nursery")) as bearer:
        yield bearer


@pytest.mark.parametrize(("trial", "share"), SHARES, ids=lambda value: getattr(value, "__name__", ""))
def test_no_flipped_bit_passes(trial: Callable[[int, int], Found], share: int) -> None:
    """Each is found, or is one of a checkpoint's that nothing depends on."""
    found = trial(COUNT * share, 1)
    assert found.flips >= COUNT * share
    assert found.undetected == 0
    assert found.detected > 0
    assert found.detected + found.without_effect == found.flips


def test_a_trial_can_fail() -> None:
    """Right bytes are accepted, and so would be a flip that leaves no trace in a record."""
    with ExitStack() as stack:
        what = Object(stack, PART, SIZE, 1)
        for index, digest in enumerate(what.digests):
            what.checkpoint.mark(index, digest)
        assert what.accepted()


@pytest.mark.parametrize("seed", range(6))
def test_the_command_repairs_what_came_wrong_once(tmp_path: Path, bearer: Nursery, seed: int) -> None:
    """The part is named, the file exact."""
    (tmp_path / "out").mkdir()
    spoilt_once(bearer, tmp_path / "out", seed)


@pytest.mark.parametrize("seed", range(3))
def test_the_command_refuses_what_always_comes_wrong(tmp_path: Path, bearer: Nursery, seed: int) -> None:
    """Exit code 8, and nothing is left."""
    (tmp_path / "out").mkdir()
    spoilt_always(bearer, tmp_path / "out", seed)
