"""The test servers keep their own promises, by the word of clients that are not ours."""

from __future__ import annotations

import gzip
import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import alibabacloud_oss_v2 as oss  # type: ignore[import-untyped, unused-ignore]
import pytest
from alibabacloud_oss_v2.signer import SignerV4  # type: ignore[import-untyped, unused-ignore]

from tests.servers import scripted
from tests.servers.nginx import serving_nginx
from tests.servers.objects import serving_objects
from tests.servers.oss import KEY, AccessKey, Crc, OssServer, Stored, refusing, serving_oss
from tests.servers.scripted import Exchange, Handler, Pattern, by_offset, ranged, routes, script, serving
from tests.servers.tls import certificate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DATA = bytes(range(256)) * 1000
RANGE = {"Range": "bytes=4-7"}
STS = AccessKey("STS.test-id", "test-sts-secret", "test-token/+=")
REPOSITORY = Path(__file__).parents[2]


def connect(url: str, context: ssl.SSLContext | None = None) -> closing[http.client.HTTPConnection]:
    """Make a connection of the standard library's client, closed at the end of its block."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    if parts.scheme == "https":
        return closing(http.client.HTTPSConnection(parts.hostname, parts.port, timeout=10, context=context))
    return closing(http.client.HTTPConnection(parts.hostname, parts.port, timeout=10))


def ask(
    client: http.client.HTTPConnection, target: str, headers: Mapping[str, str] | None = None, method: str = "GET"
) -> tuple[http.client.HTTPResponse, bytes]:
    """Send a request and read the whole answer."""
    client.request(method, target, headers=dict(headers or {}))
    response = client.getresponse()
    return response, response.read()


def fetch(
    url: str, headers: Mapping[str, str] | None = None, method: str = "GET"
) -> tuple[http.client.HTTPResponse, bytes]:
    """Ask once on a connection of its own."""
    with connect(url) as client:
        return ask(client, urlsplit(url).path, headers, method)


def spoilt(fault: Handler, data: bytes = DATA) -> Handler:
    """Spoil the first request only."""
    return script({1: fault}, otherwise=ranged(data))


@contextmanager
def sdk(server: OssServer, key: AccessKey = KEY, proxy: str | None = None, **options: object) -> Iterator[Any]:
    """Yield the official client, pointed at the server by path style and without retries."""
    # SDK 1.4.1 ignores a plain string: it makes the keys "http://" and "https://" of it, which requests never looks up.
    transport = oss.transport.RequestsHttpClient(proxy_host={"http": proxy} if proxy else None)
    provider = oss.credentials.StaticCredentialsProvider(key.id, key.secret, key.token)
    config = oss.Config(
        region=server.region,
        endpoint=server.url(""),
        use_path_style=True,
        retry_max_attempts=1,
        credentials_provider=provider,
        http_client=transport,
    )
    for name, value in options.items():
        setattr(config, name, value)
    with closing(transport):
        yield oss.Client(config)


def get(client: object, key: str = "key", **options: object) -> tuple[Any, bytes]:
    """Get an object with the official client."""
    result = client.get_object(oss.GetObjectRequest(bucket="bucket", key=key, **options))  # type: ignore[attr-defined]
    with result.body as body:
        return result, body.read()


def refused(client: object, key: str = "key", **options: object) -> Any:
    """Return the service error that a get ends with."""
    with pytest.raises(oss.exceptions.OperationError) as caught:
        get(client, key, **options)
    return caught.value.unwrap()


@pytest.mark.parametrize(
    ("value", "status", "body", "content_range"),
    [
        ("bytes=4-7", 206, DATA[4:8], f"bytes 4-7/{len(DATA)}"),
        (f"bytes={len(DATA) - 2}-", 206, DATA[-2:], f"bytes {len(DATA) - 2}-{len(DATA) - 1}/{len(DATA)}"),
        ("bytes=-2", 206, DATA[-2:], f"bytes {len(DATA) - 2}-{len(DATA) - 1}/{len(DATA)}"),
        (f"bytes=4-{len(DATA) + 9}", 206, DATA[4:], f"bytes 4-{len(DATA) - 1}/{len(DATA)}"),
        (f"bytes={len(DATA)}-", 416, b"", f"bytes */{len(DATA)}"),
        ("bytes=7-4", 200, DATA, None),
        ("bytes=0-0,2-2", 200, DATA, None),
    ],
)
def test_range_servers_agree_with_rfc_9110(
    tmp_path: Path, value: str, status: int, body: bytes, content_range: str | None
) -> None:
    """The scripted server and the file server read every kind of Range alike."""
    Path(tmp_path, "object").write_bytes(DATA)
    with serving(ranged(DATA)) as one, serving_objects(tmp_path) as other:
        for url in (one.url(), other.url("object")):
            response, got = fetch(url, {"Range": value})
            assert (response.status, response.headers["Content-Range"]) == (status, content_range)
            assert got == body


def test_conditions_of_the_range_servers(tmp_path: Path) -> None:
    """If-Match of another version is 412, If-Range of another version is the whole object, of this one the range."""
    Path(tmp_path, "object").write_bytes(DATA)
    with serving(ranged(DATA)) as one, serving_objects(tmp_path) as other:
        for url in (one.url(), other.url("object")):
            response, got = fetch(url, method="HEAD")
            etag = response.headers["ETag"]
            assert (response.status, response.headers["Content-Length"], got) == (200, str(len(DATA)), b"")
            assert fetch(url, {"If-Match": '"other"'})[0].status == 412
            assert fetch(url, RANGE | {"If-Match": etag})[0].status == 206
            assert fetch(url, RANGE | {"If-Range": etag})[0].status == 206
            assert fetch(url, RANGE | {"If-Range": response.headers["Last-Modified"]})[0].status == 206
            assert fetch(url, RANGE | {"If-Range": '"other"'})[0].status == 200


def test_a_virtual_object_needs_no_memory() -> None:
    """Bytes beyond 4 GiB are served, and are the same at every read."""
    pattern = Pattern(5 << 30)
    with serving(ranged(pattern)) as server:
        response, got = fetch(server.url(), {"Range": f"bytes={(4 << 30) - 3}-{4 << 30}"})
        assert response.headers["Content-Range"] == f"bytes {(4 << 30) - 3}-{4 << 30}/{5 << 30}"
        assert got == pattern.read((4 << 30) - 3, (4 << 30) + 1)
    whole = bytes(pattern.read(0, 3 * Pattern.PERIOD))
    assert bytes(pattern.read(7, 2 * Pattern.PERIOD + 9)) == whole[7 : 2 * Pattern.PERIOD + 9]
    assert whole[: 1 << 20] != whole[1 << 20 : 2 << 20]


def test_the_log_tells_what_arrived() -> None:
    """Requests are numbered across connections and waited for without sleeping."""
    with serving(ranged(DATA)) as server:
        with connect(server.url()) as client:
            ask(client, "/object?a=b", RANGE | {"X-Name": "value"})
            ask(client, "/object")
        fetch(server.url())
        first, second, third = server.wait_for(3)
        assert (first.method, first.target, first.range) == ("GET", "/object?a=b", (4, 8))
        assert first.headers["x-name"] == "value"
        assert b"X-Name: value" in first.raw
        assert [seen.connection for seen in (first, second, third)] == [1, 1, 2]
        assert [seen.number for seen in (first, second, third)] == [1, 2, 3]
        assert server.sent == 4 + 2 * len(DATA)
        server.wait_until(lambda: server.open_connections == 0)
        with pytest.raises(TimeoutError, match="/object"):
            server.wait_for(4, timeout=0)


def test_reset_after_delivers_its_bytes_first() -> None:
    """An RST comes after exactly the bytes promised, and the next request is answered rightly."""
    with serving(spoilt(scripted.reset_after(100_000))) as server:
        with connect(server.url()) as client:
            client.request("GET", "/object")
            response = client.getresponse()
            assert response.read(100_000) == DATA[:100_000]
            with pytest.raises(ConnectionResetError):
                response.read()
        assert fetch(server.url())[1] == DATA


def test_truncate_after_ends_early() -> None:
    """A FIN short of the Content-Length is an incomplete read."""
    with serving(spoilt(scripted.truncate_after(10))) as server, pytest.raises(http.client.IncompleteRead) as caught:
        fetch(server.url())
    assert caught.value.partial == DATA[:10]


def test_stall_after_waits_for_its_gate() -> None:
    """Nothing beyond the stall arrives before the gate opens, and all of it afterwards."""
    gate = threading.Event()
    with serving(spoilt(scripted.stall_after(10, gate))) as server, connect(server.url()) as client:
        client.request("GET", "/object")
        response = client.getresponse()
        assert response.read(10) == DATA[:10]
        assert server.sent == 10
        gate.set()
        assert response.read() == DATA[10:]


@pytest.mark.parametrize("fault", [scripted.stall_after(10), scripted.stall_before_head(threading.Event())])
def test_stop_ends_stalled_connections(fault: Handler) -> None:
    """No thread and no socket outlives the block, even while a handler holds a connection."""
    before = threading.active_count()
    with serving(spoilt(fault)) as server:
        client = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        client.sendall(b"GET /object HTTP/1.1\r\nHost: x\r\n\r\n")
        server.wait_for(1)
    assert threading.active_count() == before
    with client:
        while client.recv(65536):
            pass


def test_drip_gives_bytes_one_by_one_until_its_gate_opens() -> None:
    """A slow body is slow in order, and complete once the gate opens."""
    gate = threading.Event()
    with serving(spoilt(scripted.drip(gate, pause=0.001))) as server, connect(server.url()) as client:
        client.request("GET", "/object")
        response = client.getresponse()
        assert response.read(3) == DATA[:3]
        gate.set()
        assert response.read() == DATA[3:]


@pytest.mark.parametrize(
    ("fault", "status", "fields", "body"),
    [
        (scripted.status(503, {"Retry-After": "1"}, b"busy"), 503, {"Retry-After": "1"}, b"busy"),
        (scripted.redirect("/other"), 302, {"Location": "/other", "Content-Length": "0"}, b""),
        (scripted.wrong_content_range("bytes 0-3/9"), 206, {"Content-Range": "bytes 0-3/9"}, DATA[4:8]),
        (scripted.wrong_content_range(), 206, {"Content-Range": None}, DATA[4:8]),
        (scripted.wrong_content_range("a", "b"), 206, {"Content-Range": "a"}, DATA[4:8]),
        (scripted.other_fields({"ETag": '"v2"', "Date": None}), 206, {"ETag": '"v2"', "Date": None}, DATA[4:8]),
        (scripted.longer_body(b"more"), 206, {"Content-Length": "4"}, DATA[4:8]),
        (scripted.admitted_longer_body(b"more"), 206, {"Content-Length": "8"}, DATA[4:8] + b"more"),
        (scripted.flipped(1), 206, {}, bytes([4, 5 ^ 255, 6, 7])),
        (scripted.short_206(2), 206, {"Content-Range": f"bytes 4-5/{len(DATA)}"}, DATA[4:6]),
        (scripted.shifted_206(stop=3), 206, {"Content-Range": f"bytes 4-10/{len(DATA)}"}, DATA[4:11]),
        (scripted.shifted_206(1, 1), 206, {"Content-Range": f"bytes 5-8/{len(DATA)}"}, DATA[5:9]),
        (scripted.ignores_range(DATA), 200, {"Content-Range": None}, DATA),
        (scripted.no_length(DATA), 200, {"Content-Length": None}, DATA),
        (scripted.chunked(DATA), 200, {"Transfer-Encoding": "chunked"}, DATA),
        (scripted.raw(b"HTTP/1.1 299 Odd\r\nContent-Length: 1\r\n\r\n", b"x"), 299, {}, b"x"),
        (scripted.closes_afterwards, 206, {"Connection": None}, DATA[4:8]),
    ],
)
def test_named_faults(fault: Handler, status: int, fields: dict[str, str | None], body: bytes) -> None:
    """Each fault spoils what its name says and leaves the rest of the answer right."""
    with serving(spoilt(fault)) as server:
        response, got = fetch(server.url(), RANGE)
    assert response.status == status
    assert {name: response.headers[name] for name in fields} == fields
    assert got == body


def test_coded_and_multipart_bodies() -> None:
    """Bodies that a client must refuse are well-formed of their kind."""
    faults = {1: scripted.gzip_coded(), 2: scripted.multipart_byteranges()}
    with serving(script(faults, otherwise=ranged(DATA))) as server:
        response, got = fetch(server.url(), RANGE)
        assert (response.headers["Content-Encoding"], gzip.decompress(got)) == ("gzip", DATA[4:8])
        response, got = fetch(server.url(), RANGE)
        assert response.headers["Content-Type"].startswith("multipart/byteranges")
        assert DATA[4:8] in got


def test_faults_that_give_no_answer() -> None:
    """FIN and RST before the first byte, and a chunked body without its last chunk."""
    faults = {1: scripted.hang_up, 2: scripted.reset, 3: scripted.chunked(DATA, last=b"")}
    with serving(script(faults, otherwise=ranged(DATA))) as server:
        for error in (http.client.RemoteDisconnected, ConnectionResetError, http.client.IncompleteRead):
            with pytest.raises(error):
                fetch(server.url())


def test_informational_answers_come_first() -> None:
    """Interim answers precede the right one on the wire."""
    with (
        serving(spoilt(scripted.informational(3))) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as client,
    ):
        client.sendall(b"GET /object HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        got = b"".join(iter(lambda: client.recv(65536), b""))
    assert got.startswith(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 3 + b"HTTP/1.1 200 OK\r\n")


def test_scripts_choose_by_number_offset_and_path() -> None:
    """Faults hit the requests they were meant for, as often as they were meant."""
    chosen = by_offset({4: scripted.status(500)}, otherwise=ranged(DATA), times=2)
    later = scripted.from_request(4, then=ranged(DATA, etag='"v2"'), before=chosen)
    with serving(routes({"/a": later})) as server, connect(server.url()) as client:
        assert [ask(client, "/a", RANGE)[0].status for _ in range(3)] == [500, 500, 206]
        assert ask(client, "/a?query")[0].headers["ETag"] == '"v2"'
        assert ask(client, "/b")[0].status == 404


def test_a_bug_in_a_handler_fails_the_test() -> None:
    """An exception of a handler is raised at the end of the block, not printed by a thread."""

    def buggy(_exchange: Exchange) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), serving(buggy) as server, pytest.raises(http.client.RemoteDisconnected):
        fetch(server.url())


def test_tls_shows_a_certificate_of_its_own_authority() -> None:
    """A client that trusts the authority gets the object, any other does not."""
    with certificate() as pem, serving(ranged(DATA), tls=pem.server_context()) as server:
        with connect(server.url(), pem.client_context()) as client:
            assert ask(client, "/object", RANGE)[1] == DATA[4:8]
        with connect(server.url(), ssl.create_default_context()) as client, pytest.raises(ssl.SSLError):
            ask(client, "/object")


def test_the_file_server_counts_and_keeps_alive(tmp_path: Path) -> None:
    """Bytes and requests are counted, the CRC sidecar becomes a header, and nothing outside the folder is served."""
    folder = tmp_path / "root"
    folder.mkdir()
    Path(folder, "a b").write_bytes(DATA)
    Path(folder, "a b.crc64").write_text("123\n")
    Path(tmp_path, "secret").write_text("secret")
    with serving_objects(folder) as server, connect(server.url()) as client:
        response, got = ask(client, "/a%20b")
        assert (response.status, response.headers["x-oss-hash-crc64ecma"]) == (200, "123")
        assert got == DATA
        assert ask(client, "/a%20b", RANGE)[1] == DATA[4:8]
        assert ask(client, "/../secret")[0].status == 404
        assert ask(client, "/missing")[0].status == 404
        assert (server.requests, server.sent) == (4, len(DATA) + 4)


def test_a_paced_file_server_stops_at_once(tmp_path: Path) -> None:
    """A body that would take an hour is under way when the server stops, and no thread waits for it."""
    Path(tmp_path, "object").write_bytes(DATA)
    before = threading.active_count()
    with serving_objects(tmp_path, rate=len(DATA) / 3600) as server:
        client = socket.create_connection(("127.0.0.1", server.server_port), timeout=10)
        client.sendall(b"GET /object HTTP/1.1\r\nHost: x\r\n\r\n")
        head = client.recv(65536)
        assert head.startswith(b"HTTP/1.1 200")
    client.close()
    assert server.sent < len(DATA) // 10
    assert threading.active_count() == before


@pytest.mark.parametrize("end", ["stdin", "SIGTERM"])
def test_the_file_server_runs_as_a_program(tmp_path: Path, end: str) -> None:
    """It prints its URL, serves, and leaves with status 0 at the end of stdin and at SIGTERM."""
    Path(tmp_path, "object").write_bytes(DATA)
    command = [sys.executable, "-m", "tests.servers.objects", str(tmp_path), "--port", "0"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        url = process.stdout.readline().decode().strip()
        assert fetch(f"{url}object")[1] == DATA
        if end == "stdin":
            process.stdin.close()
        else:
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_nginx_serves_ranges_over_http_and_tls(tmp_path: Path) -> None:
    """The real nginx answers ranges, by the certificate of our authority, and ends with its block."""
    Path(tmp_path, "object").write_bytes(DATA)
    with serving_nginx(tmp_path) as plain:
        response, got = fetch(plain.url("/object"), RANGE)
        assert (response.status, got) == (206, DATA[4:8])
    with pytest.raises(ConnectionRefusedError):
        fetch(plain.url("/object"))
    with (
        certificate() as pem,
        serving_nginx(tmp_path, tls=pem, rate=1 << 30) as server,
        connect(server.url(), pem.client_context()) as client,
    ):
        assert ask(client, "/object")[1] == DATA


def test_nginx_refuses_connections_beyond_its_limit(tmp_path: Path) -> None:
    """While one connection is busy at a slow rate, a second one is answered 503."""
    Path(tmp_path, "object").write_bytes(bytes(1 << 20))
    with serving_nginx(tmp_path, rate=1024, limit_conn=1) as server, connect(server.url()) as client:
        client.request("GET", "/object")
        response = client.getresponse()
        assert fetch(server.url("/object"))[0].status == 503
        response.close()


def test_nginx_that_does_not_start_says_why(tmp_path: Path) -> None:
    """The error of a start that failed carries nginx's own words."""
    with pytest.raises(RuntimeError, match="number of connections"), serving_nginx(tmp_path, limit_conn=-1):
        pass


