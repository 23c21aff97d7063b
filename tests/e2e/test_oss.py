"""Objects of OSS through the real command, judged by an endpoint that recomputes every signature with the SDK.

The published V4 vectors are reproduced by the same signer in ``tests/unit/test_servers.py``.
"""

from __future__ import annotations

import random
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import alibabacloud_oss_v2 as oss  # type: ignore[import-untyped, unused-ignore]
import pytest
from fastcrc import crc64

import fastdl
from tests.e2e.command import Outcome, left_to_workers, names, run
from tests.servers.oss import KEY, AccessKey, Crc, OssServer, Stored, refusing, serving_oss
from tests.servers.scripted import Exchange, Handler, ranged, serving, short_206, status

if TYPE_CHECKING:
    from pathlib import Path

    from fastdl import DownloadResult

PART = 16 * 1024
DATA = random.Random(2).randbytes(40 * PART + 77)
OTHER = random.Random(3).randbytes(40 * PART + 77)
STS = AccessKey("STS.test-id", "test-sts-secret", "test-token/+=")
NEW = AccessKey("new-id", "new-secret")
REGION = {"OSS_REGION": "cn-hangzhou"}
NAME = "http://oss-cn-hangzhou.aliyuncs.com"
KEYS = (
    *("a b", "a+b", "100%", "%41", "日本/ü", "what?versionId=1&x=y", "a#b", "a//b", "/lead", "a;b=c&d", "~'()*!,$@:"),
    *(".hidden", "...", "./x", "../x", "a/../b", "a/./b/."),
)
NASTY = ".a b+c%41/日?x=y#z//~"


def login(key: AccessKey = KEY) -> dict[str, str]:
    """Make the variables that carry a key."""
    token = {"OSS_SESSION_TOKEN": key.token} if key.token else {}
    return {"OSS_ACCESS_KEY_ID": key.id, "OSS_ACCESS_KEY_SECRET": key.secret, **token}


def get(
    server: OssServer, folder: Path, *arguments: str, key: str = "key", variables: dict[str, str] | None = None
) -> Outcome:
    """Run the command by path style on the server's address."""
    return run(
        *(f"oss://bucket/{key}", "-o", "out", "-p", str(PART), "--endpoint-url", server.url(""), *arguments),
        cwd=folder,
        variables=REGION | (login() if variables is None else variables),
    )


def fetch(server: OssServer, folder: Path, key: str = "key", **settings: Any) -> DownloadResult:
    """Download in this process by path style on the server's address."""
    defaults = {
        "part_size": PART,
        "connections": 1,
        "workers": 1,
        "region": "cn-hangzhou",
        "endpoint_url": server.url(""),
        "credentials": oss.credentials.StaticCredentialsProvider(KEY.id, KEY.secret),
    }
    return fastdl.download(f"oss://bucket/{key}", folder / "out", **(defaults | settings))


def interrupted(stop: int, refusals: int = 2, refusal: Handler | None = None) -> dict[int, Handler]:
    """Make faults for one connection: ``stop`` bytes, then refusals, one more than the command takes."""
    refused = refusal or refusing(403, "AccessDenied")
    return {1: short_206(stop), **{2 + number: refused for number in range(refusals)}}


def presigned(server: OssServer, key: str, **settings: Any) -> str:
    """Let the official client sign a URL."""
    provider = oss.credentials.StaticCredentialsProvider(KEY.id, KEY.secret)
    config = oss.Config(
        region=server.region, endpoint=server.url(""), use_path_style=True, credentials_provider=provider
    )
    with closing(oss.transport.RequestsHttpClient()) as transport:
        config.http_client = transport
        request = oss.GetObjectRequest(bucket="bucket", key=key)
        return str(oss.Client(config).presign(request, **settings).url)


