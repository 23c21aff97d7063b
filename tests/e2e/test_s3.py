"""Objects of S3 through the real command, judged by an endpoint that recomputes every signature with botocore."""

from __future__ import annotations

import json
import random
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from botocore.credentials import Credentials

import fastdl
from tests.e2e.command import left_to_workers, names, run
from tests.e2e.s3 import PART, QUIET, fetch, get, login, nobodys_machine
from tests.servers.s3 import BUCKET, KEY, REGION, RefusalError, S3Server, Stored, refuse, serving_s3
from tests.servers.scripted import Exchange, Handler, serving, short_206

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DATA = random.Random(21).randbytes(40 * PART + 77)
OTHER = random.Random(22).randbytes(40 * PART + 77)
STS = Credentials("ASIATESTTOKENKEY", "sts-secret", "token/+=")
KEYS = (
    *("a b", "a+b", "100%", "%41", "日本/ü", "what?versionId=1&x=y", "a#b", "a//b", "/lead", "a;b=c&d", "~'()*!,$@:"),
    *(".hidden", "...", "./x", "../x", "a/../b", "a/./b/."),
)


def refusing(status: int, code: str) -> Handler:
    """Make a fault: an S3 error that comes whatever was asked."""
    return lambda exchange: refuse(exchange, RefusalError(status, code))


def later(servers: list[S3Server], change: Callable[[S3Server], None]) -> Handler:
    """Make a fault that gives one part, and before its second byte changes something."""

    def handle(exchange: Exchange) -> None:
        exchange.break_body(1, lambda: change(servers[0]))
        short_206(PART)(exchange)

    return handle