def test_the_signer_used_as_oracle_is_the_documented_one() -> None:
    """The SDK's signer gives the published signature, with and without an STS token."""
    vectors = {
        (1702743657, None): "e21d18daa82167720f9b1047ae7e7f1ce7cb77a31e8203a7d5f4624fa0284afe",
        (1702784856, "token"): "b94a3f999cf85bcdc00d332fbd3734ba03e48382c36fa4d5af5df817395bd9ea",
    }
    query = "param1=value1&%2Bparam1=value3&%7Cparam1=value4&%2Bparam2&%7Cparam2&param2"
    headers = {"x-oss-head1": "value", "abc": "value", "ZAbc": "value", "XYZ": "value", "content-type": "text/plain"}
    for (time, token), signature in vectors.items():
        request = oss.types.HttpRequest("PUT", f"http://host/?{query}", headers)
        context = oss.types.SigningContext("oss", "cn-hangzhou", "bucket", "1234+-/123/1.txt", request)
        context.credentials = oss.credentials.Credentials("ak", "sk", token)
        context.signing_time = oss.types.datetime.datetime.fromtimestamp(time, oss.types.datetime.timezone.utc)
        SignerV4().sign(context)
        assert request.headers["Authorization"].endswith(f"Signature={signature}")


@pytest.mark.parametrize("key", ["key", "a/b c", "a+b", "100%", "%41", "日本/ü", "a//b", "?#&="])
def test_oss_serves_any_key_to_the_official_client(key: str) -> None:
    """Keys are percent-decoded exactly once and the signatures of the SDK are accepted."""
    with serving_oss({key: DATA}, keys=[KEY, STS]) as server:
        for credentials in (KEY, STS):
            with sdk(server, credentials) as client:
                result, got = get(client, key, range_header="bytes=4-7")
                assert (result.status_code, got) == (206, DATA[4:8])
                head = client.head_object(oss.HeadObjectRequest(bucket="bucket", key=key))
                assert (head.content_length, head.hash_crc64) == (len(DATA), result.hash_crc64)
                assert get(client, key)[1] == DATA  # the SDK checks the CRC-64 of a whole object itself


