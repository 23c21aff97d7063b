"""Schedules that once failed, kept for ever: as values, because what a seed makes may change."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.fault.schedules.values import Schedule

KEPT: dict[str, Schedule] = {}
"""What was wrong -> the schedule that showed it, shrunk."""
