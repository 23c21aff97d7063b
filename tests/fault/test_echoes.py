"""Row S1, the other direction: a server was told the secrets, and writes them into whatever of its answer is shown."""

from __future__ import annotations

import base64
import logging
import pickle
import random
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote
from xml.sax.saxutils import escape

import pytest

import fastdl
from tests.e2e.canaries import (
    HEADERS,
    KEY,
    OSS,
    PART,
    PROXY_LOGIN,
    QUICK,
    S3_KEY,
    check,
    check_outcome,
    secret_url,
)
from tests.e2e.command import run
from tests.servers import scripted
from tests.servers.oss import refusing, serving_oss
from tests.servers.s3 import REGION, RefusalError, refuse, serving_s3
from tests.servers.scripted import Exchange, Handler, ranged, script, serving, short_206

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DATA = random.Random(8).randbytes(40 * PART)


def told(exchange: Exchange) -> str:
    """Repeat every secret of a request, as it came, decoded and encoded, in one line."""
    seen = exchange.request
    values = [
        seen.headers[name] for name in ("authorization", "x-api-key", "proxy-authorization") if name in seen.headers
    ]
    values += [value.rpartition(" ")[2] for value in values]
    values += [pair.partition("=")[2] for pair in seen.target.partition("?")[2].split("&")]
    basic = [base64.b64decode(value[6:]).decode() for value in values if value.startswith("Basic ")]
    values += [*basic, *(login.partition(":")[2] for login in basic)]
    return " ".join(
        sorted({spelling for value in values for spelling in (value, unquote(value), quote(value, safe=""))})
    )


def line(text: Callable[[str], bytes]) -> Handler:
    """Send raw bytes made of what was told, and hang up."""

    def handle(exchange: Exchange) -> None:
        exchange.send(text(told(exchange)))
        exchange.close()

    return handle


def field(name: str, wrap: str = "{}") -> Handler:
    """Give the right answer, but for one field that quotes."""
    return lambda exchange: scripted.other_fields({name: wrap.format(told(exchange))})(exchange)


def refusal(status: int, name: str = "x-oss-request-id", body: str = "") -> Handler:
    """Refuse, with a field and a body that quote."""
    return lambda exchange: exchange.reply(status, {name: told(exchange)}, body.format(told(exchange)).encode())


def elsewhere(location: str) -> Handler:
    """Redirect to an address made of what was told."""
    return lambda exchange: exchange.reply(302, {"Location": location.format(quote(told(exchange), safe=""))})


XML = "<Error><Code>{0}</Code><Message>{0}</Message><RequestId>{0}</RequestId><EC>{0}</EC></Error>"
ECHOES: dict[str, Handler] = {
    "no status line": line(lambda text: f"{text}\r\n\r\n".encode()),
    "an odd version": line(lambda text: f"HTTP/{text} 200 OK\r\n\r\n".encode()),
    "a status that is no number": line(lambda text: f"HTTP/1.1 {text}\r\n\r\n".encode()),
    "the reason": line(lambda text: f"HTTP/1.1 403 {text}\r\nContent-Length: 0\r\n\r\n".encode()),
    "a line that is no field": line(lambda text: f"HTTP/1.1 200 OK\r\nx {text}\r\n\r\n".encode()),
    "Content-Range": field("Content-Range"),
    "Content-Range after bytes": field("Content-Range", "bytes {}"),
    "Content-Length": field("Content-Length"),
    "Content-Encoding": field("Content-Encoding"),
    "Transfer-Encoding": field("Transfer-Encoding"),
    "a refusal's fields": refusal(403),
    "a refusal's XML": refusal(403, body=XML),
    "a refusal's Retry-After": refusal(503, "Retry-After"),
    "a refusal's XML in a field": lambda exchange: exchange.reply(
        404,
        {"x-oss-request-id": "1", "x-oss-err": base64.b64encode(XML.format(told(exchange)).encode()).decode()},
    ),
    "a redirect's path": elsewhere("/{}"),
    "a redirect's host": elsewhere("http://{}.invalid/x"),
    "a redirect's scheme": elsewhere("ftp://{}/"),
    "a redirect's port": elsewhere("http://127.0.0.1:{}/"),
    "a redirect's login": elsewhere("http://{}@127.0.0.1:1/x"),
}
LATER = ("Content-Range", "a refusal's XML", "a refusal's XML in a field", "a redirect's path", "no status line")


