"""Temporary credentials of roles: from the instance's metadata, from STS, from an address of the user's.

The official SDK has none of these. ``alibabacloud-credentials`` does, but starts threads, prints to standard error, and
puts answers that hold secrets into its errors. Source: the documentation of STS and of ECS instance metadata.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from alibabacloud_oss_v2.types import Credentials

from fastdl.connections import patience
from fastdl.errors import AccessDenied, NetworkError, UsageError
from fastdl.http import Transport
from fastdl.messages import Line, Request
from fastdl.redact import keep_secrets, printable
from fastdl.urls import environment_proxy, split_url

if TYPE_CHECKING:
    from collections.abc import Mapping

METADATA = "http://100.100.100.200"  # answers inside ECS only, and to whoever was told to ask
STS = "https://sts.aliyuncs.com"
_ROLES = "/latest/meta-data/ram/security-credentials/"
_TOKEN_SECONDS = 21600  # that a token of the metadata service may live: the longest
_SESSION_SECONDS = 3600  # that credentials of STS live: the longest every role allows
_ANSWER = 64 * 1024  # bytes of an answer or a token that are worth reading
_PAUSES = (0.2, 1.0, 0.0)  # seconds after each attempt: a download waits meanwhile
_LOCAL = Line(connect_timeout=1.0, read_timeout=3.0)
_OK, _FIRST_FAILING = 200, 500
_NAME = "fastdl"  # of a session, as the audit log shows it


def ecs_role(role: str, *, only_v2: bool) -> Credentials:
    """Ask the instance's metadata service for the credentials of its role, whose name it knows if ``role`` is empty.

    ``only_v2``: never without a token of the service's (its second version).

    Raises:
        FastdlError: there are none.
    """
    what = "the metadata service"
    lifetime = ("X-aliyun-ecs-metadata-token-ttl-seconds", str(_TOKEN_SECONDS))
    headers: tuple[tuple[str, str], ...] = ()
    try:
        token = _ask(Request(f"{METADATA}/latest/api/token", (lifetime,), "PUT", follow=False), _LOCAL, what)
        headers = (("X-aliyun-ecs-metadata-token", _text(token, what)),)
    except AccessDenied:
        if only_v2:
            raise
    if not role:
        role = _text(_ask(Request(METADATA + _ROLES, headers, follow=False), _LOCAL, what), what)
    url = METADATA + _ROLES + quote(role, safe="")
    return _credentials(_json(_ask(Request(url, headers, follow=False), _LOCAL, what), what), what)


def from_address(url: str) -> Credentials:
    """Ask an address of the user's (ALIBABA_CLOUD_CREDENTIALS_URI) for credentials.

    Raises:
        FastdlError: there are none.
    """
    split_url(url)
    what = "the address of ALIBABA_CLOUD_CREDENTIALS_URI"
    return _credentials(_json(_ask(Request(url, follow=False), _LOCAL, what), what), what)


def oidc_role(role_arn: str, provider_arn: str, token_file: str, session: str, sts: str = "") -> Credentials:
    """Exchange the token of an OpenID Connect provider, read anew each time, for the credentials of a role.

    Raises:
        FastdlError: there are none.
    """
    try:
        with Path(token_file).open("rb") as file:
            token = file.read(_ANSWER).decode("ascii").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no token"
        raise UsageError(f"the OIDC token file {printable(token_file)!r} cannot be read: {reason}") from None
    form = {"Action": "AssumeRoleWithOIDC", "OIDCProviderArn": provider_arn, "OIDCToken": token}
    return _assume(form | {"RoleArn": role_arn, "RoleSessionName": session or _NAME}, sts)


def assumed_role(key: Credentials, role_arn: str, session: str, sts: str = "") -> Credentials:
    """Exchange a long-lived key for the credentials of a role.

    Raises:
        FastdlError: there are none.
    """
    form = {"Action": "AssumeRole", "RoleArn": role_arn, "RoleSessionName": session or _NAME}
    form |= {"AccessKeyId": key.access_key_id, "SignatureMethod": "HMAC-SHA1", "SignatureVersion": "1.0"}
    form |= {"SignatureNonce": secrets.token_hex(16)}
    if key.security_token:
        form["SecurityToken"] = key.security_token
    return _assume(form, sts, key.access_key_secret)


def signature(method: str, form: Mapping[str, str], secret: str) -> str:
    """Sign a call of Alibaba Cloud's RPC style. Source: "Request syntax and signature method V2 for RPC APIs"."""
    pairs = sorted(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in form.items())
    text = f"{method}&%2F&{quote('&'.join(pairs), safe='~')}"
    return base64.b64encode(hmac.digest(f"{secret}&".encode(), text.encode(), hashlib.sha1)).decode()


