"""What the user entrusts to the command is seen by the server it is meant for, and nowhere else."""

from __future__ import annotations

import json
import logging
import random
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import alibabacloud_oss_v2 as oss  # type: ignore[import-untyped, unused-ignore]
import pytest

import fastdl
from fastdl.sources import oss_roles
from tests.e2e.canaries import (
    FORBIDDEN,
    HEADERS,
    KEY,
    LOGIN,
    OSS,
    PART,
    PROXY_LOGIN,
    QUERY,
    QUICK,
    S3_KEY,
    check,
    check_outcome,
    secret_url,
)
from tests.e2e.command import Outcome, run, running
from tests.servers import scripted
from tests.servers.oss import Stored, refusing, serving_oss
from tests.servers.roles import serving_roles
from tests.servers.s3 import REGION, RefusalError, refuse, serving_s3
from tests.servers.scripted import Exchange, Handler, Server, ranged, script, serving, short_206, stall_after, status

if TYPE_CHECKING:
    from collections.abc import Mapping

DATA = random.Random(6).randbytes(40 * PART)


def holding(gate: threading.Event) -> Handler:
    """Give ten parts at once and hold everything else until ``gate`` opens."""

    def handle(exchange: Exchange) -> None:
        exchange.otherwise = ranged(DATA)
        (short_206(10 * PART) if exchange.request.number == 1 else stall_after(10, gate))(exchange)

    return handle


def look_inside(
    server: Server, gate: threading.Event, folder: Path, *arguments: str, variables: Mapping[str, str]
) -> Outcome:
    """Run the command, and while the server holds it look at its workers and its checkpoint."""
    with running(*arguments, "-o", "out", "-v", *QUICK[:6], cwd=folder, variables=variables) as command:
        server.wait_for(4)
        workers = command.children()
        assert len(workers) == 2
        for worker in workers:
            line = Path(f"/proc/{worker}/cmdline").read_bytes()
            assert b"fastdl.worker" in line
            check("a worker's command line", line)
            check("a worker's environment", Path(f"/proc/{worker}/environ").read_bytes())
        checkpoint = (folder / "out.cp").read_bytes()
        assert checkpoint.startswith(b"fastdlCP")
        check("the checkpoint", checkpoint)
        gate.set()
        outcome = command.finish()
    assert outcome.code == 0, outcome.message
    assert (folder / "out").read_bytes() == DATA
    check_outcome(outcome, folder)
    return outcome


def test_secrets_of_http_while_a_download_runs(tmp_path: Path) -> None:
    """Password, headers, signed query and proxy login reach the proxy, and neither the workers' /proc nor any file."""
    gate = threading.Event()
    with serving(holding(gate)) as server:
        url = f"http://{LOGIN}@name.invalid/object?{QUERY}"
        proxy = {"http_proxy": server.url("").replace("://", f"://{PROXY_LOGIN}@")}
        outcome = look_inside(server, gate, tmp_path, url, *HEADERS, variables=proxy)
        for seen in server.log:
            assert seen.target == f"http://name.invalid/object?{QUERY}"
            assert seen.headers["authorization"] == "Bearer CANARY-bearer"
            assert seen.headers["proxy-authorization"].startswith("Basic ")
            assert "referer" not in seen.headers
    assert outcome.last["url"].startswith("http://name.invalid/object?x-oss-signature=***&")


def test_a_password_in_the_url_while_a_download_runs(tmp_path: Path) -> None:
    """The same for a password alone, which becomes an Authorization header, and a proxy given by flag."""
    gate = threading.Event()
    with serving(holding(gate)) as server:
        proxy = server.url("").replace("://", f"://{PROXY_LOGIN}@")
        url = f"http://{LOGIN}@name.invalid/object"
        look_inside(server, gate, tmp_path, url, "--proxy", proxy, variables={})
        assert {seen.headers["authorization"] for seen in server.log} == {f"Basic {FORBIDDEN[3]}"}


def test_secrets_of_oss_while_a_download_runs(tmp_path: Path) -> None:
    """The secret never leaves the command's own process, the token only inside requests."""
    gate = threading.Event()
    faults: dict[int, Handler] = {1: short_206(10 * PART)}
    faults |= {number: stall_after(10, gate) for number in range(2, 50)}
    with serving_oss({"key": DATA}, keys=[KEY], faults=faults) as server:
        arguments = ("oss://bucket/key", "--endpoint-url", server.url(""))
        look_inside(server, gate, tmp_path, *arguments, variables=OSS)
        assert {seen.headers["x-oss-security-token"] for seen in server.log} == {KEY.token}
        assert not any(KEY.secret.encode() in seen.raw for seen in server.log)