@pytest.mark.parametrize("key", [KEY, STS], ids=["AK/SK", "STS"])
def test_signed_ranges_by_several_workers(tmp_path: Path, key: AccessKey) -> None:
    """Every request of every worker is signed, asks for the standard range behaviour and, once known, for this ETag."""
    with serving_oss({"key": DATA}, keys=[key], faults=left_to_workers(PART, 8)) as server:
        outcome = get(server, tmp_path, "-x", "8", "-w", "2", variables=login(key))
        assert outcome.code == 0, outcome.message
        assert {seen.method for seen in server.log} == {"GET"}
        assert all(seen.range is not None for seen in server.log)
        assert {seen.headers["x-oss-range-behavior"] for seen in server.log} == {"standard"}
        first, *later = server.log
        assert "if-match" not in first.headers
        assert {seen.headers["if-match"] for seen in later} == {Stored(DATA).etag}
        assert all(seen.headers["authorization"].startswith("OSS4-HMAC-SHA256 ") for seen in server.log)
        assert {seen.headers.get("x-oss-security-token") for seen in server.log} == {key.token}
        assert len({seen.connection for seen in server.log}) >= 8
    assert (tmp_path / "out").read_bytes() == DATA
    assert names(tmp_path) == {"out"}
    done = outcome.last
    assert (done["integrity"], done["crc64"], done["parts"]) == ("crc64", f"{crc64.xz(DATA):016x}", 41)
    assert (done["url"], done["size"], done["bytes_fetched"]) == ("oss://bucket/key", len(DATA), len(DATA))


@pytest.mark.parametrize("size", [0, 1, PART, PART + 1])
def test_small_objects(tmp_path: Path, size: int) -> None:
    """The empty object too is judged by its CRC-64."""
    with serving_oss({"key": DATA[:size]}) as server:
        result = fetch(server, tmp_path)
    assert (tmp_path / "out").read_bytes() == DATA[:size]
    assert (result.size, result.integrity) == (size, "crc64")


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("style", ["path", "virtual", "cname"])
def test_any_key_in_any_style(tmp_path: Path, style: str, key: str) -> None:
    """Keys are literal: percent-encoded once, never decoded, cleaned or shortened on their way."""
    with serving_oss({key: Stored(DATA[:5000], crc=Crc.RIGHT)}, cnames=["data.example"]) as server:
        settings: dict[str, Any] = {
            "path": {},
            "virtual": {"endpoint_url": NAME, "proxy": server.url("")},
            "cname": {"endpoint_url": "http://data.example", "proxy": server.url(""), "addressing": "cname"},
        }[style]
        result = fetch(server, tmp_path, key, **settings)
    assert (result.size, result.integrity) == (5000, "crc64")


@pytest.mark.parametrize(
    ("arguments", "target"),
    [
        (["--endpoint-url", NAME], "http://bucket.oss-cn-hangzhou.aliyuncs.com/"),
        (["--endpoint-url", "http://data.example", "--addressing", "cname"], "http://data.example/"),
    ],
)
def test_an_awkward_key_by_the_command(tmp_path: Path, arguments: list[str], target: str) -> None:
    """The key reaches the server as the shell gave it, under the names of OSS, which stand behind a proxy here."""
    with serving_oss({NASTY: DATA}, cnames=["data.example"], faults=left_to_workers(PART, 2)) as server:
        outcome = get(server, tmp_path, *arguments, "--proxy", server.url(""), key=NASTY)
        assert outcome.code == 0, outcome.message
        assert all(seen.target.startswith(target) for seen in server.log)
    assert (tmp_path / "out").read_bytes() == DATA


def test_an_awkward_key_gives_the_default_name(tmp_path: Path) -> None:
    """Without -o the file is called like the last piece of the literal key."""
    with serving_oss({"dir/100%+#": DATA}) as server:
        outcome = run(
            *("oss://bucket/dir/100%+#", "--endpoint-url", server.url("")), cwd=tmp_path, variables=REGION | login()
        )
    assert outcome.code == 0, outcome.message
    assert names(tmp_path) == {"100%+#"}


