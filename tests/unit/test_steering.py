"""What is said of a download that could have been faster."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fastdl.limit import Limit
from fastdl.messages import Line
from fastdl.steering import Steering


@pytest.mark.parametrize(
    ("short", "ours", "refused", "limit_rate", "said"),
    [
        ("processors", True, False, None, "processors"),
        ("processors", False, False, None, "line"),
        ("disk", False, False, None, "disk"),
        ("disk", True, False, None, "disk"),
        ("", True, False, None, "line"),
        ("processors", True, True, None, "server"),
        ("processors", True, True, 10**6, "limit rate"),
    ],
)
def test_the_bottleneck_is_the_lines_where_others_keep_the_processors_busy(
    monkeypatch: pytest.MonkeyPatch, short: str, ours: bool, refused: bool, limit_rate: int | None, said: str
) -> None:
    """Processors are named only if this download asked much of them."""
    monkeypatch.setattr("fastdl.steering.Machine", lambda: SimpleNamespace(short_of=short, ours=ours))
    crew: Any = SimpleNamespace(counters=SimpleNamespace(limit=lambda *_: None))
    limit, schedule = Limit(64, 0.0), SimpleNamespace()
    limit.rising = False
    if refused:
        limit.refused(1.0, 5)
    steering = Steering(crew, schedule, limit, Line(), limit_rate)  # type: ignore[arg-type]
    assert steering.bottleneck() == said