def _assume(form: dict[str, str], sts: str, secret: str = "") -> Credentials:
    """Call STS; ``form`` goes in the body, where no log of a proxy sees the token."""
    form |= {"Format": "JSON", "Version": "2015-04-01", "DurationSeconds": str(_SESSION_SECONDS)}
    form["Timestamp"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if secret:
        form["Signature"] = signature("POST", form, secret)
    keep_secrets(*(form[name] for name in ("OIDCToken", "SecurityToken", "Signature") if name in form))
    headers = (("Content-Type", "application/x-www-form-urlencoded"),)
    url = sts or STS
    request = Request(f"{url}/", headers, "POST", follow=False, body=urlencode(form).encode())
    line = Line(connect_timeout=5.0, read_timeout=10.0, proxy=environment_proxy(url))
    what = "STS"
    return _credentials(_json(_ask(request, line, what), what).get("Credentials"), what)


def _ask(request: Request, line: Line, what: str) -> bytes:
    """Return the body of a successful answer.

    Raises:
        AccessDenied: the answer is another one.
        NetworkError: there was none, several times.
    """
    transport = Transport(line, 1)
    began = time.monotonic()
    try:
        for pause in _PAUSES:
            try:
                with patience(line.read_timeout):
                    response = transport.open(request)
                    status, body = response.status, response.excerpt(_ANSWER)
            except NetworkError as error:
                failure = error
            else:
                if status == _OK:
                    return body
                if status < _FIRST_FAILING:
                    raise AccessDenied(f"{what} gave no credentials: status {status}{_reason(body)}")
                failure = NetworkError(f"{what} fails: status {status}{_reason(body)}")
            if time.monotonic() - began >= line.read_timeout:  # who is silent for that long is not only hurried
                break
            time.sleep(pause)
    finally:
        transport.close()
    raise NetworkError(f"no credentials, {what} cannot be asked: {failure}")


def _reason(body: bytes) -> str:
    """Return the code and the request's id of an error; its message may quote what was sent."""
    try:
        told = json.loads(body)
        fields = [printable(str(told[name]), 100) for name in ("Code", "RequestId") if name in told]
    except (ValueError, TypeError, RecursionError):
        return ""
    return "".join(f", {field}" for field in fields)


def _json(body: bytes, what: str) -> Mapping[str, object]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise AccessDenied(f"{what} answered with something that is not JSON of an object")
    return found


def _text(body: bytes, what: str) -> str:
    """Read a token or a name: one word that may stand in a header and in a URL."""
    text = body.decode("latin-1").strip()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise AccessDenied(f"{what} answered with something that is no name and no token")
    return text


def _credentials(found: object, what: str) -> Credentials:
    """Read what STS, metadata and addresses all give; Login checks the rest."""
    fields = found if isinstance(found, dict) else {}
    key_id, secret, token, until = (
        fields.get(name) for name in ("AccessKeyId", "AccessKeySecret", "SecurityToken", "Expiration")
    )
    if not (isinstance(key_id, str) and isinstance(secret, str) and isinstance(token, str | None)):
        raise AccessDenied(f"{what} answered without credentials{_reason(json.dumps(fields).encode())}")
    try:
        expiry = datetime.fromisoformat(until) if isinstance(until, str) else None
    except ValueError:
        expiry = None
    if expiry is not None and expiry.tzinfo is None:
        expiry = expiry.replace(tzinfo=UTC)
    return Credentials(key_id, secret, token, expiry)