@pytest.fixture(autouse=True)
def _nobodys_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let botocore find nothing of whoever runs the tests."""
    nobodys_machine(tmp_path, monkeypatch)


@pytest.mark.parametrize("key", [KEY, STS], ids=["AK/SK", "STS"])
def test_signed_ranges_by_several_workers(tmp_path: Path, key: Credentials) -> None:
    """Every request of every worker is signed; but the first all ask for this ETag; one HEAD asks for checksums."""
    with serving_s3({"key": DATA}, faults=left_to_workers(PART, 8)) as server:
        server.keys = {key.access_key: key}
        outcome = get(server, tmp_path, "-x", "8", "-w", "2", variables=login(key))
        assert outcome.code == 0, outcome.message
        assert [seen.method for seen in server.log].count("HEAD") == 1
        first, *others = server.log
        assert "if-match" not in first.headers
        assert {seen.headers["if-match"] for seen in others} == {Stored(DATA).etag}
        assert all(seen.headers["authorization"].startswith("AWS4-HMAC-SHA256 ") for seen in server.log)
        assert {seen.headers.get("x-amz-security-token") for seen in server.log} == {key.token}
        assert len({seen.connection for seen in server.log if seen.method == "GET"}) >= 4
    assert (tmp_path / "out").read_bytes() == DATA
    assert names(tmp_path) == {"out"}
    done = outcome.last
    assert (done["url"], done["size"], done["parts"], done["integrity"]) == ("s3://bucket/key", len(DATA), 41, "length")


@pytest.mark.parametrize(("style", "key"), [("path", key) for key in KEYS] + [("virtual", key) for key in KEYS[4:9]])
def test_any_key_in_any_style(tmp_path: Path, style: str, key: str) -> None:
    """Keys are literal: percent-encoded once, never decoded, cleaned or shortened on their way."""
    with serving_s3({key: DATA[:5000]}) as server:
        amazon = {"endpoint_url": f"http://s3.{REGION}.amazonaws.com", "proxy": server.url("")}
        fetch(server, tmp_path, key, **({} if style == "path" else amazon))
        host = f"bucket.s3.{REGION}.amazonaws.com" if style == "virtual" else f"127.0.0.1:{server.port}"
        assert {seen.headers["host"] for seen in server.log} == {host}
    assert (tmp_path / "out").read_bytes() == DATA[:5000]


@pytest.mark.parametrize(
    ("arguments", "variables", "host"),
    [
        (["--endpoint-url", "http://store.example"], {}, "store.example"),
        (["--endpoint-url", "http://store.example", "--addressing", "virtual"], {}, "bucket.store.example"),
        ([], {"AWS_ENDPOINT_URL_S3": "http://s3.example:81"}, "s3.example:81"),
        ([], {"AWS_ENDPOINT_URL": "http://all.example"}, "all.example"),
        (["--endpoint-url", f"http://s3.{REGION}.amazonaws.com"], {}, f"bucket.s3.{REGION}.amazonaws.com"),
        (
            ["--endpoint-url", f"http://s3.{REGION}.amazonaws.com", "--addressing", "path"],
            {},
            f"s3.{REGION}.amazonaws.com",
        ),
    ],
)
def test_where_a_bucket_is(tmp_path: Path, arguments: list[str], variables: dict[str, str], host: str) -> None:
    """By path on endpoints of one's own, by name at Amazon's; flags and variables as the AWS tools know them."""
    with serving_s3({"key": DATA}) as server:
        url, proxy = f"s3://{BUCKET}/key", server.url("")
        outcome = run(url, "-o", "out", "--proxy", proxy, *arguments, cwd=tmp_path, variables=login() | variables)
        assert {seen.headers["host"] for seen in server.log} == {host}
    assert outcome.code == (3 if host == "bucket.store.example" else 0), outcome.message  # a name it does not know


def test_a_bucket_with_dots_is_named_in_the_path(tmp_path: Path) -> None:
    """No certificate covers bucket.with.dots.s3.amazonaws.com."""
    with serving(lambda exchange: exchange.reply(502)) as server:
        command = ("s3://my.bucket.name/key", "-o", "out", "--retry", "0", "--proxy", server.url(""))
        outcome = run(*command, cwd=tmp_path, variables=login())
        assert server.log[0].target == f"s3.{REGION}.amazonaws.com:443"
    assert outcome.code == 5


@pytest.mark.parametrize("redirecting", [301, 307, 400])
def test_a_bucket_elsewhere_is_found_by_one_retry(tmp_path: Path, redirecting: int) -> None:
    """The region that a refusal names is signed for; nobody has to know it."""
    with serving_s3({"key": DATA}) as server:
        server.redirecting = redirecting
        fetch(server, tmp_path, region="us-east-1")
        assert [REGION in seen.headers["authorization"] for seen in server.log[:2]] == [False, True]
        assert all(REGION in seen.headers["authorization"] for seen in server.log[1:])
    assert (tmp_path / "out").read_bytes() == DATA


def test_an_endpoint_of_another_region_is_the_users_own_word(tmp_path: Path) -> None:
    """It is not left for another one, but the right region is named."""
    with serving_s3({"key": DATA}) as server:
        amazon = {"endpoint_url": "http://s3.us-east-1.amazonaws.com", "proxy": server.url("")}
        with pytest.raises(fastdl.AccessDenied, match=f"region {REGION}"):
            fetch(server, tmp_path, region="us-east-1", **amazon)


def test_a_store_that_sends_in_circles_is_left(tmp_path: Path) -> None:
    """A region is learnt once; after that it is an error that names it."""

    def elsewhere(exchange: Exchange) -> None:
        region = f"eu-west-{exchange.request.number}"
        refuse(exchange, RefusalError(301, "PermanentRedirect", fields={"x-amz-bucket-region": region}))

    with serving_s3({"key": DATA}, faults=dict.fromkeys(range(1, 9), elsewhere)) as server:
        outcome = get(server, tmp_path)
        assert len(server.log) == 2
    assert outcome.code == 4
    assert "region eu-west-2" in outcome.message


@pytest.mark.parametrize("region", ["a-", "..", "us east", "x" * 60, "-"])
def test_what_is_no_region_is_not_followed(tmp_path: Path, region: str) -> None:
    """A refusal is told as it came."""
    refusal = RefusalError(400, "AuthorizationHeaderMalformed", parts={"Region": region})
    with serving_s3({"key": DATA}, faults={1: lambda exchange: refuse(exchange, refusal)}) as server:
        outcome = get(server, tmp_path)
        assert len(server.log) == 1
    assert (outcome.code, "AuthorizationHeaderMalformed" in outcome.message) == (4, True)


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_wrong_clock_is_corrected_once(tmp_path: Path, hours: int) -> None:
    """Later signatures carry the store's time."""
    with serving_s3({"key": DATA}) as server:
        server.clock_offset = timedelta(hours=hours)
        outcome = get(server, tmp_path, "-x", "2", "-w", "1")
        assert outcome.code == 0, outcome.message
        days = [seen.headers["x-amz-date"] for seen in server.log]
        assert len(set(days[1:]) - {days[0]}) >= 1
        assert days.count(days[0]) == 1
    assert (tmp_path / "out").read_bytes() == DATA