@pytest.mark.parametrize(
    "endpoint",
    [
        *("oss-cn-hangzhou.aliyuncs.com", "oss-cn-hangzhou-internal.aliyuncs.com"),
        *("cn-hangzhou.oss.aliyuncs.com", "bucket-is-elsewhere.example"),
    ],
)
def test_the_region_follows_from_the_endpoint(tmp_path: Path, endpoint: str) -> None:
    """Public, internal and dual-stack names carry the region; one that does not needs it to be said."""
    with serving_oss({"key": DATA}) as server:
        outcome = run(
            *("oss://bucket/key", "-o", "out", "--proxy", server.url("")),
            cwd=tmp_path,
            variables=login() | {"OSS_ENDPOINT": f"http://{endpoint}"},
        )
    if endpoint.endswith("example"):
        assert (outcome.code, "region" in outcome.message) == (2, True)
        assert not server.log
    else:
        assert outcome.code == 0, outcome.message


@pytest.mark.parametrize("endpoint", ["oss-accelerate.aliyuncs.com", "oss-accelerate-overseas.aliyuncs.com"])
def test_the_accelerating_endpoints_are_no_region(tmp_path: Path, endpoint: str) -> None:
    """They stand before all regions: the region must be said, and nothing is signed for one called accelerate."""
    with serving_oss({"key": DATA}) as server:
        command = ("oss://bucket/key", "-o", "out", "--proxy", server.url(""), "--endpoint-url", f"http://{endpoint}")
        silent = run(*command, cwd=tmp_path, variables=login())
        assert (silent.code, "region" in silent.message) == (2, True), silent.message
        assert run(*command, "--region", "cn-hangzhou", cwd=tmp_path, variables=login()).code == 0


@pytest.mark.parametrize(
    ("variables", "host"),
    [
        ({}, "oss-eu-central-1"),
        ({"OSS_ENDPOINT": "internal"}, "oss-eu-central-1-internal"),
        ({"OSS_ENDPOINT": "dual-stack"}, "eu-central-1.oss"),
        ({"OSS_ENDPOINT": "accelerate-overseas"}, "oss-accelerate-overseas"),
    ],
)
def test_the_endpoint_follows_from_the_region(tmp_path: Path, variables: dict[str, str], host: str) -> None:
    """A region alone means its public endpoint, with the name of a kind that kind's; over TLS."""
    with serving(status(502)) as server:
        outcome = run(
            *("oss://bucket/key", "-o", "out", "--region", "oss-eu-central-1", "--retry", "0"),
            *("--proxy", server.url("")),
            cwd=tmp_path,
            variables=login() | variables,
        )
        assert server.log[0].target == f"bucket.{host}.aliyuncs.com:443"
    assert outcome.code == 5


@pytest.mark.parametrize(
    ("url", "variables", "code", "words"),
    [
        ("oss://bucket/key", REGION, 4, ("no OSS credentials", "OSS_ACCESS_KEY_ID", "--no-sign-request")),
        ("oss://bucket/key", REGION | {"OSS_ACCESS_KEY_ID": "id"}, 4, ("no OSS credentials",)),
        ("oss://bucket/key", login(), 2, ("region", "--region", "OSS_REGION")),
        ("oss://bucket/key", login() | {"OSS_REGION": "cn hangzhou"}, 2, ("is no region",)),
        ("oss://bucket", login() | REGION, 2, ("write oss://bucket/key",)),
        ("oss://bucket/", login() | REGION, 2, ("write oss://bucket/key",)),
        ("oss://Bucket/key", login() | REGION, 2, ("write oss://bucket/key",)),
        ("oss://bucket/\udcff", login() | REGION, 2, ("UTF-8",)),
    ],
)
def test_what_is_missing_is_named(
    tmp_path: Path, url: str, variables: dict[str, str], code: int, words: tuple[str, ...]
) -> None:
    """Nothing is asked of the network before the URL, the region and the credentials are there."""
    with serving_oss({"key": DATA}) as server:
        outcome = run(url, "-o", "out", "--endpoint-url", server.url(""), cwd=tmp_path, variables=variables)
        assert not server.log
    assert outcome.code == code
    assert all(word in outcome.message for word in words), outcome.message
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    ("key", "variables", "code", "words"),
    [
        ("cold", login(), 4, ("archived", "restore", "InvalidObjectState", "0016-00000601")),
        ("missing", login(), 3, ("404", "NoSuchKey", "0026-00000001")),
        ("key", login(AccessKey(KEY.id, "wrong")), 4, ("403", "SignatureDoesNotMatch", "0002-00000201")),
        ("key", login(AccessKey("nobody", "x")), 4, ("403", "InvalidAccessKeyId", "0002-00000902")),
        ("key", login(STS), 4, ("403", "SecurityTokenExpired", "0002-00000007")),
        ("key", login(AccessKey(STS.id, STS.secret, "other")), 4, ("403", "InvalidSecurityToken", "0002-00000006")),
        ("payer", login(), 4, ("403", "AccessDenied", "0003-00000703")),
    ],
)
def test_refusals_are_told_apart(
    tmp_path: Path, key: str, variables: dict[str, str], code: int, words: tuple[str, ...]
) -> None:
    """One line with what was refused, OSS's Code and EC, and the RequestId that its support asks for; not repeated."""
    objects: dict[str, bytes | Stored] = {
        "key": DATA,
        "cold": Stored(DATA, archived=True),
        "payer": Stored(DATA, requester_pays=True),
    }
    expired = AccessKey(STS.id, STS.secret, STS.token, expired=True)
    with serving_oss(objects, keys=[KEY, expired]) as server:
        outcome = get(server, tmp_path, key=key, variables=variables)
        assert len(server.log) == 1
    assert outcome.code == code
    assert len(outcome.stderr.splitlines()) == 1
    for word in (*words, f"oss://bucket/{key}", f"RequestId {1:024X}"):
        assert word in outcome.message
    assert names(tmp_path) == set()


