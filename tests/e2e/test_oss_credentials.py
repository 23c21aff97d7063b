"""Credentials of every kind through a whole download: profiles, roles, callables, and keys that die on the way."""

from __future__ import annotations

import random
import re
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

import fastdl
from fastdl.sources import oss_roles
from tests.e2e.command import left_to_workers, names, run
from tests.e2e.test_oss import DATA, PART, STS, fetch, get, login, presigned
from tests.servers.oss import KEY, AccessKey, OssServer, serving_oss
from tests.servers.roles import ROLE, serving_roles
from tests.servers.scripted import Exchange, short_206

if TYPE_CHECKING:
    from pathlib import Path

LIFE = 1.0  # seconds that a key lives which dies on the way
PROFILES = f"""
[default]
accessKeyId = nobody
accessKeySecret = nothing
region = cn-hangzhou
[profile work]
access-key-id = {STS.id}
access_key_secret = {STS.secret}
STSTOKEN = {STS.token}
mode = StsToken
"""


def profiles(folder: Path, text: str) -> dict[str, str]:
    """Write a file of profiles that everybody may read, and make the variable that names it."""
    path = folder / "profiles"
    path.write_text(text)
    path.chmod(0o644)
    return {"OSSUTIL_CONFIG_FILE": str(path)}


def keys_seen(server: OssServer) -> set[str]:
    """Return the ids of the keys that requests were signed with."""
    found = {re.search(r"Credential=([^/]+)/", seen.headers["authorization"]) for seen in server.log}
    return {match[1] for match in found if match is not None}


def test_a_profile_by_its_name(tmp_path: Path) -> None:
    """Key, token and region come of the file, whatever its permissions; what it says of others is not used."""
    with serving_oss({"key": DATA}, keys=[STS]) as server:
        folder = tmp_path / "to"
        folder.mkdir()
        text = PROFILES.replace("mode", f"endpoint = {server.url('')}\nregion = oss-cn-hangzhou\nmode")
        outcome = run(
            *("oss://bucket/key", "-o", "out", "--profile", "Work"), cwd=folder, variables=profiles(tmp_path, text)
        )
        assert outcome.code == 0, outcome.message
    assert names(folder) == {"out"}


def test_the_profile_of_the_home_directory(tmp_path: Path) -> None:
    """``[default]`` is used where the environment says nothing; the environment beats it."""
    (tmp_path / ".ossutilconfig").write_text(PROFILES)
    with serving_oss({"key": DATA}, keys=[KEY, AccessKey("nobody", "nothing")]) as server:
        command = ("oss://bucket/key", "-o", "out", "--endpoint-url", server.url(""))
        assert run(*command, cwd=tmp_path).code == 0
        assert keys_seen(server) == {"nobody"}
        assert run(*command, cwd=tmp_path, variables=login()).code == 0
        assert keys_seen(server) == {"nobody", KEY.id}


@pytest.mark.parametrize(
    ("text", "flags", "words"),
    [
        (PROFILES, ("--profile", "play"), "no profile 'play'"),
        ("[default]\nmode = Process\nregion = r\n", (), "mode 'process' is not known"),
        ("[default]\nmode = StsToken\nregion = r\naccessKeyId = CANARY\naccessKeySecret = CANARY\n", (), "needs keys"),
        ("\x00\x01[default\nregion = \x7f\n", (), "which region"),
        ("[default]\nregion = \x7f\n", (), "is no region"),
    ],
)
def test_a_profile_that_does_not_do(tmp_path: Path, text: str, flags: tuple[str, ...], words: str) -> None:
    """One line and exit code 2, nothing of the file's secrets in it."""
    outcome = run("oss://bucket/key", "-o", "out", *flags, cwd=tmp_path, variables=profiles(tmp_path, text))
    assert (outcome.code, words in outcome.message) == (2, True), outcome.message
    assert "CANARY" not in outcome.stderr


def test_the_role_of_the_instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile's mode EcsRamRole: the metadata service is asked once for all workers, by the caller."""
    with serving_roles() as roles, serving_oss({"key": DATA}, faults=left_to_workers(PART, 6)) as server:
        monkeypatch.setattr(oss_roles, "METADATA", roles.url(""))
        text = f"[profile ecs]\nmode = Ali-EcsRamRole\necsRoleName = {ROLE}\n"
        monkeypatch.setenv("OSSUTIL_CONFIG_FILE", profiles(tmp_path, text)["OSSUTIL_CONFIG_FILE"])
        server.keys = roles.issued
        fetch(server, tmp_path, credentials=None, profile="ecs", connections=6, workers=2)
        assert len(roles.issued) == 1
    assert (tmp_path / "out").read_bytes() == DATA


def test_an_address_that_gives_credentials(tmp_path: Path) -> None:
    """ALIBABA_CLOUD_CREDENTIALS_URI, through the command."""
    with serving_roles() as roles, serving_oss({"key": DATA}) as server:
        server.keys = roles.issued
        variables = {"ALIBABA_CLOUD_CREDENTIALS_URI": roles.url("/credentials")}
        outcome = get(server, tmp_path, variables=variables)
        assert outcome.code == 0, outcome.message
        assert len(roles.issued) == 1