@pytest.mark.parametrize(
    ("key", "variables", "code", "words"),
    [
        (
            "cold",
            login(),
            4,
            ("archived in GLACIER", "restore-object --bucket bucket --key cold", "InvalidObjectState"),
        ),
        ("missing", login(), 3, ("404", "NoSuchKey")),
        ("gone", login(), 3, ("delete marker", "--version-id")),
        ("key", login(Credentials(KEY.access_key, "wrong")), 4, ("403", "SignatureDoesNotMatch")),
        ("key", login(Credentials("AKIANOBODYATALL", "x")), 4, ("403", "InvalidAccessKeyId")),
        ("key", login(Credentials(KEY.access_key, KEY.secret_key, "old")), 4, ("400", "ExpiredToken", "expiry")),
        ("payer", login(), 4, ("403", "AccessDenied")),
        ("sealed", login(), 4, ("customer-key", "InvalidRequest")),
    ],
)
def test_refusals_are_told_apart(
    tmp_path: Path, key: str, variables: dict[str, str], code: int, words: tuple[str, ...]
) -> None:
    """One line with what was refused, S3's Code, and the ids that its support asks for; not repeated."""
    objects: dict[str, bytes | Stored] = {
        "key": DATA,
        "cold": Stored(DATA, archived=True),
        "gone": Stored(b"", deleted=True),
        "payer": Stored(DATA, requester_pays=True),
        "sealed": Stored(DATA, customer_key="key64"),
    }
    with serving_s3(objects) as server:
        outcome = get(server, tmp_path, key=key, variables=variables)
        assert len(server.log) == 1
    assert outcome.code == code
    assert len(outcome.stderr.splitlines()) == 1
    for word in (*words, f"s3://bucket/{key}", "RequestId REQ1", "HostId host/id="):
        assert word in outcome.message
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    ("url", "arguments", "variables", "code", "words"),
    [
        ("s3://bucket/key", [], QUIET, 4, ("no AWS credentials", "AWS_ACCESS_KEY_ID", "--no-sign-request")),
        ("s3://bucket/key", ["--profile", "nobody"], QUIET, 2, ("nobody",)),
        ("s3://bucket/key", ["--addressing", "cname"], login(), 2, ("auto, virtual, path",)),
        ("s3://bucket/key", ["--endpoint-url", "http://u:s3cr3t@host/"], login(), 2, ("endpoint",)),
        ("s3://bucket/key", ["--region", "no such region"], login(), 2, ("region",)),
        ("s3://bucket", [], login(), 2, ("write s3://bucket/key",)),
        ("s3://bucket/", [], login(), 2, ("write s3://bucket/key",)),
        ("s3://b..b/key", [], login(), 2, ("write s3://bucket/key",)),
        ("s3://bucket--use1-az4--x-s3/key", [], login(), 2, ("directory buckets",)),
        ("s3://bucket/\udcff", [], login(), 2, ("UTF-8",)),
        ("s3://bucket/key", [], login(Credentials("AKIA", "k", "s3cr3t\r")), 4, ("characters that no key has",)),
        ("s3://bucket/key", [], login(Credentials("AKIA", "k", "s3cr3t\nx")), 4, ("characters that no key has",)),
        ("s3://bucket/key", [], login(Credentials("AKIA", "k", "s3cr3t\u0119")), 4, ("characters that no key has",)),
        ("s3://bucket/key", [], login(Credentials("AKIA\u0119", "s3cr3t")), 4, ("characters that no key has",)),
    ],
)
def test_what_is_missing_is_named(
    tmp_path: Path, url: str, arguments: list[str], variables: dict[str, str], code: int, words: tuple[str, ...]
) -> None:
    """Nothing is asked of the network before URL, endpoint and credentials are there."""
    outcome = run(url, "-o", "out", *arguments, cwd=tmp_path, variables=variables)
    assert outcome.code == code
    assert all(word in outcome.message for word in words), outcome.message
    assert "s3cr3t" not in outcome.stdout + outcome.stderr
    assert names(tmp_path) == set()