def holding_all(gate: threading.Event) -> dict[int, Handler]:
    """Make faults that do for an object of OSS what ``holding`` does."""
    return {1: short_206(10 * PART)} | {number: stall_after(10, gate) for number in range(2, 50)}


def test_secrets_of_a_profile_while_a_download_runs(tmp_path: Path) -> None:
    """A file that everybody may read is its owner's business; its secrets get no further than from the environment."""
    gate, file, folder = threading.Event(), tmp_path / "ossutilconfig", tmp_path / "to"
    folder.mkdir()
    settings = (f"accessKeyId = {KEY.id}", f"accessKeySecret = {KEY.secret}", f"stsToken = {KEY.token}")
    file.write_text("\n".join(("[profile canary]", *settings, "region = cn-hangzhou", "password = CANARY-other")))
    file.chmod(0o644)
    with serving_oss({"key": DATA}, keys=[KEY], faults=holding_all(gate)) as server:
        arguments = ("oss://bucket/key", "--endpoint-url", server.url(""), "--profile", "canary")
        look_inside(server, gate, folder, *arguments, variables={"OSSUTIL_CONFIG_FILE": str(file)})
        assert not any(KEY.secret.encode() in seen.raw for seen in server.log)


def test_secrets_of_a_role_while_a_download_runs(tmp_path: Path) -> None:
    """What an address of the user's gives, and the address itself, stay with the caller."""
    gate = threading.Event()
    with serving_roles() as roles, serving_oss({"key": DATA}, faults=holding_all(gate)) as server:
        roles.secret, roles.token, server.keys = "CANARY-role", "CANARY-session/+=", roles.issued
        arguments = ("oss://bucket/key", "--endpoint-url", server.url(""))
        address = {"ALIBABA_CLOUD_CREDENTIALS_URI": roles.url("/credentials?token=CANARY-address")}
        look_inside(server, gate, tmp_path, *arguments, variables={"OSS_REGION": "cn-hangzhou", **address})
        assert {seen.headers["x-oss-security-token"] for seen in server.log} == {"CANARY-session/+=1"}


def test_secrets_of_a_restoration(tmp_path: Path) -> None:
    """Asked for, looked at and refused with everything told that -v tells."""
    with serving_oss({"key": Stored(DATA, archived=True)}, keys=[KEY]) as server:
        arguments = ("oss://bucket/key", "-o", "out", "-v", *QUICK, "--endpoint-url", server.url(""), "--restore")
        for more, code in (((), 4), (("--wait", "--restore-days", "9"), 6), (("--wait",), 0)):
            outcome = run(*arguments, *more, cwd=tmp_path, variables=OSS)
            assert outcome.code == code, outcome.message
            check_outcome(outcome, tmp_path)
        assert {"GET", "POST", "HEAD"} == {seen.method for seen in server.log}


@pytest.mark.parametrize("where", ["variables", "file", "process"])
def test_secrets_of_s3_while_a_download_runs(tmp_path: Path, where: str) -> None:
    """The secret key leaves the command's process by no way, the token only inside requests."""
    gate, folder, variables = threading.Event(), tmp_path / "to", {"AWS_REGION": REGION, "HOME": str(tmp_path)}
    folder.mkdir()
    (tmp_path / ".aws").mkdir()
    keys = {"aws_access_key_id": S3_KEY.access_key, "aws_secret_access_key": S3_KEY.secret_key}
    keys |= {"aws_session_token": S3_KEY.token}
    if where == "variables":
        variables |= {name.upper(): value for name, value in keys.items()}
    elif where == "file":
        lines = [f"{name} = {value}" for name, value in keys.items()]
        (tmp_path / ".aws" / "credentials").write_text("\n".join(("[default]", *lines)))
    else:
        answer = {"Version": 1, "AccessKeyId": S3_KEY.access_key, "SecretAccessKey": S3_KEY.secret_key}
        (tmp_path / "answer.json").write_text(json.dumps(answer | {"SessionToken": S3_KEY.token}))
        (tmp_path / ".aws" / "config").write_text(f"[default]\ncredential_process = cat {tmp_path}/answer.json\n")
    with serving_s3({"key": DATA}, faults=holding_all(gate)) as server:
        server.keys = {S3_KEY.access_key: S3_KEY}
        look_inside(server, gate, folder, "s3://bucket/key", "--endpoint-url", server.url(""), variables=variables)
        assert {seen.headers["x-amz-security-token"] for seen in server.log} == {S3_KEY.token}
        assert not any(S3_KEY.secret_key.encode() in seen.raw for seen in server.log)


