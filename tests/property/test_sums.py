"""Checksum files are written by strangers."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from fastdl.errors import UsageError
from fastdl.sums import find_digests

if TYPE_CHECKING:
    from fastdl.digest import Expected

DIGEST = hashlib.sha256(b"object").hexdigest()
NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\n\r\0"), min_size=1, max_size=20).filter(
    lambda name: name not in (".", "..") and name == name.strip()
)
LINES = st.lists(
    st.sampled_from([DIGEST, "SHA256 (", ") = ", "  ", " *", "\\", "object", "a/", "\r", "\n", "#", "md5", "=", "\0"])
    | st.text(max_size=5),
    max_size=20,
).map("".join)


@given(LINES.map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=200))
def test_any_content_gives_digests_or_a_usage_error(content: bytes) -> None:
    """Never anything else."""
    found: tuple[Expected, ...] = ()
    with suppress(UsageError):
        found = find_digests(content, "SUMS", "SUMS", ("a", "object"), "out")
        assert found
    assert all(set(each.hex) <= set("0123456789abcdef") for each in found)


@given(NAMES, st.lists(NAMES, max_size=5), st.sampled_from(["{0}  {1}", "{0} *{1}", "SHA256 ({1}) = {0}"]))
def test_a_line_is_found_by_its_name(name: str, others: list[str], form: str) -> None:
    """Whatever the names, in every form, escaped as coreutils does."""

    def line(digest: str, of: str) -> str:
        escaped = of.replace("\\", "\\\\")
        return ("\\" if escaped != of else "") + form.format(digest, escaped)

    wrong = hashlib.sha256(b"other").hexdigest()
    lines = [line(wrong, other) for other in others if other != name]
    content = "\n".join([*lines, line(DIGEST, name), *lines]).encode()
    assert [each.hex for each in find_digests(content, "SUMS", "SUMS", (name,), "")] == [DIGEST]
