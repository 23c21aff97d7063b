"""Objects of OSS with a history or a state: versions, delete markers, symlinks, archives; and who pays, how fast."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

import fastdl
from tests.e2e.command import left_to_workers, names
from tests.e2e.test_oss import DATA, OTHER, PART, fetch, get, interrupted
from tests.servers.oss import Crc, Stored, refusing, serving_oss
from tests.servers.scripted import Exchange, short_206

if TYPE_CHECKING:
    from pathlib import Path

COLD = Stored(DATA, archived=True)
WRONG_KEY = refusing(403, "InvalidAccessKeyId")


@pytest.mark.parametrize("version", ["CAEQ+/=", "null"])
def test_the_first_answers_version_is_read_to_the_end(tmp_path: Path, version: str) -> None:
    """An object replaced meanwhile does not matter: the parts, and those of a later run, are of the version begun.

    ``null`` is a version too, what a bucket writes while its versioning is suspended.
    """
    begun, newer = Stored(DATA, version_id=version, etag='"one"'), Stored(OTHER, version_id="2", etag='"two"')

    def replace(exchange: Exchange) -> None:
        server.put("key", newer)
        short_206(10 * PART)(exchange)

    with serving_oss(
        {"key": begun}, faults={1: short_206(10 * PART), 2: replace, 3: WRONG_KEY, 4: WRONG_KEY}
    ) as server:
        with pytest.raises(fastdl.AccessDenied):
            fetch(server, tmp_path)
        outcome = get(server, tmp_path)
        assert outcome.code == 0, outcome.message
        assert (outcome.last["parts_reused"], outcome.last["started_over"]) == (20, "")
        first, *later = server.log
        assert "versionId" not in first.target
        assert all("versionId=" in seen.target for seen in later)
        assert (tmp_path / "out").read_bytes() == DATA
        fetch(server, tmp_path)
    assert (tmp_path / "out").read_bytes() == OTHER


def test_a_version_that_is_gone_starts_over(tmp_path: Path) -> None:
    """What is left of it is thrown away, the latest one is fetched, and both are said."""
    old = Stored(DATA, version_id="1", etag='"one"')
    with serving_oss({"key": old}, faults=interrupted(10 * PART, refusal=WRONG_KEY)) as server:
        with pytest.raises(fastdl.AccessDenied):
            fetch(server, tmp_path)
        server.put("key", Stored(OTHER, version_id="2", etag='"two"'))
        server.forget("key", "1")
        outcome = get(server, tmp_path)
        assert outcome.code == 0, outcome.message
    assert "NoSuchVersion" in outcome.last["started_over"]
    assert (tmp_path / "out").read_bytes() == OTHER


def test_a_policy_that_knows_no_versions_is_enough(tmp_path: Path) -> None:
    """With oss:GetObject alone a version must not be named: it is asked for without, also when resuming."""
    stored = Stored(DATA, version_id="1")
    with serving_oss(
        {"key": stored}, faults={1: short_206(PART), 3: short_206(PART), 4: WRONG_KEY, 5: WRONG_KEY}
    ) as server:
        server.versions_may_be_named = False
        with pytest.raises(fastdl.AccessDenied, match="InvalidAccessKeyId"):
            fetch(server, tmp_path)
        assert ["versionId=1" in seen.target for seen in server.log] == [False, True, False, False, False]
        outcome = get(server, tmp_path, "-x", "3", "-w", "2")
        assert (outcome.code, outcome.last["parts_reused"]) == (0, 2), outcome.message
        assert ["versionId=1" in seen.target for seen in server.log[5:7]] == [True, False]
    assert (tmp_path / "out").read_bytes() == DATA


def test_deleted_is_not_missing(tmp_path: Path) -> None:
    """A delete marker on top is told, with what helps; so is one that was asked for by its id."""
    with serving_oss({"key": Stored(DATA, version_id="1")}) as server:
        server.delete("key", marker="2")
        outcome = get(server, tmp_path)
        assert (outcome.code, "delete marker" in outcome.message, "--version-id" in outcome.message) == (3, True, True)
        outcome = get(server, tmp_path, "--version-id", "2")
        assert (outcome.code, "this version is a delete marker" in outcome.message) == (3, True)
        assert get(server, tmp_path, "--version-id", "1").code == 0


def test_a_symlinks_checksum_is_no_promise(tmp_path: Path) -> None:
    """It may be the link's own: what is fetched is judged by its length."""
    with serving_oss({"key": Stored(DATA, symlink=True, crc=Crc.WRONG)}) as server:
        outcome = get(server, tmp_path)
    assert (outcome.code, outcome.last["integrity"]) == (0, "length")
    assert (tmp_path / "out").read_bytes() == DATA


