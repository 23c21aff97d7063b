"""The Range field as the servers here read it. Source: RFC 9110, section 14."""

from __future__ import annotations

import re
from typing import TypeAlias

Range: TypeAlias = tuple[int, int | None]
"""Half-open ``(start, stop)``; stop None for ``bytes=5-``, and ``(-5, None)`` for the suffix ``bytes=-5``."""

_SINGLE = re.compile(r"bytes=(\d+)-(\d*)")
_SUFFIX = re.compile(r"bytes=-(\d+)")


def parse_range(value: str | None) -> Range | None:
    """Read one byte range; None for several, for another unit and for an invalid one, which a server ignores."""
    if value is None:
        return None
    if suffix := _SUFFIX.fullmatch(value.strip()):
        return -int(suffix[1]), None
    if not (single := _SINGLE.fullmatch(value.strip())):
        return None
    start, stop = int(single[1]), int(single[2]) + 1 if single[2] else None
    return None if stop is not None and stop <= start else (start, stop)


def clip_range(asked: Range, size: int) -> tuple[int, int] | None:
    """Cut a range to an object of ``size`` bytes; None when no byte is left, which is a 416."""
    start, stop = asked
    if start < 0:
        return (max(0, size + start), size) if size else None
    return (start, min(size, size if stop is None else stop)) if start < size else None


def content_range(start: int, stop: int, size: int) -> str:
    """Write the Content-Range of the half-open range ``[start, stop)``."""
    return f"bytes {start}-{stop - 1}/{size}"
