"""What callers hand in, judged by its type: a wrong one is told by the argument's name, before anything is touched."""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping
from numbers import Real
from typing import Any, NoReturn

from fastdl.errors import UsageError
from fastdl.plan import parse_size


def whole(name: str, value: Any) -> int:
    """Return ``value`` as the int it is, of whatever library.

    Raises:
        UsageError: it is none; True and False are none either.
    """
    try:
        return _wrong(name, "a whole number", value) if isinstance(value, bool) else operator.index(value)
    except TypeError:
        _wrong(name, "a whole number", value)


def nbytes(name: str, value: Any) -> int:
    """Return how many bytes ``value`` means: a whole number, or a text that the command takes too (``16M``).

    Raises:
        UsageError: none.
    """
    if not isinstance(value, str):
        return whole(name, value)
    try:
        return parse_size(value)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from None


def seconds(name: str, value: Any) -> float:
    """Return ``value`` as a number of seconds.

    Raises:
        UsageError: it is no number.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        _wrong(name, "a number of seconds", value)
    return float(value)


def text(name: str, value: Any) -> str:
    """Return ``value`` if it is a text.

    Raises:
        UsageError: it is none; it is not shown, because it may be a secret.
    """
    return value if isinstance(value, str) else _wrong(name, "a text", value)


def path(name: str, value: Any) -> str:
    """Return ``value`` as the path it is, of whatever form.

    Raises:
        UsageError: it is none.
    """
    try:
        return os.fsdecode(value)
    except TypeError:
        _wrong(name, "a path", value)


def existing(name: str, value: Any) -> str:
    """Return ``value`` as the path of something that may be there.

    Raises:
        UsageError: it is no path, or nothing can be called so.
    """
    found = path(name, value)
    try:
        possible = bool(found) and b"\0" not in os.fsencode(found)
    except UnicodeError:
        possible = False
    return found if possible else _impossible(name, found)


def pairs(headers: Any) -> tuple[tuple[str, str], ...]:
    """Return the names and values of ``headers``; None means none.

    Raises:
        UsageError: they are no mapping of texts to texts.
    """
    if headers is None:
        return ()
    if not isinstance(headers, Mapping):
        _wrong("headers", "a mapping of names to values", headers)
    return tuple((text("name of a header", name), text("value of a header", value)) for name, value in headers.items())


def texts(name: str, value: Any) -> tuple[str, ...]:
    """Return one text, or each of several; None means none.

    Raises:
        UsageError: it is neither.
    """
    if value is None or isinstance(value, str):
        return () if value is None else (value,)
    if isinstance(value, bytes | Mapping) or not hasattr(value, "__iter__"):
        _wrong(name, "a text or several", value)
    return tuple(text(name, each) for each in value)


def _impossible(name: str, value: str) -> NoReturn:
    raise UsageError(f"{name}: nothing can be called {value!r}")


def _wrong(name: str, wanted: str, value: object) -> NoReturn:
    raise UsageError(f"{name}: want {wanted}, got {type(value).__name__}")