def test_without_botocore_it_is_said_what_to_install(tmp_path: Path) -> None:
    """One line, a usage error."""
    (tmp_path / "botocore.py").write_text("raise ImportError")
    path = ":".join([str(tmp_path), *filter(None, sys.path)])
    outcome = run("s3://bucket/key", "-o", "out", cwd=tmp_path, variables=login() | {"PYTHONPATH": path})
    assert (outcome.code, "pip install botocore" in outcome.message) == (2, True), outcome.message


@pytest.mark.parametrize("arguments", [["--request-payer", "requester"], ["-H", "x-amz-request-payer: requester"]])
def test_the_requester_pays(tmp_path: Path, arguments: list[str]) -> None:
    """On every request, and signed."""
    with serving_s3({"key": Stored(DATA, requester_pays=True)}) as server:
        assert get(server, tmp_path, *arguments).code == 0
        assert {seen.headers["x-amz-request-payer"] for seen in server.log} == {"requester"}


def test_a_customers_key_is_sent_and_signed(tmp_path: Path) -> None:
    """SSE-C by -H."""
    header = "x-amz-server-side-encryption-customer-key: key64"
    with serving_s3({"key": Stored(DATA, customer_key="key64")}) as server:
        assert get(server, tmp_path, "-H", header).code == 0
    assert (tmp_path / "out").read_bytes() == DATA


def test_a_public_object_needs_no_credentials(tmp_path: Path) -> None:
    """Nothing is signed, nobody is asked who we are."""
    with serving_s3({"key": Stored(DATA, public=True)}) as server:
        assert get(server, tmp_path, "--no-sign-request", variables=QUIET).code == 0
        assert not any("authorization" in seen.headers for seen in server.log)


def test_a_version_is_fetched_by_its_name(tmp_path: Path) -> None:
    """Not the newest."""
    with serving_s3({"key": Stored(DATA, '"1"', version_id="v/1+")}) as server:
        server.put("key", Stored(OTHER, '"2"', version_id="null"))
        assert get(server, tmp_path, "--version-id", "v/1+").code == 0
        assert (tmp_path / "out").read_bytes() == DATA
        assert {seen.target.partition("?")[2] for seen in server.log} == {"versionId=v%2F1%2B"}
        outcome = get(server, tmp_path, "--version-id", "v9")
    assert (outcome.code, "NoSuchVersion" in outcome.message) == (3, True)


@pytest.mark.parametrize("may", [True, False], ids=["may name versions", "may not"])
def test_the_first_answers_version_is_kept_to(tmp_path: Path, may: bool) -> None:
    """A new version during the download changes nothing; who may not name versions hears that it is there."""
    servers: list[S3Server] = []
    change = later(servers, lambda server: server.put("key", Stored(OTHER, '"2"', version_id="2")))
    with serving_s3({"key": Stored(DATA, '"1"', version_id="1")}, faults={1: change}) as server:
        servers.append(server)
        server.may_name_versions = may
        outcome = get(server, tmp_path, "-x", "2", "-w", "1")
    assert outcome.code == (0 if may else 7), outcome.message
    assert not may or (tmp_path / "out").read_bytes() == DATA


def test_a_resumed_download_keeps_to_its_version(tmp_path: Path) -> None:
    """The version that was begun is read to its end, though a newer one is there."""
    gone = {1: short_206(PART), 3: refusing(404, "NoSuchKey")}
    with serving_s3({"key": Stored(DATA, '"1"', version_id="1")}, faults=gone) as server:
        assert get(server, tmp_path, "-x", "1", "-w", "1").code == 3
        assert names(tmp_path) == {"out.part", "out.cp"}
        server.put("key", Stored(OTHER, '"2"', version_id="2"))
        outcome = get(server, tmp_path, "-x", "1", "-w", "1")
        assert outcome.code == 0, outcome.message
    assert (tmp_path / "out").read_bytes() == DATA
    assert (outcome.last["parts_reused"], outcome.last["started_over"]) == (1, "")


def test_who_may_not_name_versions_reads_the_object(tmp_path: Path) -> None:
    """s3:GetObject alone is enough as long as nobody replaces it."""
    with serving_s3({"key": Stored(DATA, version_id="1")}, faults={1: short_206(PART)}) as server:
        server.may_name_versions = False
        outcome = get(server, tmp_path, "-x", "2", "-w", "1")
        assert outcome.code == 0, outcome.message
    assert (tmp_path / "out").read_bytes() == DATA


