"""What OSS is asked, and what its refusals teach."""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import Any

import pytest

from fastdl.errors import Refused, UsageError
from fastdl.messages import Request
from fastdl.sources import resolve
from fastdl.sources.oss import OssSource
from fastdl.validator import ObjectInfo, Validator

INFO = ObjectInfo(70, Validator('"a"', "", "v/1"))


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OSS_ENDPOINT", "OSS_REGION", "OSS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OSS_ACCESS_KEY_ID", "test-id")
    monkeypatch.setenv("OSS_ACCESS_KEY_SECRET", "test-secret")


def source(**settings: Any) -> OssSource:
    """Make a source; nothing is sent."""
    found = resolve("oss://bucket/key", **{"region": "cn-hangzhou", **settings})
    assert isinstance(found, OssSource)
    return found


def refused(code: str, status: int = 403, date: str = "") -> Refused:
    """Make a refusal."""
    return Refused("x", status, {"date": date}, f"<Error><Code>{code}</Code></Error>".encode())


def test_only_who_signs_has_credentials_to_renew() -> None:
    """Without a signature no other credentials could help."""
    signed, unsigned = source(), source(sign=False)
    assert (signed.renew(), unsigned.renew()) == (True, False)
    assert "Authorization" in dict(signed.request(None).headers)
    assert "Authorization" not in dict(unsigned.request(None).headers)


@pytest.mark.parametrize("payer", ["", "owner", "Requester"])
def test_nobody_but_the_requester_pays(payer: str) -> None:
    """A mistyped name is not sent."""
    with pytest.raises(UsageError, match="the request payer can only be 'requester'"):
        source(request_payer=payer)
    assert dict(source(request_payer="requester").request(None).headers)["x-oss-request-payer"] == "requester"


def test_what_every_request_carries() -> None:
    """Strict ranges always; the limit only if it is given; the condition and the version once they are known."""
    plain = dict(source().request(None).headers)
    assert plain["x-oss-range-behavior"] == "standard"
    assert not {"x-oss-traffic-limit", "If-Match"} & set(plain)
    request = source(traffic_limit=819_200).request(INFO)
    assert dict(request.headers)["x-oss-traffic-limit"] == "819200"
    assert dict(request.headers)["If-Match"] == '"a"'
    assert request.url.endswith("/key?versionId=v%2F1")
    assert not request.follow


def test_the_servers_clock_is_taken_once() -> None:
    """A small difference means that the signature had become old; and a clock that jumps is not followed."""
    asked = source()
    assert not asked.adapt(refused("RequestTimeTooSkewed", date="junk"))
    assert not asked.adapt(refused("RequestTimeTooSkewed", date=formatdate(time.time() + 30, usegmt=True)))
    assert asked.adapt(refused("RequestTimeTooSkewed", date=formatdate(time.time() + 3600, usegmt=True)))
    assert not asked.adapt(refused("RequestTimeTooSkewed", date=formatdate(time.time() - 3600, usegmt=True)))


def test_a_version_that_may_not_be_named_is_not_named_again() -> None:
    """If-Match still holds; one that the user named stays."""
    asked, named = source(), source(version_id="v2")
    assert not asked.adapt(refused("AccessDenied"))
    assert "versionId" in asked.request(INFO).url
    assert asked.adapt(refused("AccessDenied"))
    assert "versionId" not in asked.request(INFO).url
    assert not asked.adapt(refused("AccessDenied"))
    assert named.request(INFO).url.endswith("?versionId=v2")
    assert not named.adapt(refused("AccessDenied"))


def test_a_redirect_is_not_remembered() -> None:
    """OSS does not redirect a GET of an object: whoever does is not OSS."""
    asked = source()
    first = asked.request(None).url
    asked.pin(Request("https://other/key"))
    assert asked.request(None).url == first
