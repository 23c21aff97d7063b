"""Heads are written by strangers."""

from __future__ import annotations

import base64

from hypothesis import given
from hypothesis import strategies as st
from urllib3 import HTTPHeaderDict

from fastdl.promises import promised

NAMES = (
    *("Repr-Digest", "Content-Digest", "Content-MD5", "x-goog-hash", "x-goog-stored-content-encoding"),
    *("x-amz-checksum-type", "x-amz-checksum-sha256", "x-amz-checksum-crc64nvme", "x-amz-checksum-crc32"),
)
LENGTHS = {"sha512": 64, "sha256": 32, "crc64nvme": 8, "crc32c": 4, "sha1": 20, "md5": 16, "crc32": 4}
PIECES = st.sampled_from(
    ["sha-256=", "sha-512=:", "md5=", ":", ";", ",", "=", '"', "crc32c=", " ", "FULL_OBJECT", "-3"]
)
CODED = st.sampled_from([4, 8, 16, 20, 32, 64]).flatmap(
    lambda length: st.binary(min_size=length, max_size=length).map(lambda digest: base64.b64encode(digest).decode())
)
VALUES = st.lists(PIECES | CODED | st.text(st.characters(max_codepoint=255), max_size=8), max_size=12).map("".join)


@given(st.dictionaries(st.sampled_from(NAMES), VALUES), st.booleans())
def test_any_head_gives_digests_of_known_names_and_right_lengths_or_none(fields: dict[str, str], whole: bool) -> None:
    """Nothing that a server writes is an error, and a range promises no more than the whole does."""
    headers = HTTPHeaderDict(fields)
    found = promised(headers, whole=whole)
    assert all(len(each.hex) == 2 * LENGTHS[each.algorithm] and int(each.hex, 16) >= 0 for each in found)
    assert len(set(found)) == len(found)
    assert set(promised(headers, whole=False)) <= set(promised(headers, whole=True))


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=16, max_size=16), VALUES.filter(lambda v: "=" not in v))
def test_a_promise_is_read_whatever_stands_beside_it(sha256: bytes, md5: bytes, rest: str) -> None:
    """A member that is not understood spoils no other."""
    value = f"sha-256=:{base64.b64encode(sha256).decode()}:,{rest},md5=:{base64.b64encode(md5).decode()}:"
    found = {each.algorithm: each.hex for each in promised(HTTPHeaderDict({"Repr-Digest": value}), whole=False)}
    assert found == {"sha256": sha256.hex(), "md5": md5.hex()}
