"""Checksum files as ``sha256sum`` and its kin write them: the digests that one object has in them."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

from fastdl.digest import Expected
from fastdl.errors import UsageError
from fastdl.hashers import is_known, make_hasher
from fastdl.redact import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_GNU = re.compile(r"(\\?)([0-9a-f]{8,128})(?: \*|[ \t]+)(.+)", re.ASCII | re.IGNORECASE)
_BSD = re.compile(r"(\\?)([a-z][a-z0-9/_-]{1,20}) ?\((.+)\) ?= ?([0-9a-f]{8,128})", re.ASCII | re.IGNORECASE)
_BARE = re.compile(r"[0-9a-f]{8,128}", re.ASCII | re.IGNORECASE)
_MARK = b"\xef\xbb\xbf"  # of byte order, which some editors of Windows put before UTF-8
_ESCAPED = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}
_BY_LENGTH = {32: "md5", 40: "sha1", 56: "sha224", 64: "sha256", 96: "sha384", 128: "sha512"}  # of hexadecimal digits
# What the name of a checksum file may say. A name that stands in another one comes after it.
_BY_NAME = {
    **{name: name for name in ("sha3-224", "sha3-256", "sha3-384", "sha3-512", "sha512", "sha384", "sha256")},
    **{name: name for name in ("sha224", "sha1", "md5", "blake2b", "blake2s", "xxh3", "crc64nvme", "crc64", "crc32c")},
    "crc32": "crc32",
    "b2sum": "blake2b",
}


def find_digests(
    content: bytes, shown: str, file_name: str, path: Sequence[str], own_name: str
) -> tuple[Expected, ...]:
    """Return the digests that a checksum file has of one object.

    ``file_name`` is its own name, which may tell the algorithm, ``shown`` what people see of it. Of several lines those
    count whose name agrees with the most of the last segments of ``path``, the object's; then those of ``own_name``,
    the output's. A file that holds nothing but one digest needs no name.

    Raises:
        UsageError: no line is about the object, or two contradict each other.
    """
    text = content.removeprefix(_MARK).decode("utf-8", "surrogateescape")
    lines = [line.removesuffix("\r") for line in text.split("\n") if line]
    written = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if len(written) == 1 and _BARE.fullmatch(written[0]):
        found = list(_expected(_by_name(len(written[0]), file_name), written[0]))
    else:
        found = _best(lines, file_name, path, own_name)
    if not found:
        raise UsageError(
            f"{shown}: has no digest of {printable(path[-1] if path else own_name, 200)!r} that is understood"
        )
    if len({each.algorithm for each in found}) < len(set(found)):
        raise UsageError(f"{shown}: has two different digests of {printable(path[-1] if path else own_name, 200)!r}")
    return tuple(dict.fromkeys(found))


def _best(lines: Sequence[str], file_name: str, path: Sequence[str], own_name: str) -> list[Expected]:
    best = 0.0
    found: list[Expected] = []
    for line in lines:
        for name, expected in _entry(line, file_name):
            score = _agreement(name, path, own_name)
            if score > best:
                best, found = score, []
            if score == best > 0:
                found.append(expected)
    return found


def _entry(line: str, file_name: str) -> Iterator[tuple[str, Expected]]:
    """Yield name and digest of a line if it has them."""
    if match := _BSD.fullmatch(line):
        escaped, tag, name, value = match.groups()
        algorithm = re.sub(r"[/_]", "-", tag.lower()).replace("sha2-", "sha").replace("sha-", "sha")
    elif match := _GNU.fullmatch(line):
        escaped, value, name = match.groups()
        algorithm = _by_name(len(value), file_name)
    else:
        return
    if escaped:
        name = re.sub(r"\\[\\nr]", lambda pair: _ESCAPED[pair[0]], name)
    for expected in _expected(algorithm, value):
        yield name, expected


@functools.lru_cache(maxsize=256)
def _by_name(length: int, file_name: str) -> str:
    """Tell the algorithm of so many digits: by the name of the checksum file, if such a digest is as long, or alone."""
    file_name = file_name.lower().replace("_", "-")
    for name, algorithm in _BY_NAME.items():
        if name in file_name and _length_of(algorithm) == length:
            return algorithm
    return _BY_LENGTH.get(length, "")


def _expected(algorithm: str, value: str) -> Iterator[Expected]:
    if _length_of(algorithm) == len(value):
        yield Expected(algorithm, value.lower())


@functools.lru_cache(maxsize=256)
def _length_of(algorithm: str) -> int:
    """Return how many digits a digest has; 0 if it cannot be computed here."""
    return len(make_hasher(algorithm).hexdigest()) if is_known(algorithm) else 0


def _agreement(name: str, path: Sequence[str], own_name: str) -> float:
    """Return how many last segments of a name and of the object's path agree; a half if it is the output's name."""
    segments = [segment for segment in name.split("/") if segment not in ("", ".")]
    count = 0
    for ours, theirs in zip(reversed(segments), reversed(path), strict=False):
        if ours != theirs:
            break
        count += 1
    return count or (0.5 if segments[-1:] == [own_name] else 0.0)
