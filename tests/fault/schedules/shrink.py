"""A smaller schedule that fails in the same way: whatever can be left out, or be as usual, is."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Value = TypeVar("Value")


def shrink(value: Value, fails: Callable[[Value], bool], most: int = 300) -> Value:
    """Return the simplest value found that still ``fails``, after asking at most ``most`` times."""
    asked = 0
    simplified = True
    while simplified:
        simplified = False
        for candidate in simpler(value):
            asked += 1
            if asked > most:
                return value
            if fails(candidate):
                value, simplified = candidate, True
                break
    return value


def simpler(value: Any) -> Iterator[Any]:
    """Yield values that are one step simpler, the simplest first."""
    if isinstance(value, tuple):
        for at in range(len(value)):
            yield (*value[:at], *value[at + 1 :])
        for at, item in enumerate(value):
            yield from ((*value[:at], less, *value[at + 1 :]) for less in simpler(item))
    elif is_dataclass(value) and not isinstance(value, type):
        yield from _with_less(value)
    elif type(value) is int and value > 1:
        yield value // 2


def _with_less(value: Any) -> Iterator[Any]:
    own = {field.name: field.default for field in fields(value)}
    for name, usual in own.items():
        if usual is not MISSING and getattr(value, name) != usual:
            yield replace(value, **{name: usual})
    for name in (name for name in own if name not in _NAMES):
        yield from (replace(value, **{name: less}) for less in simpler(getattr(value, name)))


_NAMES = frozenset(("seed", "at", "connections", "workers", "retry", "read_timeout"))  # less is not simpler
