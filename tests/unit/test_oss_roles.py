"""Temporary credentials of roles, asked of local servers that answer as the real ones are documented to."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from alibabacloud_oss_v2.credentials import Credentials  # type: ignore[import-untyped, unused-ignore]

from fastdl.errors import AccessDenied, FastdlError, NetworkError
from fastdl.errors import UsageError as Usage
from fastdl.messages import Line
from fastdl.sources import oss_roles
from fastdl.sources.oss_roles import assumed_role, ecs_role, from_address, oidc_role, signature
from tests.servers.roles import ROLE, RoleServer, serving_roles
from tests.servers.scripted import hang_up, stall_before_head, status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.servers.scripted import Handler

ARN, PROVIDER = "acs:ram::1:role/reader", "acs:ram::1:oidc-provider/cluster"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[RoleServer]:
    """Serve roles where the metadata service and STS are looked for."""
    with serving_roles() as server:
        monkeypatch.setattr(oss_roles, "METADATA", server.url(""))
        monkeypatch.setattr(oss_roles, "STS", server.url(""))
        yield server


def check(found: Credentials, server: RoleServer) -> None:
    """Find the last key that was issued."""
    key = server.issued[-1]
    assert (found.access_key_id, found.access_key_secret, found.security_token) == (key.id, key.secret, key.token)
    assert key.until is not None
    assert found.expiration == key.until.replace(microsecond=0)


def test_a_role_of_the_instance(server: RoleServer) -> None:
    """With a token of the service's, and by the name that was configured."""
    check(ecs_role(ROLE, only_v2=True), server)
    assert [seen.method for seen in server.log] == ["PUT", "GET"]


def test_the_only_role_of_the_instance(server: RoleServer) -> None:
    """The service knows its name."""
    check(ecs_role("", only_v2=False), server)
    assert len(server.log) == 3


def test_a_service_of_the_first_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """It knows no tokens: asked without one, unless that was forbidden."""
    with serving_roles({1: status(404), 3: status(404)}) as server:
        server.token_wanted = False
        monkeypatch.setattr(oss_roles, "METADATA", server.url(""))
        check(ecs_role(ROLE, only_v2=False), server)
        with pytest.raises(AccessDenied, match="the metadata service gave no credentials: status 404"):
            ecs_role(ROLE, only_v2=True)


def test_a_role_that_is_not_there(server: RoleServer) -> None:
    """Its name is encoded, not pasted into the path."""
    with pytest.raises(AccessDenied, match="status 404"):
        ecs_role("a/../b c", only_v2=False)
    assert server.log[-1].target.endswith("/a%2F..%2Fb%20c")