def test_a_replaced_object_is_noticed(tmp_path: Path) -> None:
    """Without versions the ETag is the condition."""
    servers: list[S3Server] = []
    change = later(servers, lambda server: server.put("key", Stored(OTHER, '"2"')))
    with serving_s3({"key": DATA}, faults={1: change}) as server:
        servers.append(server)
        assert get(server, tmp_path, "-x", "2", "-w", "1").code == 7
    assert names(tmp_path) <= {"out.part", "out.cp"}


def profiles(folder: Path, **keys: Credentials) -> None:
    """Write AWS's shared credentials file, where the command's HOME is."""
    (folder / ".aws").mkdir(exist_ok=True)
    lines = [
        f"[{name}]\naws_access_key_id={key.access_key}\naws_secret_access_key={key.secret_key}\n"
        + (f"aws_session_token={key.token}\n" if key.token else "")
        for name, key in keys.items()
    ]
    (folder / ".aws" / "credentials").write_text("".join(lines))


@pytest.mark.parametrize(
    ("arguments", "variables", "key"),
    [
        ([], {}, KEY),
        (["--profile", "work"], {}, STS),
        ([], {"AWS_PROFILE": "work"}, STS),
        ([], login(Credentials("AKIAOTHERKEY0000", "other")), Credentials("AKIAOTHERKEY0000", "other")),
    ],
)
def test_credentials_of_files_and_variables(
    tmp_path: Path, arguments: list[str], variables: dict[str, str], key: Credentials
) -> None:
    """The default profile, a named one, and variables before both, as the AWS tools have it."""
    profiles(tmp_path, default=KEY, work=STS)
    with serving_s3({"key": DATA}) as server:
        server.keys = {key.access_key: key}
        region = ("--region", REGION)
        outcome = get(server, tmp_path, *region, *arguments, variables=QUIET | variables)
        assert outcome.code == 0, outcome.message


def test_credentials_of_a_process(tmp_path: Path) -> None:
    """credential_process in the config file."""
    answer = {"Version": 1, "AccessKeyId": KEY.access_key, "SecretAccessKey": KEY.secret_key}
    (tmp_path / "answer.json").write_text(json.dumps(answer))
    (tmp_path / ".aws").mkdir()
    config = f"[default]\nregion = {REGION}\ncredential_process = cat {tmp_path}/answer.json\n"
    (tmp_path / ".aws" / "config").write_text(config)
    with serving_s3({"key": DATA}) as server:
        assert get(server, tmp_path, variables=QUIET).code == 0
        (tmp_path / "answer.json").write_text("s3cr3t")
        outcome = get(server, tmp_path, variables=QUIET)
    assert (outcome.code, "s3cr3t" in outcome.stderr) == (4, False)


def test_credentials_of_a_container(tmp_path: Path) -> None:
    """The address that the environment names is asked, as on ECS and EKS."""
    answer = {
        "AccessKeyId": STS.access_key,
        "SecretAccessKey": STS.secret_key,
        "Token": STS.token,
        "Expiration": "2099-01-01T00:00:00Z",
    }
    with serving(lambda exchange: exchange.reply(200, (), json.dumps(answer).encode())) as agent:
        variables = QUIET | {"AWS_CONTAINER_CREDENTIALS_FULL_URI": agent.url(""), "AWS_REGION": REGION}
        with serving_s3({"key": DATA}) as server:
            server.keys = {STS.access_key: STS}
            assert get(server, tmp_path, variables=variables).code == 0


def test_rotated_credentials_are_looked_for_once(tmp_path: Path) -> None:
    """A token that expires mid-way is replaced by what the file holds now, for all connections."""
    new = Credentials("ASIATESTTOKENKEY", "new-secret", "new-token")
    servers: list[S3Server] = []

    def rotate(server: S3Server) -> None:
        profiles(tmp_path, default=new)
        server.keys = {new.access_key: new}

    profiles(tmp_path, default=STS)
    with serving_s3({"key": DATA}, faults={1: later(servers, rotate)}) as server:
        servers.append(server)
        server.keys = {STS.access_key: STS}
        outcome = get(server, tmp_path, "--region", REGION, "-x", "4", "-w", "2", variables=QUIET)
        assert outcome.code == 0, outcome.message
        assert server.log[-1].headers["x-amz-security-token"] == "new-token"
    assert (tmp_path / "out").read_bytes() == DATA