def test_oss_addresses_by_virtual_host_and_cname_through_a_proxy() -> None:
    """Names that resolve nowhere work in absolute form, and the true names of OSS forbid path style."""
    with serving_oss({"key": DATA}, cnames=["data.example"]) as server:
        proxy, endpoint = server.url(""), "http://oss-cn-hangzhou.aliyuncs.com"
        with sdk(server, proxy=proxy, endpoint=endpoint, use_path_style=False) as client:
            assert get(client)[1] == DATA
        assert server.log[-1].target == "http://bucket.oss-cn-hangzhou.aliyuncs.com/key"
        with sdk(server, proxy=proxy, endpoint=endpoint) as client:
            assert refused(client).code == "SecondLevelDomainForbidden"
        with sdk(server, proxy=proxy, endpoint="http://data.example", use_path_style=False, use_cname=True) as client:
            assert get(client)[1] == DATA
        assert server.log[-1].target == "http://data.example/key"


def test_oss_refuses_what_oss_refuses() -> None:
    """Each bad credential, clock and object ends in its own code, with a request id and an EC."""
    with serving_oss({"key": DATA, "cold": Stored(DATA, archived=True)}, keys=[KEY, STS]) as server:
        with sdk(server, AccessKey(KEY.id, "wrong")) as client:
            error = refused(client)
            assert (error.status_code, error.code) == (403, "SignatureDoesNotMatch")
            assert len(error.request_id) == 24
            assert error.ec == "0002-00000201"
        with sdk(server, AccessKey("nobody", "wrong")) as client:
            assert refused(client).code == "InvalidAccessKeyId"
        with sdk(server, AccessKey(STS.id, STS.secret, "other")) as client:
            assert refused(client).code == "InvalidSecurityToken"
        with sdk(server, STS) as client:
            assert refused(client, "missing").code == "NoSuchKey"
            assert refused(client, "cold").code == "InvalidObjectState"
            server.clock_offset = timedelta(minutes=16)
            assert refused(client).code == "RequestTimeTooSkewed"
            server.clock_offset = timedelta(0)
            server.expire_keys()
            assert refused(client).code == "SecurityTokenExpired"
        response, got = fetch(server.url("/bucket/key"))
        assert (response.status, b"<Code>AccessDenied</Code>" in got) == (403, True)