@pytest.mark.parametrize("code", ["SignatureDoesNotMatch", "ExpiredToken", "InvalidObjectState", "SlowDown"])
@pytest.mark.parametrize("number", [1, 3], ids=["first answer", "later answer"])
def test_failures_tell_no_secret_of_s3(tmp_path: Path, code: str, number: int) -> None:
    """Refused at first or half-way, the text has S3's words and not the key's."""
    fault: Handler = lambda exchange: refuse(exchange, RefusalError(503 if code == "SlowDown" else 403, code))  # noqa: E731
    faults = dict.fromkeys(range(number, 60), fault) | ({1: short_206(10 * PART)} if number > 1 else {})
    variables = {"AWS_ACCESS_KEY_ID": S3_KEY.access_key, "AWS_SECRET_ACCESS_KEY": S3_KEY.secret_key}
    variables |= {"AWS_SESSION_TOKEN": S3_KEY.token, "AWS_REGION": REGION}
    with serving_s3({"key": DATA}, faults=faults) as server:
        server.keys = {S3_KEY.access_key: S3_KEY}
        arguments = ("s3://bucket/key", "-o", "out", "-v", *QUICK, "--endpoint-url", server.url(""))
        outcome = run(*arguments, cwd=tmp_path, variables=variables)
    assert (outcome.code, code in outcome.message) == (5 if code == "SlowDown" else 4, True)
    check_outcome(outcome, tmp_path)


@pytest.mark.parametrize(
    "text", ["CANARY-secret\n", "[default\naws_secret_access_key = CANARY-secret\n", "[CANARY]\nx\n"]
)
@pytest.mark.parametrize("name", ["config", "credentials"])
def test_broken_files_of_aws_tell_no_secret(tmp_path: Path, name: str, text: str) -> None:
    """Whatever is wrong with them."""
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / name).write_text(text)
    quiet = {"AWS_EC2_METADATA_DISABLED": "true"}
    outcome = run("s3://bucket/key", "-o", "out", "-v", *QUICK, cwd=tmp_path, variables=quiet)
    assert outcome.code in (2, 4), outcome.message
    check("stderr", outcome.stderr)


BAD_PROFILES = {
    "no section": f"accessKeySecret = {KEY.secret}\n",
    "a broken section": f"[default\naccessKeySecret = {KEY.secret}\n",
    "a secret as a section": f"[{KEY.secret}]\n",
    "a secret alone": f"[default]\n{KEY.secret}\n",
    "half a key": f"[default]\naccessKeySecret = {KEY.secret}\nmode = AK\n",
    "control characters": f"[default]\naccessKeyId = a\x01b\naccessKeySecret = {KEY.secret}\n",
    "a login in the endpoint": f"[default]\nendpoint = http://{LOGIN}@127.0.0.1:odd\n",
}


@pytest.mark.parametrize("name", BAD_PROFILES)
def test_a_broken_profile_tells_no_secret(tmp_path: Path, name: str) -> None:
    """No line of the file is quoted, whatever is wrong with it."""
    (tmp_path / ".ossutilconfig").write_text(BAD_PROFILES[name])
    variables = {"OSS_REGION": "cn-hangzhou"}
    outcome = run("oss://bucket/key", "-o", "out", "-v", *QUICK, cwd=tmp_path, variables=variables)
    assert outcome.code in (2, 4), outcome.message
    check_outcome(outcome, tmp_path)


FAULTS: dict[str, tuple[Handler, int]] = {
    "not found": (status(404), 3),
    "forbidden": (status(403, body=b"<Error><Code>AccessDenied</Code></Error>"), 4),
    "proxy login": (status(407), -1),
    "busy": (status(503, {"Retry-After": "0"}), 5),
    "reset": (scripted.reset, 5),
    "stall": (scripted.stall_before_head(), 5),
    "no http": (scripted.raw(b"nonsense\r\n\r\n"), 6),
    "wrong range": (scripted.wrong_content_range(), 6),
    "coded": (scripted.gzip_coded(), 6),
    "changed": (scripted.other_fields({"ETag": '"v2"'}), 7),
    "redirect to a file": (scripted.redirect(f"file:///etc/passwd?{QUERY}"), 6),
    "redirect to a loop": (scripted.redirect(f"/object?{QUERY}"), 6),
    "redirect to a login": (scripted.redirect(f"http://{LOGIN}@127.0.0.1:1/x?{QUERY}"), 5),
    "redirect to an odd port": (scripted.redirect(f"http://{LOGIN}@127.0.0.1:odd/x?{QUERY}"), -1),
    "redirect to an odd host": (scripted.redirect(f"http://{LOGIN}@exam\u00bale.\u00b5/x?{QUERY}"), -1),
}