def test_metadata_are_asked_for_without_a_proxy(server: RoleServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy of the environment's gets to see the keys of this machine."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    check(ecs_role(ROLE, only_v2=False), server)


def test_a_token_of_openid_connect(server: RoleServer, tmp_path: Path) -> None:
    """The file is read anew each time, and its token goes in the body."""
    file = tmp_path / "token"
    for token in ("one", "two"):
        file.write_text(f"{token}\n")
        check(oidc_role(ARN, PROVIDER, str(file), ""), server)
        form = server.form()
        assert (form["OIDCToken"], form["RoleArn"], form["OIDCProviderArn"]) == (token, ARN, PROVIDER)
        assert (form["Action"], form["RoleSessionName"], "Signature" in form) == ("AssumeRoleWithOIDC", "fastdl", False)
    assert all(seen.target == "/" for seen in server.log)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_token_file_that_is_none(tmp_path: Path, content: bytes | None) -> None:
    """One line, before anything is asked."""
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(Usage, match=r"the OIDC token file .* cannot be read"):
        oidc_role(ARN, PROVIDER, str(file), "")


def test_a_role_by_a_key(server: RoleServer) -> None:
    """The call is signed with the key's secret, which is not in it."""
    key = Credentials("AKID", "s3cr3t", "token")
    check(assumed_role(key, ARN, "me"), server)
    form = server.form()
    assert (form["Action"], form["RoleSessionName"], form["SecurityToken"]) == ("AssumeRole", "me", "token")
    sent = form.pop("Signature")
    assert sent == signature("POST", form, "s3cr3t")
    assert b"s3cr3t" not in server.log[-1].body


def test_the_published_vector_of_the_signature() -> None:
    """Source: "Signature method V2 for RPC APIs", the example with testid and testsecret."""
    form = {
        "TimeStamp": "2016-02-23T12:46:24Z",
        "Format": "XML",
        "AccessKeyId": "testid",
        "Action": "DescribeRegions",
        "SignatureMethod": "HMAC-SHA1",
        "SignatureNonce": "3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf",
        "Version": "2014-05-26",
        "SignatureVersion": "1.0",
    }
    form["Timestamp"] = form.pop("TimeStamp")
    assert signature("GET", form, "testsecret") == "OLeaidS1JvxuMvnyHOwuJ+uX5qY="


def test_an_address_of_the_users(server: RoleServer) -> None:
    """What ALIBABA_CLOUD_CREDENTIALS_URI names."""
    check(from_address(server.url("/credentials")), server)
    with pytest.raises(Usage):
        from_address("file:///etc/passwd")


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (status(403, {}, b'{"Code":"AuthenticationFail","Message":"CANARY","RequestId":"R1"}'), AccessDenied, "R1"),
        (status(200, {}, b"CANARY"), AccessDenied, "not JSON of an object"),
        (status(200, {}, b"[1]"), AccessDenied, "not JSON of an object"),
        (status(200, {}, b"[" * 50_000), AccessDenied, "not JSON of an object"),
        (status(200, {}, b'{"AccessKeyId":"CANARY"}'), AccessDenied, "without credentials"),
        (status(200, {}, b'{"Code":"Failed","AccessKeyId":1,"AccessKeySecret":"CANARY"}'), AccessDenied, "Failed"),
        (status(302, {"Location": "http://127.0.0.1:1/CANARY"}), AccessDenied, "status 302"),
        (status(500), NetworkError, "status 500"),
        (hang_up, NetworkError, "cannot be asked"),
    ],
)
def test_answers_that_are_no_credentials(
    monkeypatch: pytest.MonkeyPatch, fault: Handler, kind: type[FastdlError], words: str
) -> None:
    """One line with the reason and none of the answer's words, which may be secrets; failures are asked again."""
    monkeypatch.setattr(oss_roles, "_PAUSES", (0.0, 0.0, 0.0))
    with serving_roles(dict.fromkeys(range(1, 9), fault)) as server:
        with pytest.raises(kind, match=words) as caught:
            from_address(server.url("/credentials?token=CANARY"))
        assert ("CANARY" not in str(caught.value), str(caught.value).isprintable()) == (True, True)
        assert (len(server.log) == 1) == (kind is AccessDenied)


def test_a_failure_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """One bad moment of STS ends no download."""
    monkeypatch.setattr(oss_roles, "_PAUSES", (0.0, 0.0, 0.0))
    with serving_roles({1: status(503)}) as server:
        check(from_address(server.url("/credentials")), server)


def test_who_is_silent_for_the_timeout_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request of a download waits for it: several timeouts in a row would stall them all."""
    monkeypatch.setattr(oss_roles, "_PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(oss_roles, "_LOCAL", Line(read_timeout=0.2))
    with serving_roles(dict.fromkeys(range(1, 9), stall_before_head())) as server:
        with pytest.raises(NetworkError, match="cannot be asked"):
            from_address(server.url("/credentials"))
        assert len(server.log) == 1


@pytest.mark.parametrize(
    ("until", "expected"),
    [("2030-01-02T03:04:05Z", True), ("2030-01-02T03:04:05", True), ("soon", False), ("", False)],
)
def test_an_expiry_is_read_if_it_is_one(until: str, expected: bool) -> None:
    """Without one the credentials are used until they are refused."""
    answer = f'{{"AccessKeyId":"a","AccessKeySecret":"b","Expiration":"{until}"}}'.encode()
    with serving_roles({1: status(200, {}, answer)}) as server:
        found = from_address(server.url("/credentials"))
    assert found.expiration == (datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC) if expected else None)


@pytest.mark.parametrize("name", [b"", b"two words", b"\xff", b"a\r\nb"])
def test_a_name_that_is_none(monkeypatch: pytest.MonkeyPatch, name: bytes) -> None:
    """What the service calls its token or role must not smuggle anything into a request."""
    ask: Callable[[str], object] = lambda role: ecs_role(role, only_v2=False)  # noqa: E731
    with serving_roles({1: status(200, {}, b"token"), 2: status(200, {}, name)}) as server:
        monkeypatch.setattr(oss_roles, "METADATA", server.url(""))
        with pytest.raises(AccessDenied, match="no name and no token"):
            ask("")
