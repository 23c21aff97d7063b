"""The one place where secrets are taken out of what people and files get to see.

URLs are shown without what may be secret in them. Foreign text is another matter: a server was told the secrets of its
request and may write them anywhere in its answer. So whatever is sent is noted here first, by ``keep_secrets``, for the
whole process, because nobody who prints a text knows which request it goes back to; and ``without_secrets``, through
which every shown text goes, takes it out again.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from contextlib import suppress
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus, unquote, unquote_plus, urlsplit, urlunsplit

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
_MOST, _MOST_LETTERS = 4096, 1 << 20  # spellings to remember of what passes, and what they hold together


class _Passing:
    """What signatures and redirects carry, the latest of it: servers can have us send new texts without end."""

    def __init__(self) -> None:
        self.texts: dict[str, None] = {}  # a set, the oldest first
        self._letters = 0

    def add(self, text: str) -> None:
        """Remember ``text``, and forget the older half when there is too much; what is sent again is noted again."""
        if text not in self.texts:
            self.texts[text] = None
            self._letters += len(text)
        if len(self.texts) > _MOST or self._letters > _MOST_LETTERS:
            for old in tuple(self.texts)[: len(self.texts) // 2]:
                self.texts.pop(old, None)
            self._letters = sum(map(len, tuple(self.texts)))

    def clear(self) -> None:
        """Forget everything."""
        self.texts.clear()
        self._letters = 0


# In lower case both; what the user told is never forgotten.
_given: dict[str, None] = {}
_passing = _Passing()


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

    They are recognised in any case and in the spellings that answers quote them in, whole or as one word of a header.
    What was ``given`` by the user is kept for good, of the rest the latest.
    """
    found = [*texts, *_of_url(url)]
    for name, value in headers:
        if name.lower() not in _OPEN_HEADERS:
            found.extend(_of_header(name.lower(), value))
    for text in found:
        lower = text.lower()
        if len(text) < _SHORTEST or lower in _given or (not given and lower in _passing.texts):
            continue
        for spelling in _spellings(text):
            if len(spelling) >= _SHORTEST:
                (_given.setdefault if given else _passing.add)(spelling)


def without_secrets(text: str) -> str:
    """Return ``text`` with everything in it that was sent as a secret replaced by ``***``."""
    lower = text.lower()
    found = sorted((secret for secret in (*_given, *_passing.texts) if secret in lower), key=len, reverse=True)
    return re.sub("|".join(map(re.escape, found)), "***", text, flags=re.IGNORECASE) if found else text


def printable(text: str, limit: int = 500) -> str:
    """Return foreign ``text`` as one bounded line: no secrets, control characters percent-encoded, the end cut off."""
    text = without_secrets(text)
    clean = "".join(char if char.isprintable() else quote(char, errors="replace") for char in text[: limit + 1])
    return clean if len(clean) <= limit else clean[:limit] + "…"


def _spellings(text: str) -> Iterator[str]:
    """Yield how answers may quote ``text``: in a URL, a form, JSON, HTML, or with its UTF-8 taken for latin-1."""
    for plain in (text, unquote(text), unquote_plus(text)):
        yield plain.lower()
        yield quote(plain, safe="", errors="replace").lower()
        yield quote_plus(plain, errors="replace").lower()
        yield json.dumps(plain)[1:-1].lower()
        yield json.dumps(plain, ensure_ascii=False)[1:-1].replace("/", "\\/").lower()
        yield escape(plain).lower()
        yield plain.encode("utf-8", "replace").decode("latin-1").lower()


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
    words = [word.strip("\"'") for word in re.split(r"[\s,;]+", value)]
    if len(words) > 1:
        yield value.strip()
        if name.endswith("authorization"):  # the first of several names a scheme
            del words[0]
    for word in words:
        left, _, right = word.partition("=")
        right = right.strip("\"'")
        yield from (right, right.rstrip("=")) if right.strip("=") else (word, word.rstrip("="))
        yield from word.split(":") if ":" in word else ()
        if left.lower() == "credential":
            yield _key_id(right)
        with suppress(ValueError):
            yield from _of_login(b64decode(word, validate=True).decode())


def _key_id(credential: str) -> str:
    """Return what a credential begins with; date, region and service follow."""
    return credential.partition("/")[0]


def _name(pair: str) -> str:
    return unquote(pair.partition("=")[0]).lower()


def _authority(netloc: str) -> str:
    return netloc.rpartition("@")[2]