def test_a_head_of_oss_carries_its_error_in_a_field() -> None:
    """The XML that HEAD cannot have is in x-oss-err, where the SDK finds it."""
    with serving_oss({}) as server, sdk(server) as client:
        with pytest.raises(oss.exceptions.OperationError) as caught:
            client.head_object(oss.HeadObjectRequest(bucket="bucket", key="missing"))
        assert (caught.value.unwrap().status_code, caught.value.unwrap().code) == (404, "NoSuchKey")


@pytest.mark.parametrize(
    ("asked", "loose", "standard"),
    [
        (f"bytes=4-{len(DATA)}", 200, 206),
        (f"bytes={len(DATA)}-", 200, 416),
        ("bytes=7-4", 200, 200),
        ("bytes=-4", 206, 206),
    ],
)
def test_oss_ranges_past_the_end_are_ignored_unless_standard(asked: str, loose: int, standard: int) -> None:
    """Without x-oss-range-behavior a range past the end is 200 and the whole object."""
    strict = {"Range": asked, "x-oss-range-behavior": "standard"}
    with serving_oss({"key": Stored(DATA, public=True)}) as server:
        assert fetch(server.url("/bucket/key"), {"Range": asked})[0].status == loose
        assert fetch(server.url("/bucket/key"), strict)[0].status == standard


