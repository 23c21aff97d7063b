"""Rows N10 to N14: ETags of any form, as conditions where stores know them, and never where they could harm."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

import fastdl
from tests.e2e import s3
from tests.e2e.command import names
from tests.e2e.test_oss import fetch as fetch_oss
from tests.fault.test_network import stopped_at
from tests.servers import oss_objects
from tests.servers.oss import serving_oss
from tests.servers.s3 import Stored, serving_s3
from tests.servers.scripted import first_of, from_request, ranged, script, serving, short_206

if TYPE_CHECKING:
    from pathlib import Path

PART = 16 * 1024
DATA = random.Random(14).randbytes(6 * PART + 5)
OPENING = {1: short_206(PART)}  # so that there is more than one request


@pytest.mark.parametrize("etag", ['"quoted"', "bare", '"with space"', "5B3C1A2E053D763E1B002CC607C5A0FE", '"a,b"'])
def test_n14_s3_gets_its_etag_back_as_it_wrote_it(tmp_path: Path, etag: str) -> None:
    """Stores compare the string: a quote that is added or lost is another object to them."""
    with serving_s3({"key": Stored(DATA, etag)}, OPENING) as server:
        s3.fetch(server, tmp_path)
        later = [seen.headers.get("if-match") for seen in server.log[1:]]
    assert set(later) == {etag}
    assert (tmp_path / "out").read_bytes() == DATA


@pytest.mark.parametrize("etag", ['"quoted"', "bare", "5B3C1A2E053D763E1B002CC607C5A0FE"])
def test_n14_oss_gets_its_etag_back_as_it_wrote_it(tmp_path: Path, etag: str) -> None:
    """The same of the other store."""
    with serving_oss({"key": oss_objects.Stored(DATA, etag)}, faults=OPENING) as server:
        fetch_oss(server, tmp_path)
        later = [seen.headers.get("if-match") for seen in server.log[1:]]
    assert set(later) == {etag}
    assert (tmp_path / "out").read_bytes() == DATA


def test_n11_a_weak_etag_is_no_condition(tmp_path: Path) -> None:
    """``If-Match`` compares strongly: with a weak one it could never hold. Source: RFC 9110, 13.1.1."""
    with serving_s3({"key": Stored(DATA, 'W/"weak"')}, OPENING) as server:
        s3.fetch(server, tmp_path)
        assert not any("if-match" in seen.headers for seen in server.log)
    assert (tmp_path / "out").read_bytes() == DATA


@pytest.mark.parametrize("etag", ['"v1"', 'W/"v1"', "bare", '"' + "x" * 5000 + '"', "\xe4\xf6", "", None])
def test_n14_no_condition_is_sent_to_plain_servers(tmp_path: Path, etag: str | None) -> None:
    """Each answer is judged here: an added field could break a signature, an odd tag a server."""
    with serving(script(OPENING, otherwise=ranged(DATA, etag=etag))) as server:
        fastdl.download(server.url(), tmp_path / "out", part_size=PART, connections=2, workers=1)
        for seen in server.log:
            assert not {name for name in seen.headers if name.startswith("if-")}
        assert len(server.log) > 1
    assert names(tmp_path) == {"out"}
    assert (tmp_path / "out").read_bytes() == DATA


LONG = '"' + "x" * 5000
OTHER = random.Random(15).randbytes(len(DATA))


def test_n14_a_long_etag_that_differs_at_its_end_is_another_object(tmp_path: Path) -> None:
    """The end of a tag counts as its beginning does: never are bytes of both joined."""
    one, two = ranged(DATA, etag=LONG + '1"'), ranged(OTHER, etag=LONG + '2"')
    with (
        serving(from_request(2, two, script(OPENING, otherwise=one))) as server,
        pytest.raises(fastdl.ObjectChanged, match="ETag was"),
    ):
        fastdl.download(server.url(), tmp_path / "out", part_size=PART, connections=1, workers=1)
    assert names(tmp_path) == {"out.part", "out.cp"}


@pytest.mark.parametrize(("end", "data"), [('1"', DATA), ('2"', OTHER)])
def test_n14_a_long_etag_resumes_and_its_successor_does_not(tmp_path: Path, end: str, data: bytes) -> None:
    """A checkpoint holds a digest of what it has no room for, and that tells both."""
    now = [stopped_at(3 * PART, ranged(DATA, etag=LONG + '1"'))]
    with serving(first_of(now)) as server:
        with pytest.raises(fastdl.AccessDenied):
            fastdl.download(server.url(), tmp_path / "out", part_size=PART, connections=1, workers=1)
        now[0] = ranged(data, etag=LONG + end)
        result = fastdl.download(server.url(), tmp_path / "out", part_size=PART)
    assert (tmp_path / "out").read_bytes() == data
    assert result.parts_reused == (3 if data is DATA else 0)
    assert bool(result.started_over) is (data is OTHER)
    assert result.etag == LONG + end
