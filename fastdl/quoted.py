"""What a text reads as once its quoting is taken off, and where the letters of that stand in it.

Servers, proxies and libraries quote in URLs, forms, JSON, HTML, Python and mixtures of them. So no spelling of a secret
is looked for: a text is searched as it stands, and as it reads with one layer after another taken off, in any order.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from html import unescape
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_MOST_READINGS = 24  # of one text, which may have an error in JSON in HTML in a URL
_QUOTINGS = (
    re.compile(r"%[0-9a-f]{2}", re.IGNORECASE),
    re.compile(r"&(?:#[0-9]{1,7}|#x[0-9a-f]{1,6}|amp|lt|gt|quot|apos);", re.IGNORECASE),
    re.compile(
        r"\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|\\u[0-9a-f]{4}|\\x[0-9a-f]{2}|\\[bfnrt/\\\"']", re.IGNORECASE
    ),
    # UTF-8 of which each byte was taken for a letter
    re.compile("[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"),
)


class Reading(NamedTuple):
    """A text with some layers of quoting taken off; its nth letter stands at ``starts[n]`` to ``stops[n]`` there."""

    letters: str
    starts: Sequence[int]
    stops: Sequence[int]


def places_of(known: Iterable[str], text: str) -> list[tuple[int, int]]:
    """Return from where to where in ``text`` something of ``known``, which is folded, stands in whatever quoting."""
    return sorted(place for reading in readings(text) for place in _found(known, reading))


def _found(known: Iterable[str], reading: Reading) -> Iterator[tuple[int, int]]:
    """Yield where in the text something known stands."""
    letters, starts, stops = folded(reading.letters), reading.starts, reading.stops
    if len(letters) != len(reading.letters):  # some letters become two
        counts = [len(folded(letter)) for letter in reading.letters]
        starts = [at for at, many in zip(starts, counts, strict=True) for _ in range(many)]
        stops = [at for at, many in zip(stops, counts, strict=True) for _ in range(many)]
    for secret in known:
        at = letters.find(secret)
        while at >= 0:
            yield starts[at], stops[at + len(secret) - 1]
            at = letters.find(secret, at + 1)


def readings(text: str) -> Iterator[Reading]:
    """Yield ``text`` as it stands, and with one layer of quoting after another taken off, whichever was put on last."""
    found = [Reading(text, range(len(text)), range(1, len(text) + 1))]
    seen = {text}
    for reading in found:  # which grows
        yield reading
        for quoting in _QUOTINGS:
            if len(found) < _MOST_READINGS and quoting.search(reading.letters):
                plainer = _unquoted(reading, quoting)
                if plainer.letters not in seen:
                    seen.add(plainer.letters)
                    found.append(plainer)


def _unquoted(reading: Reading, quoting: re.Pattern[str]) -> Reading:
    """Take off one layer; what stood for a letter is that letter's place."""
    letters: list[str] = []
    starts: list[int] = []
    stops: list[int] = []
    at = 0
    for match in quoting.finditer(reading.letters):
        first, after = match.span()
        plain = _plain(match[0])
        letters += (reading.letters[at:first], plain)
        starts += (*reading.starts[at:first], *([reading.starts[first]] * len(plain)))
        stops += (*reading.stops[at:first], *([reading.stops[after - 1]] * len(plain)))
        at = after
    letters.append(reading.letters[at:])
    return Reading("".join(letters), [*starts, *reading.starts[at:]], [*stops, *reading.stops[at:]])


def _plain(quoted: str) -> str:
    """Return what a match of one of ``_QUOTINGS`` stands for."""
    if quoted[0] == "%" or quoted[:2].lower() == "\\x":
        return chr(int(quoted[-2:], 16))
    if quoted[0] == "&":
        return unescape(quoted.lower())
    if quoted[0] == "\\":
        return "'" if quoted[1] == "'" else str(json.loads(f'"{quoted.lower()}"'))
    with suppress(UnicodeError):
        return quoted.encode("latin-1").decode()
    return quoted


def folded(text: str) -> str:
    """Make letters of one case, and spaces of the plus signs that stand for them in forms."""
    return text.casefold().replace("+", " ")