def test_oss_conditions_versions_and_crc() -> None:
    """If-Match holds across a replacement, an old version stays readable by its id, a CRC may lie or be missing."""
    with serving_oss({"key": Stored(DATA, version_id="1", crc=Crc.MISSING)}) as server, sdk(server) as client:
        first, _ = get(client)
        assert (first.version_id, first.hash_crc64) == ("1", None)
        assert get(client, if_match=first.etag)[1] == DATA
        server.put("key", Stored(DATA[::-1], etag='"other"', version_id="2", crc=Crc.WRONG))
        assert refused(client, if_match=first.etag).status_code == 412
        assert get(client, version_id="1")[1] == DATA
        assert refused(client, version_id="3").code == "NoSuchVersion"
        second, got = get(client, range_header="bytes=0-0")
        assert (second.version_id, got) == ("2", DATA[-1:])
        server.delete("key")
        assert refused(client).code == "NoSuchKey"


def test_oss_covers_the_additional_headers_that_a_signature_lists() -> None:
    """A Range that was signed cannot be changed on the way."""
    with serving_oss({"key": DATA}) as server:
        request = oss.types.HttpRequest("GET", server.url("/bucket/key"), {"range": "bytes=4-7"})
        context = oss.types.SigningContext("oss", server.region, "bucket", "key", request)
        context.credentials = oss.credentials.Credentials(KEY.id, KEY.secret)
        context.additional_headers = {"range"}
        SignerV4().sign(context)
        assert "AdditionalHeaders=range" in request.headers["Authorization"]
        assert fetch(request.url, request.headers)[1] == DATA[4:8]
        assert b"SignatureDoesNotMatch" in fetch(request.url, dict(request.headers) | {"range": "bytes=4-8"})[1]