@pytest.mark.parametrize("name", ECHOES)
def test_s1_a_server_that_quotes_secrets_is_not_quoted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """Wherever it writes them: not in an error's text, its arguments, what led to it, its pickle, nor in our log."""
    caplog.set_level(logging.DEBUG, "fastdl")
    headers = {"Authorization": "Bearer CANARY-bearer", "X-Api-Key": "CANARY-key"}
    with serving(script(dict.fromkeys(range(1, 99), ECHOES[name]), otherwise=ranged(DATA))) as server:
        for url, sent in ((secret_url(server), headers), (secret_url(server).partition("?")[0], {})):
            with pytest.raises(fastdl.FastdlError) as caught:
                fastdl.download(url, tmp_path / "out", headers=sent, retry=0, connect_timeout=1)
            check("a pickled error", pickle.dumps(caught.value))
            error: BaseException | None = caught.value
            while error is not None:
                check("an error", f"{error!r} {error} {error.args}")
                error = error.__cause__ or error.__context__
    check("the log", "\n".join(record.getMessage() for record in caplog.records if record.name == "fastdl"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", LATER)
def test_s1_workers_quote_nothing_either(tmp_path: Path, name: str) -> None:
    """What they were told half-way comes out of the command, whatever -v tells, with stars in its place."""

    def handle(exchange: Exchange) -> None:
        exchange.otherwise = ranged(DATA)
        (short_206(10 * PART) if exchange.request.number == 1 else ECHOES[name])(exchange)

    with serving(handle) as server:
        outcome = run(secret_url(server), "-o", "out", "-v", *QUICK, *HEADERS, cwd=tmp_path)
        assert outcome.code not in (0, 1), outcome.message
        check_outcome(outcome, tmp_path)


@pytest.mark.parametrize("name", ["ETag", "Last-Modified"])
def test_s1_a_validator_that_quotes_secrets_is_not_quoted(tmp_path: Path, name: str) -> None:
    """One that changed is shown, and so is one that was found; stars stand for what it quotes."""

    def handle(exchange: Exchange) -> None:
        exchange.otherwise = ranged(DATA, etag=None)
        (short_206(10 * PART) if exchange.request.number == 1 else field(name, '"{}"'))(exchange)

    with serving(handle) as server:
        outcome = run(secret_url(server), "-o", "out", "-v", *QUICK, *HEADERS, cwd=tmp_path)
        assert (outcome.code, name in outcome.message) == (7, True), outcome.message
        check_outcome(outcome, tmp_path)
        for flags in ((), ("-v",)):
            outcome = run("head", secret_url(server), *HEADERS, *flags, cwd=tmp_path)
            assert (outcome.code, "***" in outcome.stdout) == (0, True)
            check_outcome(outcome, tmp_path)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_s1_a_proxy_that_quotes_its_password_is_not_quoted(tmp_path: Path, scheme: str) -> None:
    """Nor the target's secrets, which a proxy for http sees too."""
    reason = line(lambda text: f"HTTP/1.1 502 {text}\r\nContent-Length: 0\r\n\r\n".encode())
    with serving(reason) as server:
        proxy = server.url("").replace("://", f"://{PROXY_LOGIN}@")
        outcome = run(f"{scheme}://name.invalid/x", "-o", "out", "-v", *QUICK, "--proxy", proxy, *HEADERS, cwd=tmp_path)
        assert "proxy-authorization" in server.log[0].headers
    assert outcome.code in (5, 6), outcome.message
    check_outcome(outcome, tmp_path)


@pytest.mark.parametrize("number", [1, 2], ids=["first answer", "later answer"])
@pytest.mark.parametrize("code", ["SignatureDoesNotMatch", "InvalidObjectState", "ServiceUnavailable"])
def test_s1_oss_that_quotes_what_was_signed_is_not_quoted(tmp_path: Path, code: str, number: int) -> None:
    """Token, key id and signature in its Message, as a string to sign has them."""

    def fault(exchange: Exchange) -> None:
        quoted = f"{exchange.request.headers['x-oss-security-token']} {told(exchange)}"
        refusing(503 if code == "ServiceUnavailable" else 403, code, escape(quoted)[:500])(exchange)

    faults = dict.fromkeys(range(number, 60), fault) | ({1: short_206(10 * PART)} if number > 1 else {})
    with serving_oss({"key": DATA}, keys=[KEY], faults=faults) as server:
        arguments = ("oss://bucket/key", "-o", "out", "-v", *QUICK, "--endpoint-url", server.url(""))
        outcome = run(*arguments, cwd=tmp_path, variables=OSS)
    assert (outcome.code, code in outcome.message, "***" in outcome.message) == (
        5 if code == "ServiceUnavailable" else 4,
        True,
        True,
    )
    check_outcome(outcome, tmp_path)


def test_s1_s3_that_quotes_what_was_signed_is_not_quoted(tmp_path: Path) -> None:
    """The same for S3, whose SignatureDoesNotMatch really has fields of that kind."""

    def fault(exchange: Exchange) -> None:
        quoted = f"{exchange.request.headers['x-amz-security-token']} {told(exchange)}"
        refuse(exchange, RefusalError(403, "SignatureDoesNotMatch", quoted[:500], parts={"StringToSign": quoted}))

    variables = {"AWS_ACCESS_KEY_ID": S3_KEY.access_key, "AWS_SECRET_ACCESS_KEY": S3_KEY.secret_key}
    variables |= {"AWS_SESSION_TOKEN": S3_KEY.token, "AWS_REGION": REGION}
    with serving_s3({"key": DATA}, faults=dict.fromkeys(range(1, 60), fault)) as server:
        arguments = ("s3://bucket/key", "-o", "out", "-v", *QUICK, "--endpoint-url", server.url(""))
        outcome = run(*arguments, cwd=tmp_path, variables=variables)
    assert (outcome.code, "***" in outcome.message) == (4, True), outcome.message
    check_outcome(outcome, tmp_path)