LATER = ("forbidden", "busy", "stall", "wrong range", "changed", "redirect to a login")  # where workers fail otherwise


@pytest.mark.parametrize(
    ("name", "number"), [(name, 1) for name in FAULTS if name != "changed"] + [(name, 2) for name in LATER]
)
def test_failures_tell_no_secret_of_http(tmp_path: Path, name: str, number: int) -> None:
    """Whatever fails, at first or half-way, and however much -v tells: the secrets are not in it."""
    fault, code = FAULTS[name]

    def handle(exchange: Exchange) -> None:
        exchange.otherwise = ranged(DATA)
        (short_206(10 * PART) if exchange.request.number < number else fault)(exchange)

    with serving(handle) as server:
        outcome = run(secret_url(server), "-o", "out", "-v", *QUICK, *HEADERS, cwd=tmp_path)
        assert any(b"CANARY-bearer" in seen.raw for seen in server.log)
    assert outcome.code == code or code < 0, outcome.message
    assert outcome.code != 0
    check_outcome(outcome, tmp_path)


@pytest.mark.parametrize(
    "code", ["SignatureDoesNotMatch", "SecurityTokenExpired", "InvalidObjectState", "ServiceUnavailable"]
)
@pytest.mark.parametrize("number", [1, 2], ids=["first answer", "later answer"])
def test_failures_tell_no_secret_of_oss(tmp_path: Path, code: str, number: int) -> None:
    """Refused at first or half-way, the text has OSS's words and not the key's."""
    fault = refusing(503 if code == "ServiceUnavailable" else 403, code)
    faults = dict.fromkeys(range(number, 60), fault) | ({1: short_206(10 * PART)} if number > 1 else {})
    with serving_oss({"key": DATA}, keys=[KEY], faults=faults) as server:
        arguments = ("oss://bucket/key", "-o", "out", "-v", *QUICK, "--endpoint-url", server.url(""))
        outcome = run(*arguments, cwd=tmp_path, variables=OSS)
    assert (outcome.code, code in outcome.message) == (5 if code == "ServiceUnavailable" else 4, True)
    check_outcome(outcome, tmp_path)


def test_starting_over_tells_no_secret(tmp_path: Path) -> None:
    """The reason for throwing parts away compares objects, not URLs."""
    refusals = {2: status(403)}
    with serving(script({1: short_206(10 * PART), **refusals}, otherwise=ranged(DATA))) as server:
        first = run(secret_url(server), "-o", "out", "-v", *QUICK, "-x", "1", "-w", "1", cwd=tmp_path)
        assert first.code == 4
        check_outcome(first, tmp_path)
        second = run(secret_url(server, "/other"), "-o", "out", "-v", *QUICK, cwd=tmp_path)
        assert (second.code, "starting over" in second.stderr) == (0, True)
        check_outcome(second, tmp_path)


def test_an_object_replaced_tells_no_secret(tmp_path: Path) -> None:
    """The same for an object of OSS."""
    faults = {1: short_206(10 * PART), 2: refusing(403, "AccessDenied"), 3: refusing(403, "AccessDenied")}
    with serving_oss({"key": DATA}, keys=[KEY], faults=faults) as server:
        arguments = ("oss://bucket/key", "-o", "out", "-v", *QUICK, "--endpoint-url", server.url(""))
        first = run(*arguments, "-x", "1", "-w", "1", cwd=tmp_path, variables=OSS)
        assert first.code == 4
        server.put("key", Stored(DATA[::-1], etag='"other"'))
        second = run(*arguments, cwd=tmp_path, variables=OSS)
        assert (second.code, "starting over" in second.stderr) == (0, True)
    for outcome in (first, second):
        check_outcome(outcome, tmp_path)


