"""Objects of plain web servers through the real command: every size and framing, redirects, names, exit codes."""

from __future__ import annotations

import base64
import hashlib
import random
from typing import TYPE_CHECKING, Any

import pytest
from fastcrc import crc64

import fastdl
from fastdl.retry import Backoff
from tests.e2e.command import left_to_workers, names, run
from tests.servers import scripted
from tests.servers.nginx import serving_nginx
from tests.servers.scripted import (
    Exchange,
    Handler,
    Pattern,
    chunked,
    ignores_range,
    no_length,
    ranged,
    routes,
    script,
    serving,
)
from tests.servers.tls import certificate

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PART = 16 * 1024
DATA = random.Random(4).randbytes(20 * PART + 11)
SIZES = (0, 1, PART - 1, PART, PART + 1, 7 * PART, 7 * PART + 1)
CHECKSUM = f"sha256={hashlib.sha256(DATA).hexdigest()}"
WRONG = "sha256=" + "0" * 64


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let retries in this process wait for milliseconds."""
    monkeypatch.setattr("fastdl.api.make_backoff", lambda retry: Backoff(attempts=retry + 1, base=0.01))


@pytest.mark.parametrize("size", SIZES)
def test_every_size(tmp_path: Path, size: int) -> None:
    """Around zero, one and the part size the file is exactly the object, and the parts are as many as they must be."""
    with serving(ranged(DATA[:size])) as server:
        result = fastdl.download(server.url(), tmp_path / "out", part_size=PART)
    assert (tmp_path / "out").read_bytes() == DATA[:size]
    assert names(tmp_path) == {"out"}
    assert (result.size, result.parts, result.integrity) == (size, -(-size // PART), "length")
    assert (result.crc64, result.bytes_fetched) == (crc64.xz(DATA[:size]), size)


@pytest.mark.parametrize("size", [PART + 1, 2 * PART, 7 * PART + 1])
def test_every_size_by_workers(tmp_path: Path, size: int) -> None:
    """The same when all but the first part come from other processes."""
    with serving(script(left_to_workers(PART, 2), otherwise=ranged(DATA[:size]))) as server:
        outcome = run(server.url(), "-o", "out", "-p", "16K", cwd=tmp_path)
    assert outcome.code == 0
    assert (tmp_path / "out").read_bytes() == DATA[:size]
    assert outcome.last["crc64"] == f"{crc64.xz(DATA[:size]):016x}"


@pytest.mark.parametrize("length", [10, 9, 100, None])
@pytest.mark.parametrize(
    "value", ["bytes 0-9/100", "bytes 0-9/10", "bytes 5-14/100", "bytes 0-99/100", "bytes 0-9/*", "x"]
)
@pytest.mark.parametrize("status", [200, 206, 203])
def test_a_piece_is_never_published_as_the_whole(tmp_path: Path, status: int, value: str, length: int | None) -> None:
    """Whatever status, Content-Range and length say to the first request, a file is the object or there is none."""
    whole = DATA[:100]
    size = 10 if value.endswith("/10") else 100

    def answer(exchange: Exchange) -> None:
        if exchange.request.number > 1:
            ranged(whole[:size], etag=None, last_modified=None)(exchange)
        elif length is None:
            exchange.reply(
                status, {"Content-Range": value, "Transfer-Encoding": "chunked"}, b"a\r\n%b\r\n0\r\n\r\n" % whole[:10]
            )
        else:
            exchange.reply(status, {"Content-Range": value}, whole[:length])

    with serving(answer) as server:
        try:
            result = fastdl.download(server.url(), tmp_path / "out", retry=1)
        except fastdl.ProtocolError:
            assert names(tmp_path) == set()
        else:
            assert (tmp_path / "out").read_bytes() == whole[:size]
            assert result.size == size


def test_parts_of_one_byte(tmp_path: Path) -> None:
    """The smallest part size works, over several connections too."""
    with serving(script(left_to_workers(1, 2), otherwise=ranged(DATA[:300]))) as server:
        outcome = run(server.url(), "-o", "out", "-p", "1", cwd=tmp_path)
    assert (outcome.code, outcome.last["parts"]) == (0, 300)
    assert (tmp_path / "out").read_bytes() == DATA[:300]


def test_a_large_object_by_all_workers_of_nginx(tmp_path: Path) -> None:
    """A real server, more bytes than the first answer holds, eight connections."""
    whole = Pattern((20 << 20) + 321)
    data = bytes(whole.read(0, whole.size))
    root = tmp_path / "root"
    root.mkdir()
    (root / "big.bin").write_bytes(data)
    with serving_nginx(root) as server:
        outcome = run(server.url("/big.bin"), "-p", "1M", "-x", "8", "-w", "2", cwd=tmp_path)
        assert len(server.access_log) > 8
    assert outcome.code == 0, outcome.message
    assert (tmp_path / "big.bin").read_bytes() == data
    assert outcome.last["parts"] == 21


@pytest.mark.parametrize(
    ("handler", "integrity"),
    [
        pytest.param(ignores_range(DATA), "length", id="no ranges"),
        pytest.param(ignores_range(DATA, etag=None), "length", id="no ranges, no validator"),
        pytest.param(chunked(DATA), "none", id="chunked"),
        pytest.param(no_length(DATA), "none", id="ended by the connection"),
        pytest.param(no_length(DATA, {"Content-Length": str(len(DATA))}), "length", id="HTTP/1.0"),
    ],
)
def test_one_ordered_stream(tmp_path: Path, handler: Handler, integrity: str) -> None:
    """A server without ranges gives the object in one answer; the result claims no more than was promised."""
    with serving(handler) as server:
        outcome = run(server.url(), "-o", "out", cwd=tmp_path)
        assert len(server.log) == 1
    assert outcome.code == 0, outcome.message
    assert (tmp_path / "out").read_bytes() == DATA
    assert names(tmp_path) == {"out"}
    assert (outcome.last["integrity"], outcome.last["size"]) == (integrity, len(DATA))
    assert (outcome.last["parts"], outcome.last["crc64"]) == (0, f"{crc64.xz(DATA):016x}")


@pytest.mark.parametrize(
    "handler",
    [ignores_range(b""), chunked(b""), no_length(b""), ignores_range(b"", etag=None)],
    ids=["no ranges", "chunked", "ended by the connection", "no validator"],
)
def test_the_empty_object_in_every_framing(tmp_path: Path, handler: Handler) -> None:
    """No bytes are an object as well."""
    with serving(handler) as server:
        result = fastdl.download(server.url(), tmp_path / "out")
    assert (result.size, (tmp_path / "out").read_bytes()) == (0, b"")
    assert names(tmp_path) == {"out"}


def test_a_range_of_unknown_total_is_asked_for_as_a_whole(tmp_path: Path) -> None:
    """``bytes 0-9/*`` does not say how long the object is: the whole of it is asked for instead."""
    odd = scripted.wrong_content_range(f"bytes 0-{len(DATA) - 1}/*")
    with serving(script({1: odd}, otherwise=ranged(DATA))) as server:
        outcome = run(server.url(), "-o", "out", cwd=tmp_path)
    assert outcome.code == 0, outcome.message
    assert (tmp_path / "out").read_bytes() == DATA


@pytest.mark.parametrize(
    "handler",
    [
        pytest.param(chunked(DATA, last=b""), id="chunked without its last chunk"),
        pytest.param(chunked(DATA, last=b"ff\r\nshort"), id="chunked, cut off"),
        pytest.param(chunked(DATA, last=b"zz\r\n"), id="chunked, bad size"),
        pytest.param(
            script(dict.fromkeys(range(1, 9), scripted.truncate_after(1000)), otherwise=ignores_range(DATA)),
            id="shorter than promised",
        ),
    ],
)
def test_a_stream_without_its_proper_end_is_no_object(tmp_path: Path, handler: Handler) -> None:
    """What cannot be known to be whole is not published: an error of the network and no file."""
    with serving(handler) as server:
        with pytest.raises(fastdl.NetworkError):
            fastdl.download(server.url(), tmp_path / "out", retry=1)
        assert len(server.log) == 2
    assert names(tmp_path) == set()


def test_a_stream_without_its_proper_end_is_exit_code_5(tmp_path: Path) -> None:
    """The command says so in one line."""
    with serving(chunked(DATA, last=b"")) as server:
        outcome = run(server.url(), "-o", "out", "-q", "--retry", "0", cwd=tmp_path)
    assert (outcome.code, len(outcome.stderr.splitlines())) == (5, 1)
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    "fault", [scripted.truncate_after(100_000), scripted.reset_after(100_000), scripted.status(503)]
)
@pytest.mark.parametrize("framing", [ignores_range, chunked], ids=["no ranges", "chunked"])
def test_a_stream_that_breaks_is_begun_again(tmp_path: Path, fault: Handler, framing: Any) -> None:
    """An ordered stream has no parts: it starts at its first byte again and is still exact."""
    with serving(script({1: fault}, otherwise=framing(DATA))) as server:
        result = fastdl.download(server.url(), tmp_path / "out", retry=1)
    assert (tmp_path / "out").read_bytes() == DATA
    assert result.retries == 1


def test_a_stream_that_comes_back_shorter_leaves_no_old_bytes(tmp_path: Path) -> None:
    """A second attempt that is shorter than what the first one had already written is not padded by it."""
    handler = script({1: chunked(DATA, last=b"")}, otherwise=chunked(DATA[:5000]))
    with serving(handler) as server:
        result = fastdl.download(server.url(), tmp_path / "out", retry=1)
    assert result.size == 5000
    assert (tmp_path / "out").read_bytes() == DATA[:5000]


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_host_carries_no_secret(tmp_path: Path, code: int) -> None:
    """The user's headers go to the user's own origin alone; later requests go to the target at once."""
    secret = {"Authorization": "Bearer canary", "X-Api-Key": "canary", "Cookie": "canary"}
    right = script(left_to_workers(PART, 2), otherwise=ranged(DATA))
    with serving(right) as target, serving(scripted.redirect(target.url("/elsewhere?x=1"), code)) as origin:
        fastdl.download(origin.url(), tmp_path / "out", part_size=PART, headers=secret, workers=1)
        assert len(origin.log) == 1
        assert origin.log[0].headers["authorization"] == "Bearer canary"
        assert {seen.target for seen in target.log} == {"/elsewhere?x=1"}
        assert not any(b"canary" in seen.raw for seen in target.log)
    assert (tmp_path / "out").read_bytes() == DATA


def test_a_redirect_within_the_origin_keeps_the_headers(tmp_path: Path) -> None:
    """Scheme, host and port are the same: it is still the server that the user named."""
    handlers = {"/object": scripted.redirect("there"), "/there": ranged(DATA)}
    with serving(routes(handlers)) as server:
        outcome = run(server.url(), "-o", "out", "-H", "X-Api-Key: mine", cwd=tmp_path)
        assert outcome.code == 0
        assert [seen.headers["x-api-key"] for seen in server.log] == ["mine", "mine"]


def test_userinfo_is_sent_as_authorization_and_not_to_a_redirects_target(tmp_path: Path) -> None:
    """``user:password@`` becomes basic authentication for that origin only."""
    with serving(ranged(DATA)) as target, serving(scripted.redirect(target.url())) as origin:
        url = origin.url().replace("://", "://us%40er:pass%3Aword@")
        outcome = run(url, "-o", "out", cwd=tmp_path)
        assert outcome.code == 0, outcome.message
        assert origin.log[0].headers["authorization"] == "Basic dXNAZXI6cGFzczp3b3Jk"
        assert origin.log[0].headers["host"] == f"127.0.0.1:{origin.port}"
        assert "authorization" not in target.log[0].headers


@pytest.mark.parametrize("through_proxy", [False, True])
def test_a_login_beyond_latin_1_is_sent_in_utf_8(tmp_path: Path, *, through_proxy: bool) -> None:
    """As RFC 7617 has it; bytes of an argument that are no UTF-8 go out as they are."""
    with serving(ranged(DATA)) as server:
        login = server.url().replace("://", "://us\u0119r:p\u00e4ss\udcff@")
        url = ["http://origin.example/x", "--proxy", login] if through_proxy else [login]
        outcome = run(*url, "-o", "out", cwd=tmp_path)
        assert outcome.code == 0, outcome.message
        name = "proxy-authorization" if through_proxy else "authorization"
        sent = base64.b64decode(server.log[0].headers[name].removeprefix("Basic "))
        assert sent == "us\u0119r:p\u00e4ss".encode() + b"\xff"


@pytest.mark.parametrize(
    "arguments",
    [
        ("http://127.0.0.1:9/\udcff",),
        ("http://127.0.0.1:9/x?s3cr3t-\udcff",),
        ("http://h\udcff/x",),
        ("http://127.0.0.1:9/x", "-H", "X-Key: s3cr3t-\udcff"),
        ("http://127.0.0.1:9/x", "--proxy", "http://h\udcff:1"),
        ("http://127.0.0.1:9/x", "--proxy", "s3cr3t-\udcff"),
        ("http://127.0.0.1:9/x", "-o", "\udcff", "--retry", "0"),
        ("http://127.0.0.1:9/x", "--checksum", "sha256=\udcff"),
        ("http://127.0.0.1:9/x", "--cacert", "\udcff"),
    ],
)
def test_bytes_that_are_no_utf_8_in_any_argument(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """One line and a documented exit code, whatever it is."""
    outcome = run(*arguments, *(() if "-o" in arguments else ("-o", "out")), "--retry", "0", cwd=tmp_path)
    assert outcome.code in (2, 5), outcome.stderr
    assert "unexpected" not in outcome.stderr
    assert "s3cr3t" not in outcome.stderr
    assert names(tmp_path) == set()


def test_a_redirect_to_an_endless_url_is_refused(tmp_path: Path) -> None:
    """No server and no browser takes so long a one; what it holds is not remembered."""
    with serving(scripted.redirect("http://127.0.0.1:9/?" + "a=b&" * 3000)) as server:
        outcome = run(server.url(), "-o", "out", cwd=tmp_path)
    assert (outcome.code, "redirects to a URL of" in outcome.message) == (6, True)


def test_a_redirect_from_https_to_http_is_refused(tmp_path: Path) -> None:
    """What began encrypted is not continued in the clear: exit code 6, and nothing is asked there."""
    with (
        certificate() as pem,
        serving(ranged(DATA)) as plain,
        serving(scripted.redirect(plain.url()), tls=pem.server_context()) as secure,
    ):
        outcome = run(secure.url(), "-o", "out", "--cacert", pem.ca, cwd=tmp_path)
        assert not plain.log
    assert (outcome.code, "https to http" in outcome.message) == (6, True)
    assert names(tmp_path) == set()


def test_a_redirect_from_http_to_https_is_followed(tmp_path: Path) -> None:
    """The other way round is what most of the web does."""
    with (
        certificate() as pem,
        serving(script(left_to_workers(PART, 2), otherwise=ranged(DATA)), tls=pem.server_context()) as secure,
        serving(scripted.redirect(secure.url())) as plain,
    ):
        outcome = run(plain.url(), "-o", "out", "-p", "16K", "--cacert", pem.ca, cwd=tmp_path)
    assert outcome.code == 0, outcome.message
    assert (tmp_path / "out").read_bytes() == DATA


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_a_proxy_from_the_environment(tmp_path: Path, name: str) -> None:
    """Names that only the proxy can resolve work; its login is sent to it by every process, and to nobody else."""
    with serving(script(left_to_workers(PART, 2), otherwise=ranged(DATA))) as proxy:
        value = proxy.url("").replace("://", "://us%40er:pass@")
        url = "http://name.invalid/object?x=1"
        outcome = run(url, "-o", "out", "-p", "16K", cwd=tmp_path, variables={name: value})
        assert outcome.code == 0, outcome.message
        assert {seen.target for seen in proxy.log} == {url}
        assert {seen.headers["host"] for seen in proxy.log} == {"name.invalid"}
        assert {seen.headers["proxy-authorization"] for seen in proxy.log} == {"Basic dXNAZXI6cGFzcw=="}
    assert (tmp_path / "out").read_bytes() == DATA


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        ((), {"no_proxy": "127.0.0.1"}),
        ((), {"NO_PROXY": "*"}),
        (("--proxy", ""), {}),
    ],
)
def test_no_proxy(tmp_path: Path, arguments: tuple[str, ...], variables: Mapping[str, str]) -> None:
    """Exempted by the environment or by --proxy '' the server is asked directly."""
    with serving(ranged(DATA)) as server:
        environment = {"http_proxy": "http://127.0.0.1:1", **variables}
        outcome = run(server.url(), "-o", "out", *arguments, cwd=tmp_path, variables=environment)
        assert outcome.code == 0, outcome.message
        assert server.log[0].target == "/object"


def test_user_headers_are_sent_with_every_request(tmp_path: Path) -> None:
    """-H goes with the first request and with those of the workers; identity coding and our name are fastdl's."""
    with serving(script(left_to_workers(PART, 2), otherwise=ranged(DATA))) as server:
        command = ("-o", "out", "-p", "16K", "-H", "X-Api-Key: a: b ", "-H", "user-agent: mine", "-H", "X-Empty:")
        outcome = run(server.url(), *command, cwd=tmp_path)
        assert outcome.code == 0, outcome.message
        for seen in server.log:
            assert (seen.headers["x-api-key"], seen.headers["user-agent"]) == ("a: b", "mine")
            assert (seen.headers["x-empty"], seen.headers["accept-encoding"]) == ("", "identity")


@pytest.mark.parametrize(
    "header",
    [
        *("Range: bytes=0-1", "if-match: x", "Host: other", "Accept-Encoding: gzip", "Transfer-Encoding: chunked"),
        *(": no name", "bad name: x", "bad\tname: x", "X: a\r\nInjected: b", "X: a\x7f", "Ünicode: x"),
    ],
)
def test_headers_that_would_break_something_are_refused(tmp_path: Path, header: str) -> None:
    """Reserved names and control characters are refused before anything is asked."""
    name, _, value = header.partition(": ")
    with serving(ranged(DATA)) as server:
        with pytest.raises(fastdl.UsageError):
            fastdl.download(server.url(), tmp_path / "out", headers={name: value})
        assert not server.log


@pytest.mark.parametrize("header", ["no colon", "Range: bytes=0-1", ": no name"])
def test_headers_that_would_break_something_are_usage_errors(tmp_path: Path, header: str) -> None:
    """The command says so in one line."""
    outcome = run("http://127.0.0.1:1/x", "-H", header, cwd=tmp_path)
    assert (outcome.code, len(outcome.stderr.splitlines())) == (2, 1)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/b/model.bin", "model.bin"),
        ("/a%20b.bin?x=/y#z", "a b.bin"),
        ("/x/..%2f..%2fpasswd", "passwd"),
        ("/%E6%97%A5.bin", "日.bin"),
        ("/100%25", "100%"),
    ],
)
def test_the_default_name(tmp_path: Path, path: str, name: str) -> None:
    """Without -o the file is called like the last piece of the URL's path, and lies in the directory given by -d."""
    folder = tmp_path / "folder"
    folder.mkdir()
    with serving(ranged(DATA)) as server:
        outcome = run(server.url(path), "-d", "folder", cwd=tmp_path)
        assert (outcome.code, outcome.last["path"]) == (0, str(folder / name)), outcome.stderr
    assert (folder / name).read_bytes() == DATA
    assert (names(tmp_path), names(folder)) == ({"folder"}, {name})


def test_the_default_directory(tmp_path: Path) -> None:
    """Without -d it is the current one; -o may name a directory too."""
    (tmp_path / "folder").mkdir()
    with serving(ranged(DATA)) as server:
        assert run(server.url("/a/name"), cwd=tmp_path).last["path"] == str(tmp_path / "name")
        assert run(server.url("/a/name"), "-o", "folder", cwd=tmp_path).last["path"] == str(tmp_path / "folder/name")


@pytest.mark.parametrize("path", ["", "/", "/a/", "/..", "/%2e%2e", "/.", "/a%5cb", "/a%0ab", "/c:d"])
def test_a_url_without_a_safe_name_needs_one(tmp_path: Path, path: str) -> None:
    """Nothing that could escape the directory or mean something else elsewhere is taken for a name."""
    with serving(ranged(DATA)) as server:
        with pytest.raises(fastdl.UsageError, match="-o"):
            fastdl.download(server.url(path), tmp_path)
        assert not server.log
    assert names(tmp_path) == set()


def test_directory_and_name_together(tmp_path: Path) -> None:
    """-d says where and -o what; the name that the URL has does not matter then."""
    (tmp_path / "folder").mkdir()
    with serving(ranged(DATA)) as server:
        assert run(server.url("/"), "-d", "folder", "-o", "mine", cwd=tmp_path).code == 0
    assert (tmp_path / "folder" / "mine").read_bytes() == DATA


def test_a_missing_directory_is_not_taken_for_a_file(tmp_path: Path) -> None:
    """-d names a directory: where there is none the command fails, and makes no file of that name."""
    with serving(ranged(DATA)) as server:
        outcome = run(server.url(), "-d", "missing", cwd=tmp_path)
    assert outcome.code in (2, 9), "missing became a file"
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    "checksum",
    [
        CHECKSUM,
        CHECKSUM.upper().replace("SHA256", "sha256"),
        f"crc64={crc64.xz(DATA):016x}",
        f"md5={hashlib.md5(DATA).hexdigest()}",
        f"blake2b={hashlib.blake2b(DATA).hexdigest()}",
    ],
)
def test_a_right_checksum_is_what_the_result_proves(tmp_path: Path, checksum: str) -> None:
    """The result names the algorithm that the user's own digest was compared by."""
    with serving(ranged(DATA)) as server:
        result = fastdl.download(server.url(), tmp_path / "out", checksum=checksum)
    assert result.integrity == checksum.partition("=")[0]


@pytest.mark.parametrize("handler", [ranged(DATA), ignores_range(DATA), chunked(DATA)])
def test_a_wrong_checksum_is_never_published(tmp_path: Path, handler: Handler) -> None:
    """Exit code 8, both digests in the text, nothing left; an older file stays."""
    (tmp_path / "out").write_bytes(b"older")
    with serving(handler) as server:
        outcome = run(server.url(), "-o", "out", "--checksum", WRONG, cwd=tmp_path)
    assert outcome.code == 8
    assert CHECKSUM.partition("=")[2] in outcome.message
    assert WRONG.partition("=")[2] in outcome.message
    assert names(tmp_path) == {"out"}
    assert (tmp_path / "out").read_bytes() == b"older"


def test_a_right_checksum_by_the_command(tmp_path: Path) -> None:
    """--checksum is understood as the library understands it."""
    with serving(ranged(DATA)) as server:
        outcome = run(server.url(), "-o", "out", "--checksum", CHECKSUM, cwd=tmp_path)
    assert (outcome.code, outcome.last["integrity"]) == (0, "sha256")


def test_no_clobber(tmp_path: Path) -> None:
    """-n leaves an existing file alone and asks nobody; without it the file is replaced."""
    (tmp_path / "out").write_bytes(b"older")
    with serving(ranged(DATA)) as server:
        outcome = run(server.url(), "-o", "out", "-n", cwd=tmp_path)
        assert (outcome.code, "exists" in outcome.message) == (2, True)
        assert not server.log
        assert (tmp_path / "out").read_bytes() == b"older"
        assert run(server.url(), "-o", "out", cwd=tmp_path).code == 0
        assert (tmp_path / "out").read_bytes() == DATA
        assert run(server.url(), "-o", "new", "-n", cwd=tmp_path).code == 0


def test_json_lines(tmp_path: Path) -> None:
    """Progress lines say how far it is, the last line is the result; nothing goes to standard error."""
    with serving(script(left_to_workers(PART, 2), otherwise=ranged(DATA))) as server:
        outcome = run(server.url(), "-o", "out", "-p", "16K", cwd=tmp_path)
    assert outcome.stderr == ""
    *progress, done = outcome.events
    assert progress
    for event in progress:
        assert 0 <= event["done"] <= event["size"] == len(DATA)
        assert 0 <= event["received"] <= len(DATA)
    wanted = {"path", "url", "size", "etag", "crc64", "integrity", "parts", "parts_reused", "bytes_fetched"}
    wanted |= {"requests", "retries", "seconds", "connections", "started_over", "part_size", "parts_damaged"}
    assert wanted <= set(done)
    assert (done["url"], done["etag"]) == (server.url(), '"v1"')
    assert done["path"] == str(tmp_path / "out")


@pytest.mark.parametrize("flags", [(), ("-q",)])
def test_without_a_terminal_success_is_silent(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """In a script nothing is printed but errors."""
    with serving(ranged(DATA)) as server:
        outcome = run(server.url(), "-o", "out", *flags, cwd=tmp_path, as_json=False)
    assert (outcome.code, outcome.stdout, outcome.stderr) == (0, "", "")


def test_the_long_way_to_say_it(tmp_path: Path) -> None:
    """``fastdl get URL`` is ``fastdl URL``, and flags may come first."""
    with serving(ranged(DATA)) as server:
        assert run("get", server.url(), "-o", "out", cwd=tmp_path).code == 0
        assert run("-o", "other", server.url(), cwd=tmp_path).code == 0
    assert names(tmp_path) == {"out", "other"}


@pytest.mark.parametrize("flag", ["--help", "-h", "--version"])
def test_help_is_no_error(tmp_path: Path, flag: str) -> None:
    """Help and version go to standard output, with exit code 0."""
    outcome = run(flag, cwd=tmp_path, as_json=False)
    assert (outcome.code, outcome.stderr) == (0, "")
    assert "fastdl" in outcome.stdout


OTHER = scripted.other_fields({"ETag": '"v2"'})
ERRORS: dict[str, tuple[Handler, tuple[str, ...], int]] = {
    "not found": (scripted.status(404), (), 3),
    "gone": (scripted.status(410), (), 3),
    "not authorized": (scripted.status(401), (), 4),
    "forbidden": (scripted.status(403, body=b"<html>no</html>"), (), 4),
    "busy": (scripted.status(503, {"Retry-After": "0"}), ("--retry", "1"), 5),
    "hangs up": (scripted.hang_up, ("--retry", "0"), 5),
    "resets": (scripted.reset, ("--retry", "0"), 5),
    "silent": (scripted.stall_before_head(), ("--retry", "0", "--read-timeout", "0.5"), 5),
    "out of time": (script({1: scripted.stall_after(10)}, otherwise=ranged(DATA)), ("--max-time", "0.7"), 5),
    "teapot": (scripted.status(418), (), 6),
    "no content": (scripted.status(204), (), 6),
    "no http": (scripted.raw(b"220 ftp ready\r\n"), (), 6),
    "coded": (script(dict.fromkeys(range(1, 9), scripted.gzip_coded()), otherwise=ranged(DATA)), (), 6),
    "changed": (script({1: scripted.short_206(PART), 2: OTHER}, otherwise=ranged(DATA)), (), 7),
    "wrong checksum": (ranged(DATA), ("--checksum", WRONG), 8),
    "no such directory": (ranged(DATA), ("-o", "missing/out"), 9),
}


@pytest.mark.parametrize(("handler", "arguments", "code"), [pytest.param(*ERRORS[name], id=name) for name in ERRORS])
def test_every_failure_is_one_line_and_its_exit_code(
    tmp_path: Path, handler: Handler, arguments: tuple[str, ...], code: int
) -> None:
    """The line names the URL, without its query's values, or the path; JSON tells the same; there is no file."""
    with serving(handler) as server:
        outcome = run(server.url("/object?key=hidden"), "-o", "out", "-p", "16K", *arguments, cwd=tmp_path)
        assert outcome.code == code, outcome.message
        assert len(outcome.stderr.splitlines()) == 1
        assert (server.url() in outcome.message) != (code == 9)
    assert "hidden" not in outcome.stdout + outcome.stderr
    assert "out" not in names(tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("http://127.0.0.1:1/x", "--no-such-flag"),
        ("http://127.0.0.1:1/x", "-p", "0"),
        ("http://127.0.0.1:1/x", "-p", "6G"),
        ("http://127.0.0.1:1/x", "-p", "many"),
        ("http://127.0.0.1:1/x", "-p", "-1"),
        ("http://127.0.0.1:1/x", "-x", "0"),
        ("http://127.0.0.1:1/x", "-w", "0"),
        ("http://127.0.0.1:1/x", "-w", "4", "-x", "2"),
        ("http://127.0.0.1:1/x", "--retry", "-1"),
        ("http://127.0.0.1:1/x", "--read-timeout", "0"),
        ("http://127.0.0.1:1/x", "--read-timeout", "nan"),
        ("http://127.0.0.1:1/x", "--connect-timeout", "inf"),
        ("http://127.0.0.1:1/x", "--max-time", "-1"),
        ("http://127.0.0.1:1/x", "--resume", "maybe"),
        ("http://127.0.0.1:1/x", "--checksum", "sha256=abc"),
        ("http://127.0.0.1:1/x", "--checksum", "crc99=00"),
        ("http://127.0.0.1:1/x", "--proxy", "socks5://127.0.0.1:1"),
        ("https://127.0.0.1:1/x", "--cacert", "missing.pem"),
        ("https://127.0.0.1:1/x", "--cacert", "/dev/null"),
        ("http://127.0.0.1:99999/x",),
        ("http:///x",),
        ("http://[::1/x",),
        ("http://a\nb/x",),
        ("ftp://127.0.0.1/x",),
        ("file:///etc/passwd",),
        ("/etc/passwd",),
        ("",),
    ],
)
def test_usage_errors_are_one_line_and_exit_code_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """What cannot be meant is refused before anything is touched."""
    outcome = run(*arguments, cwd=tmp_path)
    assert (outcome.code, len(outcome.stderr.splitlines())) == (2, 1), outcome.stderr
    assert names(tmp_path) == set()
