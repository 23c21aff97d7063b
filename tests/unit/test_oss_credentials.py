"""Where credentials are looked for, how long they are used, and what counts as some."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import alibabacloud_oss_v2 as oss  # type: ignore[import-untyped, unused-ignore]
import pytest

from fastdl.errors import AccessDenied, FastdlError, NetworkError
from fastdl.errors import UsageError as Usage
from fastdl.sources import oss_roles
from fastdl.sources.oss_credentials import Login, find_provider
from fastdl.sources.ossutil import Profile
from tests.servers.roles import ROLE, serving_roles

if TYPE_CHECKING:
    from pathlib import Path

KEYS = {"OSS_ACCESS_KEY_ID": "env", "OSS_ACCESS_KEY_SECRET": "secret"}
FULL = Profile("file", "secret")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def who(environment: dict[str, str], given: Any = None, profile: Profile | None = None) -> str:
    """Return the id of the key that is found."""
    provider = find_provider(given, profile or Profile(), environment)
    assert provider is not None
    return str(Login(provider).credentials().access_key_id)


def test_the_order_of_places() -> None:
    """What the caller gave, the environment, the profile, and only then a role."""
    role = {"ALIBABA_CLOUD_CREDENTIALS_URI": "http://127.0.0.1:1/"}
    assert who(KEYS | role, ("given", "secret"), FULL) == "given"
    assert who(KEYS | role, None, FULL) == "env"
    assert who({"OSS_ACCESS_KEY_ID": "half"} | role, None, FULL) == "file"
    with pytest.raises(AccessDenied, match="no OSS credentials"):
        who({})


def test_roles_are_asked_for_only_where_they_are_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """OpenID Connect, an address, the instance's role: each by its own variables, the first that is complete."""
    (tmp_path / "token").write_text("token")
    with serving_roles() as server:
        monkeypatch.setattr(oss_roles, "METADATA", server.url(""))
        monkeypatch.setattr(oss_roles, "STS", server.url(""))
        with pytest.raises(AccessDenied):
            who({"ALIBABA_CLOUD_ROLE_ARN": "arn", "ALIBABA_CLOUD_ECS_METADATA": ""})
        assert not server.log
        ecs = {"ALIBABA_CLOUD_ECS_METADATA": ROLE}
        assert (who(ecs), server.log[-1].target.rpartition("/")[2]) == ("STS.1", ROLE)
        address = {"ALIBABA_CLOUD_CREDENTIALS_URI": server.url("/credentials"), **ecs}
        assert (who(address), server.log[-1].target) == ("STS.2", "/credentials")
        oidc = {
            "ALIBABA_CLOUD_ROLE_ARN": "arn",
            "ALIBABA_CLOUD_OIDC_PROVIDER_ARN": "provider",
            "ALIBABA_CLOUD_OIDC_TOKEN_FILE": str(tmp_path / "token"),
            "ALIBABA_CLOUD_ROLE_SESSION_NAME": "me",
        }
        assert (who(address | oidc), server.form()["RoleSessionName"]) == ("STS.3", "me")
        assert who(oidc, None, Profile(mode="ecsramrole", role=ROLE)) == "STS.4"
        assert who({}, None, Profile(role=ROLE)) == "STS.5"
        assert who({}, None, Profile("a", "b", mode="ramrolearn", role_arn="arn")) == "STS.6"
        with pytest.raises(Usage, match="ALIBABA_CLOUD_ECS_METADATA_DISABLED"):
            who(ecs | {"ALIBABA_CLOUD_ECS_METADATA_DISABLED": "true"})


@pytest.mark.parametrize(
    ("variables", "host"),
    [
        ({}, "sts.aliyuncs.com"),
        ({"ALIBABA_CLOUD_STS_REGION": "eu-central-1"}, "sts.eu-central-1.aliyuncs.com"),
        (
            {"ALIBABA_CLOUD_STS_REGION": "eu-central-1", "ALIBABA_CLOUD_VPC_ENDPOINT_ENABLED": "true"},
            "sts-vpc.eu-central-1.aliyuncs.com",
        ),
    ],
)
def test_sts_may_be_a_regions_own(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], host: str) -> None:
    """Always over TLS, which a proxy sees as a CONNECT to the host."""
    monkeypatch.setattr(oss_roles, "_PAUSES", (0.0,))
    with serving_roles() as server:
        monkeypatch.setenv("https_proxy", server.url(""))
        with pytest.raises(FastdlError):
            who(variables, None, Profile("a", "b", mode="ramrolearn", role_arn="arn"))
        assert (server.log[0].method, server.log[0].target) == ("CONNECT", f"{host}:443")


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        (Profile("a", "b", mode="process"), "mode 'process' is not known here"),
        (Profile("a", mode="ak"), "needs keys"),
        (Profile("a", "b", mode="ststoken"), "needs keys"),
        (Profile("a", "b", mode="ramrolearn"), "needs ramRoleArn"),
    ],
)
def test_a_profile_that_cannot_be_meant(profile: Profile, words: str) -> None:
    """What is missing is said, instead of looking elsewhere."""
    with pytest.raises(Usage, match=words):
        who({}, None, profile)


def test_a_profile_may_want_no_signature() -> None:
    """Mode Anonymous."""
    assert find_provider(None, Profile(mode="anonymous"), {}) is None


