"""The one place where secrets are taken out of what people and files get to see."""

from __future__ import annotations

from urllib.parse import quote, unquote, urlsplit, urlunsplit

# A query that holds one of these is signed: OSS V1 and V4, AWS V2 and V4, Google V2 and V4, CloudFront, Azure SAS.
_SIGNATURES = frozenset(("signature", "sig", "x-oss-signature", "x-amz-signature", "x-goog-signature"))
# What then changes with every signing of one and the same object, beside everything that starts with a prefix below.
_SIGNING = _SIGNATURES | frozenset(
    (
        *("ossaccesskeyid", "awsaccesskeyid", "googleaccessid", "expires", "security-token"),
        *("key-pair-id", "policy", "se", "st", "sp", "sv", "sr", "spr", "sip", "skoid"),
        *("sktid", "skt", "ske", "sks", "skv"),
    )
)
_SIGNING_PREFIXES = ("x-oss-", "x-amz-", "x-goog-")
_CONTENT = "x-oss-process"  # has the prefix, yet names other content and not another signer


def unsigned_url(url: str) -> str:
    """Return ``url`` without userinfo, fragment and signing parameters: the same object under any signature."""
    parts = urlsplit(url)
    pairs = [pair for pair in parts.query.split("&") if pair]
    names = {_name(pair) for pair in pairs}
    if names & _SIGNATURES:
        pairs = [pair for pair in pairs if not _is_signing(_name(pair))]
    return urlunsplit((parts.scheme.lower(), _authority(parts.netloc).lower(), parts.path, "&".join(pairs), ""))


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


def printable(text: str, limit: int = 500) -> str:
    """Return foreign ``text`` as one bounded line: control characters percent-encoded, the end cut off."""
    clean = "".join(char if char.isprintable() else quote(char, errors="replace") for char in text[: limit + 1])
    return clean if len(clean) <= limit else clean[:limit] + "…"


def _name(pair: str) -> str:
    return unquote(pair.partition("=")[0]).lower()


def _is_signing(name: str) -> bool:
    return name in _SIGNING or (name.startswith(_SIGNING_PREFIXES) and name != _CONTENT)


def _authority(netloc: str) -> str:
    return netloc.rpartition("@")[2]