@pytest.mark.parametrize(("status", "code"), [(404, "SymlinkTargetNotExist"), (400, "InvalidTargetType")])
def test_a_symlink_to_nowhere(tmp_path: Path, status: int, code: str) -> None:
    """Exit code 3: the link is there, what it names is not."""
    with serving_oss({"key": DATA}, faults={1: refusing(status, code)}) as server:
        outcome = get(server, tmp_path)
    assert (outcome.code, code in outcome.message) == (3, True), outcome.message


def test_the_requester_pays_by_a_flag(tmp_path: Path) -> None:
    """The header is on every request, also on those of workers."""
    stored = Stored(DATA, requester_pays=True)
    with serving_oss({"key": stored}, faults=left_to_workers(PART, 3)) as server:
        assert get(server, tmp_path, "--request-payer", "requester").code == 0
        assert {seen.headers["x-oss-request-payer"] for seen in server.log} == {"requester"}
        with pytest.raises(fastdl.UsageError, match="requester"):
            fetch(server, tmp_path, request_payer="owner")


@pytest.mark.parametrize(
    ("flags", "most", "share"),
    [
        (("--traffic-limit", "819200"), 1, 819_200),
        (("--traffic-limit", "3000000"), 3, 1_000_000),
        (("--traffic-limit", "100000000"), 8, 12_500_000),
        (("--traffic-limit", "100000000", "-x", "4", "-w", "2"), 4, 25_000_000),
        (("--traffic-limit", "100000000000", "-x", "2", "-w", "1"), 2, 838_860_800),
    ],
)
def test_a_limited_traffic_is_divided(tmp_path: Path, flags: tuple[str, ...], most: int, share: int) -> None:
    """Each request is held to its share, so that all connections together never get more than was said."""
    faults = left_to_workers(PART, most) if most > 1 else {}
    with serving_oss({"key": DATA}, faults=faults) as server:
        outcome = get(server, tmp_path, *flags)
        assert outcome.code == 0, outcome.message
        assert {seen.headers["x-oss-traffic-limit"] for seen in server.log} == {str(share)}
        assert outcome.last["connections"] <= most


def test_a_traffic_limit_too_low_or_elsewhere(tmp_path: Path) -> None:
    """OSS knows nothing slower, and other servers nothing of it."""
    with serving_oss({"key": DATA}) as server:
        outcome = get(server, tmp_path, "--traffic-limit", "819199")
        assert (outcome.code, "819200" in outcome.message) == (2, True)
        with pytest.raises(fastdl.UsageError, match="--limit-rate"):
            fastdl.download(server.url("/bucket/key"), tmp_path / "out", traffic_limit=10**6)
        assert not server.log


def test_an_archived_object_is_restored_and_waited_for(tmp_path: Path) -> None:
    """POST, HEAD until it is over, then the download; all signed, all paid by the requester if that was said."""
    stored = Stored(DATA, archived=True, requester_pays=True, version_id="1")
    with serving_oss({"key": stored}) as server:
        outcome = get(server, tmp_path, "--restore", "--wait", "--restore-days", "3", "--request-payer", "requester")
        assert outcome.code == 0, outcome.message
        assert [seen.method for seen in server.log[:5]] == ["GET", "POST", "HEAD", "HEAD", "GET"]
        assert server.log[1].target.endswith("?restore")
        assert server.restorations.days == [3]
        assert {seen.headers["x-oss-request-payer"] for seen in server.log} == {"requester"}
    assert (tmp_path / "out").read_bytes() == DATA
    assert "waiting until it is restored" in outcome.stderr