@pytest.mark.parametrize("key", [KEY, STS])
def test_oss_presigned_urls(key: AccessKey) -> None:
    """A presigned URL works as it is, dies of an added x-oss header, of its time and of its key."""
    with serving_oss({"a b": DATA}, keys=[key]) as server, sdk(server, key) as client:
        url = urlsplit(client.presign(oss.GetObjectRequest(bucket="bucket", key="a b"), expires=timedelta(hours=1)).url)
        with connect(server.url()) as plain:
            target = f"{url.path}?{url.query}"
            assert ask(plain, target, RANGE)[1] == DATA[4:8]
            assert b"SignatureDoesNotMatch" in ask(plain, target, {"x-oss-range-behavior": "standard"})[1]
            assert b"SignatureDoesNotMatch" in ask(plain, f"{target}&more=1")[1]
            server.clock_offset = timedelta(minutes=61)
            assert b"Request has expired." in ask(plain, target)[1]
            server.clock_offset = timedelta(0)
            server.keys = (AccessKey("new", "new"),)
            assert b"InvalidAccessKeyId" in ask(plain, target)[1]


def test_oss_takes_scripted_faults() -> None:
    """Network faults and OSS errors hit chosen requests of an otherwise right endpoint."""
    faults = {1: refusing(503, "ServiceUnavailable"), 2: scripted.truncate_after(10)}
    with serving_oss({"key": DATA}, faults=faults) as server, sdk(server) as client:
        error = refused(client)
        assert (error.status_code, error.code) == (503, "ServiceUnavailable")
        with pytest.raises(Exception, match=r"IncompleteRead|Connection broken"):
            get(client)
        assert get(client)[1] == DATA
