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
_MOST = 1024  # secrets to remember at least: as many connections as there may be have one signature each under way
_known: dict[str, None] = {}  # in lower case; a set, the oldest first


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


def keep_secrets(*texts: str, url: str = "", headers: Iterable[tuple[str, str]] = ()) -> None:
    """Note the secrets ``texts``, and those of a request about to be sent, in its URL and its headers.

    They are recognised in any case, percent-encoded or decoded, whole or as one word of a header.
    """
    found = [*texts, *_of_url(url)]
    for name, value in headers:
        if name.lower() not in _OPEN_HEADERS:
            found.extend(_of_header(value))
    for text in map(str.lower, found):
        if len(text) >= _SHORTEST and text not in _known:
            spellings = (text, unquote(text).lower(), quote(text, safe="").lower())
            _known.update((spelling, None) for spelling in spellings if len(spelling) >= _SHORTEST)
    if len(_known) > 2 * _MOST:
        for text in tuple(_known)[:_MOST]:
            _known.pop(text, None)  # what is sent again is noted again


def without_secrets(text: str) -> str:
    """Return ``text`` with everything in it that was sent as a secret replaced by ``***``."""
    lower = text.lower()
    found = sorted((secret for secret in tuple(_known) if secret in lower), key=len, reverse=True)
    return re.sub("|".join(map(re.escape, found)), "***", text, flags=re.IGNORECASE) if found else text


def printable(text: str, limit: int = 500) -> str:
    """Return foreign ``text`` as one bounded line: no secrets, control characters percent-encoded, the end cut off."""
    text = without_secrets(text)
    clean = "".join(char if char.isprintable() else quote(char, errors="replace") for char in text[: limit + 1])
    return clean if len(clean) <= limit else clean[:limit] + "…"


def _of_url(url: str) -> Iterator[str]:
    with suppress(ValueError):
        parts = urlsplit(url)
        login = parts.netloc.rpartition("@")[0]
        yield from (login, login.partition(":")[2])
        for pair in parts.query.split("&"):
            name, equals, value = pair.partition("=")
            if _name(name) not in _OPEN_PARAMETERS:
                yield value if equals else pair
            if _name(name).endswith("credential"):
                yield _key_id(unquote(value))


def _of_header(value: str) -> Iterator[str]:
    words = re.split(r"[\s,;]+", value)
    for word in words[len(words) > 1 :]:  # the first of several names a scheme
        name, _, right = word.partition("=")
        yield right if right.strip("=") else word
        yield from word.split(":") if ":" in word else ()
        if name.lower() == "credential":
            yield _key_id(right)
    with suppress(ValueError):
        login = b64decode(words[-1], validate=True).decode()
        yield from (login, login.partition(":")[2])


def _key_id(credential: str) -> str:
    """Return what a credential begins with; date, region and service follow."""
    return credential.partition("/")[0]


def _name(pair: str) -> str:
    return unquote(pair.partition("=")[0]).lower()


def _authority(netloc: str) -> str:
    return netloc.rpartition("@")[2]