def test_a_missing_bucket_and_a_missing_version(tmp_path: Path) -> None:
    """Both are exit code 3 and say which."""
    with serving_oss({"key": Stored(DATA, version_id="1")}) as server:
        with pytest.raises(fastdl.NotFound, match="NoSuchVersion"):
            fetch(server, tmp_path, version_id="9")
        command = ("oss://elsewhere/key", "-o", "out", "--endpoint-url", server.url(""))
        outcome = run(*command, cwd=tmp_path, variables=REGION | login())
        assert (outcome.code, "NoSuchBucket" in outcome.message) == (3, True)


def test_user_headers_of_oss_are_signed(tmp_path: Path) -> None:
    """Requester pays works by a header of the user's, on every request."""
    stored = Stored(DATA, requester_pays=True)
    with serving_oss({"key": stored}, faults={1: short_206(PART)}) as server:
        fetch(server, tmp_path, headers={"x-oss-request-payer": "requester"})
        assert len(server.log) > 1
    assert (tmp_path / "out").read_bytes() == DATA


def test_public_objects_need_no_credentials(tmp_path: Path) -> None:
    """With --no-sign-request nothing is signed, whatever the environment holds."""
    with serving_oss({"key": Stored(DATA, public=True)}) as server:
        outcome = get(server, tmp_path, "--no-sign-request", variables={})
        assert (outcome.code, outcome.last["integrity"]) == (0, "crc64")
        assert fetch(server, tmp_path, sign=False).integrity == "crc64"
        assert not any("authorization" in seen.headers for seen in server.log)


def test_a_wrong_crc_is_never_published(tmp_path: Path) -> None:
    """Exit code 8, and nothing is kept that would fail in the same way for ever."""
    with serving_oss({"key": Stored(DATA, crc=Crc.WRONG)}, faults=left_to_workers(PART, 2)) as server:
        outcome = get(server, tmp_path)
        assert outcome.code == 8
        assert f"{crc64.xz(DATA):016x}" in outcome.message
        assert names(tmp_path) == set()
        with pytest.raises(fastdl.IntegrityError):
            fetch(server, tmp_path)
        assert names(tmp_path) == set()
        server.put("key", DATA)
        assert fetch(server, tmp_path).integrity == "crc64"


def test_a_missing_crc_is_no_proof(tmp_path: Path) -> None:
    """Without the store's CRC the result claims no more than the length."""
    with serving_oss({"key": Stored(DATA, crc=Crc.MISSING)}) as server:
        outcome = get(server, tmp_path)
    assert (outcome.code, outcome.last["integrity"]) == (0, "length")
    assert (tmp_path / "out").read_bytes() == DATA