def test_the_metadata_service_is_never_asked_uninvited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without credentials and without a role that is configured the answer is there at once."""
    for name in list(login(STS)):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with serving_roles() as roles, serving_oss({"key": DATA}) as server:
        monkeypatch.setattr(oss_roles, "METADATA", roles.url(""))
        with pytest.raises(fastdl.AccessDenied, match="no OSS credentials"):
            fetch(server, tmp_path, credentials=None)
        assert not roles.log


class Keys:
    """A callable that gives a new key each time, known to ``server`` from then on for as long as it lives."""

    def __init__(self, server: OssServer, life: float | None) -> None:
        self.given: list[AccessKey] = []
        self.life = life
        server.keys = self.given

    def __call__(self) -> tuple[str, str, str, datetime | None]:
        """Give the next one."""
        until = None if self.life is None else datetime.now(UTC) + timedelta(seconds=self.life)
        number = len(self.given)
        key = AccessKey(f"STS.{number}", f"secret-{number}", f"token-{number}", until=until)
        self.given.append(key)
        return key.id, key.secret, key.token or "", until


def test_keys_that_live_for_a_second(tmp_path: Path) -> None:
    """While a download goes on they are replaced before they die: once each, for all workers, and no part fails."""
    part, data = 256 * 1024, random.Random(5).randbytes(24 * 2**20)
    with serving_oss({"key": data}, faults={1: short_206(part)}) as server:
        keys = Keys(server, LIFE)
        began = time.monotonic()
        settings: dict[str, Any] = {
            "connections": 6,
            "workers": 2,
            "part_size": part,
            "limit_rate": len(data) // 3,
            "retry": 0,
        }
        result = fetch(server, tmp_path, credentials=keys, **settings)
        seconds = time.monotonic() - began
        assert 3 <= len(keys.given) <= 1 + seconds / (0.75 * LIFE) + result.retries
        assert keys_seen(server) == {key.id for key in keys.given}
    assert (result.integrity, (tmp_path / "out").read_bytes() == data) == ("crc64", True)


def test_requests_that_outlive_their_key(tmp_path: Path) -> None:
    """A broken transfer is continued with the signature it has; refused it is signed anew, and no attempt is spent."""

    def cut(exchange: Exchange) -> None:
        first, last = exchange.request.range or (0, None)
        (short_206(2 * PART) if last is None or last - first > 2 * PART else exchange.otherwise)(exchange)

    with serving_oss({"key": DATA}, faults=dict.fromkeys(range(1, 400), cut)) as server:
        keys = Keys(server, LIFE / 4)
        result = fetch(server, tmp_path, credentials=keys, connections=3, limit_rate=len(DATA), retry=0)
        assert (len(keys.given) >= 3, result.retries >= 1) == (True, True)
    assert (result.integrity, (tmp_path / "out").read_bytes() == DATA) == ("crc64", True)


def test_keys_that_are_revoked_again_and_again(tmp_path: Path) -> None:
    """Nobody said when they die: each death costs one new key, however many connections were refused with the old."""
    revoked = (6, 12, 18, 24)

    def revoke(exchange: Exchange) -> None:
        keys.given[:] = [AccessKey(key.id, key.secret, key.token, expired=True) for key in keys.given]
        exchange.otherwise(exchange)

    faults = left_to_workers(PART, 3, dict.fromkeys(revoked, revoke) | {2: short_206(PART), 5: short_206(PART)})
    with serving_oss({"key": DATA}, faults=faults) as server:
        keys = Keys(server, None)
        result = fetch(server, tmp_path, credentials=keys, connections=3, workers=2, retry=0)
        deaths = sum(number <= len(server.log) for number in revoked)
        assert (len(keys.given), deaths >= 1) == (1 + deaths, True)
    assert (result.integrity, (tmp_path / "out").read_bytes() == DATA) == ("crc64", True)


def test_a_presigned_url_that_dies_half_way(tmp_path: Path) -> None:
    """Exit code 4, and the same command with a fresh URL goes on without fetching anything again."""

    def die(exchange: Exchange) -> None:
        server.clock_offset = timedelta(hours=2)
        exchange.otherwise(exchange)

    with serving_oss({"key": DATA}, faults={1: short_206(10 * PART), 2: die}) as server:
        old = presigned(server, "key", expires=timedelta(hours=1))
        outcome = run(old, "-o", "out", "-p", str(PART), "-x", "1", "-w", "1", cwd=tmp_path)
        assert (outcome.code, "expired" in outcome.message) == (4, True), outcome.message
        assert names(tmp_path) == {"out.part", "out.cp"}
        server.clock_offset = timedelta(0)
        fresh = presigned(server, "key", expires=timedelta(hours=2))
        outcome = run(fresh, "-o", "out", "-p", str(PART), cwd=tmp_path)
        assert (outcome.code, outcome.last["parts_reused"]) == (0, 10), outcome.stderr
        assert outcome.last["bytes_fetched"] == len(DATA) - 10 * PART
    assert (tmp_path / "out").read_bytes() == DATA
