"""The one place where secrets are taken out of what people and files get to see.

URLs are shown without what may be secret in them. Foreign text is another matter: a server was told the secrets of its
request and may write them anywhere in its answer. So whatever is sent is noted here first, by ``keep_secrets``, for the
whole process, because nobody who prints a text knows which request it goes back to; and ``without_secrets``, through
which every shown text goes, takes it out again.
"""

from __future__ import annotations

import re
from base64 import b64decode
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from fastdl.quoted import folded, places_of, readings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Headers and parameters that hold no secret, and words that errors are understood by. All others do, whoever made them.
_OPEN_HEADERS = frozenset(
    (
        *("accept", "accept-encoding", "accept-language", "content-type", "date", "host", "if-match", "range"),
        *("user-agent", "x-amz-checksum-mode", "x-amz-content-sha256", "x-amz-date", "x-amz-request-payer"),
        *("x-oss-content-sha256", "x-oss-date", "x-oss-range-behavior", "x-oss-request-payer", "x-oss-traffic-limit"),
    )
)
_OPEN_PARAMETERS = frozenset(("restore", "versionid", "x-amz-algorithm", "x-goog-algorithm", "x-oss-signature-version"))
_SHORTEST = 6  # characters; what is shorter stands in every other word
_LONG_NAME = 16  # characters from which on a user's name is taken for a token


class _Known:
    """Texts that must not be shown, folded, the latest of them: so many, and so many letters together, at most."""

    def __init__(self, most: int, letters: int) -> None:
        self.most, self.most_letters = most, letters
        self.texts: dict[str, None] = {}  # a set, the oldest first
        self._letters = 0

    def add(self, text: str) -> None:
        """Remember ``text``, and forget the older half when there is too much; what is sent again is noted again."""
        if text not in self.texts:
            self.texts[text] = None
            self._letters += len(text)
        if len(self.texts) > self.most or self._letters > self.most_letters:
            for old in tuple(self.texts)[: len(self.texts) // 2]:
                self.texts.pop(old, None)
            self._letters = sum(map(len, tuple(self.texts)))

    def clear(self) -> None:
        """Forget everything."""
        self.texts.clear()
        self._letters = 0


# What servers can have us send new texts of without end pushes nothing out of what the user gave. That is bounded too,
# because a job may be given a million signed URLs; what is in use is noted again whenever it is sent.
_given = _Known(16384, 1 << 22)
_passing = _Known(4096, 1 << 20)


def redacted_url(url: str) -> str:
    """Return ``url`` fit for messages and files: no userinfo, no query values, no control characters."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # no number: a password with an unencoded slash, question mark or number sign
    except ValueError:
        return "an unreadable URL"
    if not parts.netloc and "@" in url:
        return "an unreadable URL"
    query = "&".join(
        f"{pair.partition('=')[0]}=***" if "=" in pair else "***" for pair in parts.query.split("&") if pair
    )
    return printable(urlunsplit((parts.scheme, _authority(parts.netloc), parts.path, query, "")))


def keep_secrets(*texts: str, url: str = "", headers: Iterable[tuple[str, str]] = (), given: bool = False) -> None:
    """Note the secrets ``texts``, and those of a request about to be sent, in its URL and its headers.

    They are recognised in any case and however they are quoted, whole or as one word of a header. What was ``given`` by
    the user is kept apart: nothing else pushes it out.
    """
    found = [*texts, *_of_url(url)]
    for name, value in headers:
        if name.lower() not in _OPEN_HEADERS:
            found.extend(_of_header(name.lower(), value))
    for text in found:
        if len(text) < _SHORTEST or folded(text) in _given.texts or (not given and folded(text) in _passing.texts):
            continue
        plain = [reading.letters for reading in readings(text)]
        if text.isdecimal():
            plain.append(text.lstrip("0"))  # as JSON has numbers
        for secret in map(folded, plain):
            if len(secret) >= _SHORTEST:
                (_given if given else _passing).add(secret)


def without_secrets(text: str) -> str:
    """Return ``text`` with everything in it that was sent as a secret replaced by ``***``."""
    known = (*_given.texts, *_passing.texts)
    if not known:
        return text
    shown: list[str] = []
    at = 0
    for start, stop in places_of(known, text):
        if start >= at:
            shown += (text[at:start], "***")
        at = max(at, stop)
    return "".join((*shown, text[at:]))


def printable(text: str, limit: int = 500) -> str:
    """Return foreign ``text`` as one bounded line: no secrets, control characters percent-encoded, the end cut off."""
    text = without_secrets(text)
    clean = "".join(char if char.isprintable() else quote(char, errors="replace") for char in text[: limit + 1])
    return clean if len(clean) <= limit else clean[:limit] + "…"


def _of_url(url: str) -> Iterator[str]:
    with suppress(ValueError):
        parts = urlsplit(url)
        login = parts.netloc.rpartition("@")[0]
        yield from _of_login(login)
        for pair in parts.query.split("&"):
            name, equals, value = pair.partition("=")
            if _name(name) not in _OPEN_PARAMETERS:
                yield value if equals else pair
            if _name(name).endswith("credential"):
                yield _key_id(unquote(value))


def _of_login(login: str) -> Iterator[str]:
    name, _, password = login.partition(":")
    yield from (login, password)
    if len(name) >= _LONG_NAME:
        yield name


def _of_header(name: str, value: str) -> Iterator[str]:
    words = re.split(r"[\s,;]+", value)
    if len(words) > 1 and name.endswith("authorization"):  # the first of several names a scheme
        del words[0]
    yield from (value.strip(), *re.findall(r'"([^"]+)"', value), *words)
    for word in (word.strip("\"'") for word in words):
        left, _, right = word.partition("=")
        yield from (right, right.strip("\"'"), right.rstrip("=")) if right.strip("=") else (word, word.rstrip("="))
        yield from word.split(":") if ":" in word else ()
        if left.lower() == "credential":
            yield _key_id(right.strip("\"'"))
        with suppress(ValueError):
            login = b64decode(word, validate=True).decode("latin-1")
            yield from _of_login(login) if ":" in login else ()


def _key_id(credential: str) -> str:
    """Return what a credential begins with; date, region and service follow."""
    return credential.partition("/")[0]


def _name(pair: str) -> str:
    return unquote(pair.partition("=")[0]).lower()


def _authority(netloc: str) -> str:
    return netloc.rpartition("@")[2]