def test_a_version_is_pinned_by_its_id(tmp_path: Path) -> None:
    """--version-id names one state, however often the object was replaced since; the id is signed with the rest."""
    objects = {"key": Stored(DATA, version_id="CAEQ+/=", etag='"one"')}
    with serving_oss(objects, faults=left_to_workers(PART, 2)) as server:
        server.put("key", Stored(OTHER, version_id="null", etag='"two"'))
        outcome = get(server, tmp_path, "--version-id", "CAEQ+/=")
        assert outcome.code == 0, outcome.message
        assert (tmp_path / "out").read_bytes() == DATA
        fetch(server, tmp_path, version_id="null")
        assert (tmp_path / "out").read_bytes() == OTHER


@pytest.mark.parametrize(
    ("replacement", "why"),
    [
        (Stored(OTHER, etag='"other"', crc=Crc.MISSING), "ETag"),
        (Stored(OTHER, etag=Stored(b"").etag), "CRC-64"),
        (Stored(OTHER[:-1], etag='"other"'), "bytes"),
        (Stored(OTHER[:1000], etag='"other"'), ""),
    ],
    ids=["other ETag", "same ETag", "one byte shorter", "much shorter"],
)
def test_an_object_replaced_between_two_runs(tmp_path: Path, replacement: Stored, why: str) -> None:
    """The second run starts over, says so and why, and ends with the new bytes alone."""
    with serving_oss({"key": DATA}, faults=interrupted(10 * PART)) as server:
        with pytest.raises(fastdl.AccessDenied):
            fetch(server, tmp_path)
        assert names(tmp_path) == {"out.part", "out.cp"}
        server.put("key", replacement)
        outcome = get(server, tmp_path)
        assert outcome.code == 0, outcome.message
    assert (tmp_path / "out").read_bytes() == replacement.body
    assert names(tmp_path) == {"out"}
    assert outcome.last["parts_reused"] == 0
    assert why in outcome.last["started_over"]
    assert "starting over: " in outcome.stderr


def test_an_object_replaced_during_a_run(tmp_path: Path) -> None:
    """If-Match fails: exit code 7 and no file; the next run fetches the new object."""

    def replace(exchange: Exchange) -> None:
        server.put("key", Stored(OTHER, etag='"other"'))
        exchange.otherwise(exchange)

    with serving_oss({"key": DATA}, faults=left_to_workers(PART, 3, {3: replace})) as server:
        outcome = get(server, tmp_path)
        assert outcome.code == 7
        assert "PreconditionFailed" in outcome.message
        assert not (tmp_path / "out").exists()
        fetch(server, tmp_path)
    assert (tmp_path / "out").read_bytes() == OTHER


class Rotating(oss.credentials.CredentialsProvider):  # type: ignore[misc, unused-ignore]
    """Hands out whatever key is current."""

    def __init__(self, key: AccessKey) -> None:
        self.key = key

    def get_credentials(self) -> Any:
        """Return the current key."""
        return oss.credentials.Credentials(self.key.id, self.key.secret, self.key.token)


@pytest.mark.parametrize("number", [1, 2, 7])
def test_credentials_that_rotate_midway_are_asked_for_again(tmp_path: Path, number: int) -> None:
    """A 403 to credentials that worked before is answered by one more signature, with what the provider has then."""
    provider = Rotating(STS)

    def rotate(exchange: Exchange) -> None:
        server.keys, provider.key = (NEW,), NEW
        exchange.otherwise(exchange)

    faults = left_to_workers(PART, 3, {2: short_206(PART), number: rotate})
    with serving_oss({"key": DATA}, keys=[STS], faults=faults) as server:
        if number == 1:  # before anything worked a refusal is final: a wrong key must not be tried for long
            with pytest.raises(fastdl.AccessDenied, match="InvalidAccessKeyId"):
                fetch(server, tmp_path, credentials=provider)
            return
        result = fetch(server, tmp_path, credentials=provider, connections=3, workers=2)
        late = [seen for seen in server.log if seen.number >= number and STS.id in seen.headers["authorization"]]
        assert 1 <= len(late) <= 3
        assert result.retries >= 1
    assert (tmp_path / "out").read_bytes() == DATA