MISTAKES: dict[str, tuple[str, ...]] = {
    "a password with a hash": ("http://user:CANARY#x@127.0.0.1:1/x",),
    "a password with a slash": ("http://user:CANARY/x@127.0.0.1:1/x",),
    "a password with a question mark": ("http://user:CANARY?x@127.0.0.1:1/x",),
    "a password before a bad port": (f"http://{LOGIN}@127.0.0.1:odd/x",),
    "a password before a bad host": (f"http://{LOGIN}@exam\u2100ple.org/x",),
    "a password before a bad address": (f"http://{LOGIN}@[CANARY/x",),
    "no scheme": (f"{LOGIN}@127.0.0.1/x",),
    "no scheme but slashes": (f"//{LOGIN}@127.0.0.1/x",),
    "another scheme": (f"ftp://{LOGIN}@127.0.0.1/x?{QUERY}",),
    "a mistyped scheme": (f"http:/{LOGIN}@127.0.0.1/x?{QUERY}",),
    "control characters": (f"http://{LOGIN}@127.0.0.1/x\n?{QUERY}",),
    "no name": (f"http://{LOGIN}@127.0.0.1:1/?{QUERY}",),
    "a login for oss": (f"oss://{LOGIN}@bucket/key",),
    "two URLs": ("http://127.0.0.1:1/x", f"http://{LOGIN}@127.0.0.1:1/y?{QUERY}"),
    "an unquoted header": ("-H", "Authorization:", "Bearer", "CANARY-bearer", "http://127.0.0.1:1/x"),
    "an unknown flag": ("--pasword=CANARY-flag", "http://127.0.0.1:1/x"),
    "a header without a colon": ("http://127.0.0.1:1/x", "-H", "Authorization Bearer CANARY-bearer"),
    "a header with a bad name": ("http://127.0.0.1:1/x", "-H", "Bearer CANARY-bearer: x"),
    "a header of two lines": ("http://127.0.0.1:1/x", "-H", "Authorization: CANARY\r\nX: CANARY"),
    "a proxy without a scheme": ("http://127.0.0.1:1/x", "--proxy", f"{PROXY_LOGIN}@127.0.0.1:1"),
    "a proxy of another kind": ("http://127.0.0.1:1/x", "--proxy", f"socks5://{PROXY_LOGIN}@127.0.0.1:1"),
    "a proxy password with a hash": ("http://127.0.0.1:1/x", "--proxy", "http://user:CANARY#x@127.0.0.1:1"),
    "a proxy with a bad port": ("http://127.0.0.1:1/x", "--proxy", f"http://{PROXY_LOGIN}@127.0.0.1:odd"),
    "an endpoint of S3 with a login": ("s3://bucket/key", "--endpoint-url", f"http://{LOGIN}@127.0.0.1:1"),
    "an endpoint of S3 with a bad port": ("s3://bucket/key", "--endpoint-url", f"http://{LOGIN}@127.0.0.1:odd"),
    "a login for s3": (f"s3://{LOGIN}@bucket/key",),
    "an endpoint with a login": ("oss://bucket/key", "--endpoint-url", f"http://{LOGIN}@127.0.0.1:1"),
    "an endpoint with a login, no scheme": ("oss://bucket/key", "--endpoint-url", f"{LOGIN}@127.0.0.1:1"),
    "an endpoint with a bad port": ("oss://bucket/key", "--endpoint-url", f"http://{LOGIN}@127.0.0.1:odd"),
    "a missing directory": (f"http://{LOGIN}@127.0.0.1:1/x?{QUERY}", "-o", "missing/out"),
    "nobody there": (f"http://{LOGIN}@127.0.0.1:1/x?{QUERY}", "--retry", "0", *HEADERS),
    "no such name": (f"http://{LOGIN}@no-such-name.invalid/x?{QUERY}", "--retry", "0", *HEADERS),
    "no such proxy": (f"http://{LOGIN}@x.invalid/x", "--retry", "0", "--proxy", f"http://{PROXY_LOGIN}@127.0.0.1:1"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_tell_no_secret(tmp_path: Path, name: str) -> None:
    """A mistyped command ends in somebody's log: it must not quote what stands where a password would."""
    outcome = run(*MISTAKES[name], "-v", cwd=tmp_path, variables=OSS)
    assert outcome.code in (2, 4, 5, 9), outcome.message
    check_outcome(outcome, tmp_path)


@pytest.mark.parametrize("value", [f"{PROXY_LOGIN}@127.0.0.1:1", f"socks5://{PROXY_LOGIN}@127.0.0.1:1"])
def test_a_proxy_of_the_environment_tells_no_secret(tmp_path: Path, value: str) -> None:
    """Nor does the environment's proxy, however it is written."""
    outcome = run("http://x.invalid/x", "--retry", "0", "-v", cwd=tmp_path, variables={"http_proxy": value})
    assert outcome.code in (2, 5)
    check_outcome(outcome, tmp_path)


def check_error(caught: pytest.ExceptionInfo[Any]) -> None:
    """Find no secret in an error and in what led to it."""
    error: BaseException | None = caught.value
    while error is not None:
        check("an error", f"{error!r} {error} {error.args}")
        error = error.__cause__ or error.__context__


def test_the_library_keeps_secrets_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Result, errors, what led to them and our own log lines are free of what the caller handed in."""
    caplog.set_level(logging.DEBUG, "fastdl")
    headers = {"Authorization": "Bearer CANARY-bearer"}
    with serving(script({4: status(403)}, otherwise=ranged(DATA))) as server:
        url = secret_url(server)
        result = fastdl.download(url, tmp_path / "out", headers=headers)
        check("the result", repr(result))
        with pytest.raises(fastdl.IntegrityError) as wrong:
            fastdl.download(url, tmp_path / "out", headers=headers, checksum="md5=" + "0" * 32)
        with pytest.raises(fastdl.AccessDenied) as denied:
            fastdl.download(url, tmp_path / "out", headers=headers)
    provider = oss.credentials.StaticCredentialsProvider(KEY.id, KEY.secret, KEY.token)
    settings = {"region": "cn-hangzhou", "credentials": provider}
    with serving_oss({}, keys=[KEY]) as endpoint, pytest.raises(fastdl.NotFound) as missing:
        fastdl.download("oss://bucket/key", tmp_path / "out", endpoint_url=endpoint.url(""), **settings)
    for caught in (wrong, denied, missing):
        check_error(caught)
    check("the log", "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("fastdl")))


def test_a_token_of_openid_connect_is_kept_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the token in its file nor what STS gives for it, or quotes of it, is told; STS alone sees it."""
    caplog.set_level(logging.DEBUG, "fastdl")
    (tmp_path / "token").write_text("CANARY-jwt")
    for name, value in (("ROLE_ARN", "arn"), ("OIDC_PROVIDER_ARN", "p"), ("OIDC_TOKEN_FILE", str(tmp_path / "token"))):
        monkeypatch.setenv(f"ALIBABA_CLOUD_{name}", value)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(oss_roles, "_PAUSES", (0.0, 0.0))
    quoting = b'{"Code":"AuthenticationFail","Message":"token CANARY-jwt is bad"}'
    faults = {1: status(400, body=quoting), 2: status(500, body=quoting), 3: status(200, body=quoting)}
    with serving_roles(faults | {4: status(500)}) as roles, serving_oss({"key": DATA}) as server:
        roles.secret, roles.token, server.keys = "CANARY-role", "CANARY-session", roles.issued
        monkeypatch.setattr(oss_roles, "STS", roles.url(""))
        settings: dict[str, Any] = {"region": "cn-hangzhou", "endpoint_url": server.url("")}
        for _ in range(2):
            with pytest.raises(fastdl.FastdlError) as caught:
                fastdl.download("oss://bucket/key", tmp_path / "out", **settings)
            check_error(caught)
        check("the result", repr(fastdl.download("oss://bucket/key", tmp_path / "out", **settings)))
        assert roles.form()["OIDCToken"] == "CANARY-jwt"
    check("the log", "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("fastdl")))


def test_a_callable_is_not_quoted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not what it gives, not what it raises, not what else it returns."""
    caplog.set_level(logging.DEBUG, "fastdl")

    def fail() -> tuple[str, str]:
        raise RuntimeError("CANARY-raised")

    given = (fail, lambda: ("id", "CANARY\n"), lambda: "CANARY", lambda: ("CANARY",), ("id", "CANARY", "t", "CANARY"))
    with serving_oss({"key": DATA}, keys=[KEY]) as server:
        settings: dict[str, Any] = {"region": "cn-hangzhou", "endpoint_url": server.url("")}
        for each in given:
            with pytest.raises(fastdl.FastdlError) as caught:
                fastdl.download("oss://bucket/key", tmp_path / "out", credentials=each, **settings)
            check_error(caught)
        with pytest.raises(fastdl.AccessDenied) as caught:
            fastdl.download("oss://bucket/key", tmp_path / "out", credentials=("id", "CANARY-wrong"), **settings)
        check_error(caught)
    check("the log", "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("fastdl")))