@pytest.mark.parametrize(
    "given",
    [
        ("id", "secret"),
        ("id", "secret", None),
        ("id", "secret", "token"),
        ("id", "secret", "token", NOW),
        ("id", "secret", "token", NOW.replace(tzinfo=None)),
        ("id", "secret", "token", NOW.timestamp()),
        oss.credentials.Credentials("id", "secret", "token", NOW),
        oss.credentials.StaticCredentialsProvider("id", "secret"),
    ],
)
def test_credentials_have_many_forms(given: Any) -> None:
    """A tuple, the SDK's, its providers, and a callable that returns one; expiries without zone are UTC."""
    ways = [given] if hasattr(given, "get_credentials") else [given, lambda: given]
    for way in ways:
        provider = find_provider(way, Profile(), {})
        assert provider is not None
        found = provider()
        assert (found.access_key_id, found.access_key_secret) == ("id", "secret")
        assert found.expiration in (None, NOW)


@pytest.mark.parametrize("given", [(), ("id",), ("id", "secret", "t", "soon"), ("i", "s", "t", NOW, 1), "id:secret", 7])
def test_what_is_no_credentials(given: Any) -> None:
    """A usage error, that quotes nothing of it, wherever it comes from."""
    ways = [given, lambda: given] if not isinstance(given, str) else [given]
    for way in ways:
        with pytest.raises(Usage, match="credentials") as caught:
            who({}, way)
        assert "secret'" not in str(caught.value)


@pytest.mark.parametrize("key", [("", ""), ("id", ""), ("id\r\nX: y", "s"), ("id", "s", "t\n"), ("\xefd", "s")])
def test_credentials_that_cannot_be_sent(key: tuple[str, ...]) -> None:
    """No key smuggles a header, and an empty one signs nothing."""
    with pytest.raises(AccessDenied, match="no key"):
        who({}, key)


class Rotating:
    """A provider whose keys live for ``life`` seconds by a clock of its own; counts how often it is asked."""

    def __init__(self, life: float) -> None:
        self.now, self.life, self.asked = 1000.0, life, 0
        self.failure: FastdlError | None = None
        self.login = Login(self._give, lambda: self.now)

    def _give(self) -> Any:
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        until = datetime.fromtimestamp(self.now + self.life, UTC)
        return oss.credentials.Credentials(f"id{self.asked}", "secret", None, until)

    def at(self, now: float) -> str:
        """Return the key that is used ``now`` seconds after the start."""
        self.now = 1000.0 + now
        return str(self.login.credentials().access_key_id)


def test_credentials_are_kept_until_shortly_before_they_expire() -> None:
    """Five minutes before; of a short life a quarter."""
    hour = Rotating(3600)
    assert [hour.at(now) for now in (0, 1, 3299, 3301, 3302)] == ["id1", "id1", "id1", "id2", "id2"]
    second = Rotating(1)
    assert [second.at(now) for now in (0, 0.7, 0.8, 1.5, 1.6)] == ["id1", "id1", "id2", "id2", "id3"]


def test_refused_credentials_are_dropped() -> None:
    """The next request asks for others, the one after it does not."""
    hour = Rotating(3600)
    assert hour.at(0) == "id1"
    hour.login.drop()
    assert [hour.at(1), hour.at(2)] == ["id2", "id2"]


def test_credentials_that_come_expired_are_used_until_refused() -> None:
    """A clock is wrong, ours or theirs; asking for each request anew would not set it."""
    late = Rotating(-100)
    assert [late.at(0), late.at(5000)] == ["id1", "id1"]


def test_a_renewal_that_fails_ends_nothing_while_the_old_ones_hold(caplog: pytest.LogCaptureFixture) -> None:
    """It is tried again after a quarter of what is left, and the failure is final once they have expired."""
    hour = Rotating(3600)
    assert hour.at(0) == "id1"
    hour.failure = NetworkError("STS cannot be asked")
    assert [hour.at(3400), hour.at(3449), hour.asked] == ["id1", "id1", 2]
    assert "the old credentials hold on for 200 s" in caplog.text
    assert (hour.at(3451), hour.asked) == ("id1", 3)
    with pytest.raises(NetworkError, match="STS cannot be asked"):
        hour.at(3601)
    hour.failure = None
    assert hour.at(3602) == "id5"


@pytest.mark.parametrize("raised", [RuntimeError("s3cr3t"), KeyError("s3cr3t"), ValueError("s3cr3t")])
def test_a_provider_that_fails_is_not_quoted(raised: Exception) -> None:
    """What it raises may hold a secret: its kind is shown, and it is no error's cause or context."""

    def fail() -> Any:
        raise raised

    with pytest.raises(AccessDenied, match=type(raised).__name__) as caught:
        who({}, fail)
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_callable_is_asked_once_for_many_requests() -> None:
    """Without an expiry until it is refused."""
    asked: list[tuple[str, str]] = []

    def give() -> tuple[str, str]:
        asked.append(("id", "secret"))
        return asked[-1]

    provider = find_provider(give, Profile(), {})
    assert provider is not None
    login = Login(provider)
    assert len({login.credentials() for _ in range(5)}) == len(asked) == 1