def test_credentials_refused_for_good_leave_a_resumable_download(tmp_path: Path) -> None:
    """A second refusal in a row is final: exit code 4, the parts stay, and other credentials go on from there."""

    def revoke(exchange: Exchange) -> None:
        server.keys = (NEW,)
        exchange.otherwise(exchange)

    with serving_oss({"key": DATA}, faults={1: short_206(30 * PART), 2: revoke}) as server:
        outcome = get(server, tmp_path, "-x", "1", "-w", "1")
        assert outcome.code == 4
        assert "InvalidAccessKeyId" in outcome.message
        assert len(server.log) == 3
        assert names(tmp_path) == {"out.part", "out.cp"}
        outcome = get(server, tmp_path, variables=login(NEW))
        assert (outcome.code, outcome.last["parts_reused"]) == (0, 30), outcome.stderr
    assert (tmp_path / "out").read_bytes() == DATA


def test_a_provider_that_fails_is_told_without_its_words(tmp_path: Path) -> None:
    """What a provider raises may hold a secret: only its kind is shown."""

    class Failing(Rotating):
        def get_credentials(self) -> Any:
            raise RuntimeError(f"cannot refresh {self.key.secret}")

    with serving_oss({"key": DATA}) as server, pytest.raises(fastdl.AccessDenied) as caught:
        fetch(server, tmp_path, credentials=Failing(KEY))
    assert "RuntimeError" in str(caught.value)
    assert KEY.secret not in str(caught.value)


def test_a_busy_store_is_patiently_asked_again(tmp_path: Path) -> None:
    """503 and 500 with OSS's own XML are transient wherever they come."""
    busy, broken = refusing(503, "ServiceUnavailable"), refusing(500, "InternalError")
    with serving_oss({"key": DATA}, faults={1: busy, 2: short_206(PART), 3: broken}) as server:
        result = fetch(server, tmp_path)
    assert (result.integrity, result.retries >= 2) == ("crc64", True)


@pytest.mark.parametrize("crc", [Crc.RIGHT, Crc.WRONG])
def test_a_presigned_url_is_left_as_it_is(tmp_path: Path, crc: Crc) -> None:
    """Nothing is added to a URL that somebody else signed, and yet the store's CRC is judged."""
    with serving_oss({"a b+c": Stored(DATA, crc=crc)}, faults=left_to_workers(PART, 2)) as server:
        url = presigned(server, "a b+c", expires=timedelta(hours=1))
        outcome = run(url, "-o", "out", "-p", str(PART), cwd=tmp_path)
        assert outcome.code == (0 if crc is Crc.RIGHT else 8), outcome.message
        assert {seen.target for seen in server.log} == {url.removeprefix(server.url(""))}
        for seen in server.log:
            assert set(seen.headers) == {"host", "accept-encoding", "range", "user-agent"}
            assert seen.headers["accept-encoding"] == "identity"
    if crc is Crc.RIGHT:
        assert outcome.last["integrity"] == "crc64"
    assert names(tmp_path) == ({"out"} if crc is Crc.RIGHT else set())


def test_another_signature_is_not_another_object(tmp_path: Path) -> None:
    """A presigned URL that dies half-way is replaced by a fresh one, which goes on from the same parts."""
    with serving_oss({"key": DATA}, faults=interrupted(10 * PART, refusals=1)) as server:
        first = presigned(server, "key", expires=timedelta(hours=1))
        with pytest.raises(fastdl.AccessDenied):
            fastdl.download(first, tmp_path / "out", part_size=PART, connections=1, workers=1)
        second = presigned(server, "key", expires=timedelta(hours=2))
        assert first != second
        outcome = run(second, "-o", "out", "-p", str(PART), cwd=tmp_path)
        assert (outcome.code, outcome.last["parts_reused"]) == (0, 10), outcome.stderr


def test_the_crc_of_the_stored_bytes_says_nothing_about_processed_ones(tmp_path: Path) -> None:
    """Under x-oss-process the header covers other bytes than the body."""
    with serving(ranged(DATA, extra_headers={"x-oss-hash-crc64ecma": "1"})) as server:
        result = fastdl.download(server.url("/o?x-oss-process=image/resize,w_9"), tmp_path / "out")
    assert result.integrity == "length"
