"""What validators prove."""

from __future__ import annotations

import pytest
from urllib3 import HTTPHeaderDict

from fastdl.validator import Validator, difference, validator_of, why_not_resumable

DATE, LATER = "Wed, 01 Jan 2025 00:00:00 GMT", "Thu, 02 Jan 2025 00:00:00 GMT"


@pytest.mark.parametrize(
    ("validator", "strong"),
    [
        (Validator(), False),
        (Validator(last_modified=DATE), False),
        (Validator(etag='W/"a"', last_modified=DATE), False),
        (Validator(etag='"a"'), True),
        (Validator(etag="a"), True),
        (Validator(etag='W/"a"', version_id="1"), True),
    ],
)
def test_only_strong_tags_and_versions_prove_equal_bytes(validator: Validator, *, strong: bool) -> None:
    """A weak tag promises meaning and not bytes, a date has a resolution of a second."""
    assert validator.strong is strong


def test_validators_are_read_as_the_server_wrote_them() -> None:
    """Quotes, weakness and blanks inside are kept; names have no case."""
    headers = HTTPHeaderDict({"etag": 'W/"a b"', "LAST-MODIFIED": DATE, "X-Oss-Version-Id": "v"})
    assert validator_of(headers) == Validator('W/"a b"', DATE, "v")


def test_versions_of_s3_are_read_too() -> None:
    """Both families of stores name versions, each in its own header."""
    assert validator_of(HTTPHeaderDict({"x-amz-version-id": "v"})) == Validator(version_id="v")


LONG = '"' + "x" * 5000


@pytest.mark.parametrize("name", ["etag", "last_modified", "version_id"])
def test_long_validators_that_differ_at_their_ends_differ(name: str) -> None:
    """However long it is the whole of it counts, and so it does where a checkpoint has room for its beginning only."""
    before, now = Validator(**{name: LONG + '1"'}), Validator(**{name: LONG + '2"'})
    for kept in (before, before.stored(), before.stored().stored()):
        assert difference(kept, before) == ""
        assert (len(text := difference(kept, now)) < 200, "was" in text) == (True, True)
        assert text.isprintable()
    assert max(map(len, (before.stored().etag, before.stored().last_modified, before.stored().version_id))) == 1024


def test_a_validator_is_read_whole() -> None:
    """What a server wrote is what later answers are compared with; a head has at most 64 KiB."""
    assert validator_of(HTTPHeaderDict({"ETag": LONG})).etag == LONG


def test_a_version_that_could_not_be_stored_is_not_asked_for() -> None:
    """Its beginning would name another version, or none."""
    assert Validator(version_id="v" * 1024).stored().version_to_name == "v" * 1024
    assert Validator(version_id="v" * 1025).stored().version_to_name == ""


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (Validator('"a"'), Validator('"a"')),
        (Validator('"a"', DATE), Validator('"a"', LATER)),
        (Validator('W/"a"', DATE), Validator('W/"a"', DATE)),
        (Validator("", DATE), Validator("", DATE)),
        (Validator(), Validator()),
    ],
)
def test_answers_of_one_object_do_not_differ(before: Validator, now: Validator) -> None:
    """Beside a strong tag the date may differ: machines behind one name disagree about it."""
    assert difference(before, now) == ""


@pytest.mark.parametrize(
    ("before", "now", "text"),
    [
        (Validator('"a"'), Validator('"b"'), 'ETag was "a", is "b"'),
        (Validator('"a"'), Validator('W/"a"'), 'ETag was "a", is W/"a"'),
        (Validator('"a"', DATE), Validator("", DATE), 'ETag was "a", is absent'),
        (Validator("", DATE), Validator("", LATER), f"Last-Modified was {DATE}, is {LATER}"),
        (Validator("", DATE), Validator(), f"Last-Modified was {DATE}, is absent"),
        (Validator('W/"a"', DATE), Validator('W/"a"', LATER), f"Last-Modified was {DATE}, is {LATER}"),
        (Validator('"a"', "", "1"), Validator('"a"', "", "2"), "version id was 1, is 2"),
        (Validator('"a"', "", "1"), Validator('"a"'), "version id was 1, is absent"),
    ],
)
def test_a_difference_is_told(before: Validator, now: Validator, text: str) -> None:
    """Absence is not agreement: what the first answer had, every later one must have."""
    assert difference(before, now) == text


@pytest.mark.parametrize(
    "validator",
    [Validator('"a"'), Validator("", DATE), Validator('W/"a"', DATE), Validator("", "", "1")],
)
def test_parts_of_an_unchanged_object_are_resumed(validator: Validator) -> None:
    """A strong validator, or at least a date, allows joining parts of two runs."""
    assert why_not_resumable(validator, validator) == ""


@pytest.mark.parametrize("validator", [Validator(), Validator('W/"a"')])
def test_without_any_proof_nothing_is_resumed(validator: Validator) -> None:
    """A replaced object would go unnoticed, so the parts of another run are thrown away."""
    assert "replaced object would go unnoticed" in why_not_resumable(validator, validator)


def test_parts_of_a_replaced_object_are_not_resumed() -> None:
    """The reason names the validator."""
    assert why_not_resumable(Validator('"a"'), Validator('"b"')) == 'the object was replaced: ETag was "a", is "b"'