def test_a_restoration_is_asked_for_and_not_waited_for(tmp_path: Path) -> None:
    """Exit code 4 with what to do next; again while it goes on; and done once it is over."""
    with serving_oss({"key": COLD}) as server:
        for _ in range(2):
            outcome = get(server, tmp_path, "--restore")
            assert (outcome.code, "its restoration was asked for" in outcome.message) == (4, True)
            assert outcome.last["type"] == "Archived"
        assert server.restorations.days == [1]
        assert get(server, tmp_path, "--restore", "--wait").code == 0
        assert get(server, tmp_path).code == 0
    assert names(tmp_path) == {"out"}


def test_a_restoration_has_no_more_time_than_everything(tmp_path: Path) -> None:
    """--max-time holds while waiting: exit code 5, and nothing is left behind."""
    with serving_oss({"key": COLD}) as server:
        server.restorations.looks = 10**6
        outcome = get(server, tmp_path, "--restore", "--wait", "--max-time", "0.5")
    assert (outcome.code, "not done within 0.5 seconds" in outcome.message) == (5, True), outcome.message
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (("--wait",), 2, "give --restore too"),
        (("--restore", "--restore-days", "0"), 2, "must be 1 to 365"),
        (("--restore", "--restore-days", "366"), 2, "must be 1 to 365"),
        (("--restore", "--restore-days", "8"), 6, "MalformedXML"),
    ],
)
def test_a_restoration_that_cannot_be(tmp_path: Path, flags: tuple[str, ...], code: int, words: str) -> None:
    """Our bounds are told before anything is asked, the store's with its words."""
    with serving_oss({"key": COLD}) as server:
        outcome = get(server, tmp_path, *flags)
        assert (outcome.code, words in outcome.message) == (code, True), outcome.message
        assert bool(server.log) == (code != 2)


def test_a_restoration_survives_a_busy_store(tmp_path: Path) -> None:
    """Waiting for hours, one failed look ends nothing."""
    faults = {2: refusing(503, "ServiceUnavailable"), 4: refusing(500, "InternalError")}
    with serving_oss({"key": COLD}, faults=faults) as server:
        assert fetch(server, tmp_path, restore=True, wait=True).integrity == "crc64"


def test_archived_half_way_is_not_asked_again(tmp_path: Path) -> None:
    """No other credentials make it readable."""
    faults = {1: short_206(10 * PART), 2: refusing(403, "InvalidObjectState")}
    with serving_oss({"key": DATA}, faults=faults) as server:
        with pytest.raises(fastdl.Archived):
            fetch(server, tmp_path)
        assert len(server.log) == 2


@pytest.mark.parametrize("hours", [-20, 1])
@pytest.mark.parametrize("number", [1, 3])
def test_a_wrong_clock_is_set_by_the_servers(tmp_path: Path, hours: int, number: int) -> None:
    """Wrong from the start or since the middle: what was refused is asked again, and no retry is spent on it."""

    def jump(exchange: Exchange) -> None:
        server.clock_offset = timedelta(hours=hours)
        exchange.otherwise(exchange)

    with serving_oss({"key": DATA}, faults=left_to_workers(PART, 3, {2: short_206(PART), number: jump})) as server:
        if number == 1:
            server.clock_offset = timedelta(hours=hours)
        outcome = get(server, tmp_path, "-x", "3", "-w", "2", "--retry", "0")
        assert outcome.code == 0, outcome.message
    assert "theirs is used" in outcome.stderr
    assert (tmp_path / "out").read_bytes() == DATA


def test_a_clock_that_was_set_is_not_set_again(tmp_path: Path) -> None:
    """A second refusal is final and says what is wrong."""

    def jump(exchange: Exchange) -> None:
        server.clock_offset -= timedelta(hours=1)
        exchange.otherwise(exchange)

    with serving_oss({"key": DATA}, faults={1: jump, 2: jump}) as server:
        outcome = get(server, tmp_path)
        assert len(server.log) == 2
    assert (outcome.code, "clock is wrong" in outcome.message) == (4, True)


def test_a_signature_that_became_old_is_made_anew(tmp_path: Path) -> None:
    """A request that is continued after a quarter of an hour is refused though both clocks are right."""
    old = refusing(403, "RequestTimeTooSkewed")
    with serving_oss({"key": DATA}, faults={1: short_206(PART), 2: old}) as server:
        outcome = get(server, tmp_path, "-x", "1", "-w", "1", "--retry", "0")
    assert (outcome.code, outcome.stderr) == (0, "")
