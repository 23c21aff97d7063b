"""What is compared of a whole object, and what the result may say of it."""

from __future__ import annotations

import pytest

from fastdl.digest import Expected
from fastdl.errors import IntegrityError
from fastdl.hashers import make_hasher
from fastdl.proof import CRC64, Claims, kind_of, worth_comparing

ALGORITHMS = ("sha512", "sha256", "crc64nvme", "crc64", "crc32c", "sha1", "md5", "crc32")


def digest(algorithm: str, digit: str = "0", part_size: int | None = None) -> Expected:
    """Make a digest of one digit over and over."""
    return Expected(algorithm, digit * len(make_hasher(algorithm).hexdigest()), part_size)


def chosen(*algorithms: str, crc64: int | None = None) -> set[str]:
    """Choose among promises."""
    return {each.algorithm for each in worth_comparing(map(digest, algorithms), crc64)}


def test_the_strongest_promise_is_compared_and_every_crc() -> None:
    """A CRC costs next to nothing beside bytes that are read anyway; a second cryptographic hash does not."""
    assert chosen() == set()
    assert chosen("md5") == {"md5"}
    assert chosen("sha1", "md5", "sha256") == {"sha256"}
    assert chosen(*ALGORITHMS) == {"sha512", "crc64nvme", "crc64", "crc32c", "crc32"}
    assert chosen("md5", "crc32c") == {"crc32c"}
    assert chosen("md5", crc64=0) == {"crc64"}
    assert chosen("sha256", crc64=0) == {"sha256", "crc64"}


def test_a_promise_that_cannot_be_computed_here_is_left_out() -> None:
    """The next best one is compared instead."""
    assert worth_comparing([Expected("nonsense", "00" * 99), digest("md5")], None) == (digest("md5"),)


def test_a_store_that_contradicts_itself_proves_nothing() -> None:
    """Both values are compared, so that one of them fails."""
    promised = worth_comparing([digest("sha256", "a"), digest("sha256", "b")], None)
    with pytest.raises(IntegrityError, match="the store promised bbb"):
        Claims((), promised).judge("x", {kind_of(promised[0]): "a" * 64})


def test_nothing_is_read_for_the_crc_that_the_parts_combine_to() -> None:
    """Unless the parts of an earlier run were trusted, and the user wants to know."""
    both = (digest("crc64"),)
    assert Claims(both, both).kinds == ()
    assert Claims(both, both, trusted=True).kinds == (CRC64,)
    assert Claims((), both, trusted=True).kinds == ()
    assert Claims((digest("sha256"),), (digest("sha256"), digest("sha256", part_size=5))).kinds == (
        ("sha256", None),
        ("sha256", 5),
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_wrong_digest_is_an_error_that_names_both(algorithm: str) -> None:
    """Whoever told it."""
    zero, kind = digest(algorithm), kind_of(digest(algorithm))
    actual = {CRC64: "0" * 16, kind: digest(algorithm, "1").hex}
    for claims, verb in ((Claims((zero,), ()), "expected"), (Claims((), (zero,)), "the store promised")):
        with pytest.raises(IntegrityError, match=f"^URL: {algorithm} is {actual[kind]}, {verb} {zero.hex}$"):
            claims.judge("URL", actual)


def test_what_is_named_is_what_proves_the_most_the_users_own_first() -> None:
    """Nothing is named that was not compared."""
    promised = (digest("crc32c"), digest("crc64"))
    digests = {kind_of(digest(each)): digest(each).hex for each in ALGORITHMS}
    assert Claims((), ()).judge("x", digests) == ""
    assert Claims((), promised).judge("x", digests) == "crc64"
    assert Claims((digest("md5"), digest("crc32")), promised).judge("x", digests) == "md5"


def test_the_crc_of_records_proves_nothing_of_trusted_parts() -> None:
    """It is compared all the same: records that do not fit the promise are of another object."""
    digests = {kind_of(digest(each)): digest(each).hex for each in ALGORITHMS}
    assert Claims((), (digest("crc64"),), trusted=True).judge("x", digests) == ""
    assert Claims((), (digest("crc64"), digest("md5")), trusted=True).judge("x", digests) == "md5"
    with pytest.raises(IntegrityError):
        Claims((), (digest("crc64", "1"),), trusted=True).judge("x", digests)
