"""The public faults of this field's tools, each as the rule that it leaves us."""

from __future__ import annotations

import gzip
import os
import random
import stat
from typing import TYPE_CHECKING

import pytest

import fastdl
from fastdl.urls import split_url
from tests.e2e.command import left_to_workers, names, run
from tests.servers.scripted import Exchange, Handler, ranged, redirect, routes, script, serving, status

if TYPE_CHECKING:
    from pathlib import Path

PART = 16 * 1024
DATA = random.Random(4).randbytes(20 * PART + 3)


def test_curl_2020_8177_no_header_chooses_a_file(tmp_path: Path) -> None:
    """Content-Disposition (also pip 2019-20916) and -J's kin: what lies in the directory is not overwritten."""
    (tmp_path / ".bashrc").write_text("mine")
    fields = {
        "Content-Disposition": "attachment; filename=.bashrc",
        "Location": "/.bashrc",
        "Refresh": "0; url=/.bashrc",
    }
    with serving(ranged(DATA, extra_headers=fields)) as server:
        fastdl.download(server.url("/model"), tmp_path)
    assert names(tmp_path) == {".bashrc", "model"}
    assert (tmp_path / ".bashrc").read_text() == "mine"


@pytest.mark.parametrize("path", ["/a/../../.ssh/id", "/a/%2e%2e%2f%2e%2e%2f.ssh%2fid"])
def test_wget_2010_2252_2016_4971_the_name_is_the_users(tmp_path: Path, path: str) -> None:
    """A redirect to another name changes none, and the user's own never leaves the directory (aria2 2010-1512)."""
    handlers: dict[str, Handler] = {"/model": redirect("/.wgetrc"), "/.wgetrc": ranged(DATA), path: ranged(DATA)}
    with serving(routes(handlers)) as server:
        fastdl.download(server.url("/model"), tmp_path)
        fastdl.download(server.url(path), tmp_path)
    assert names(tmp_path) == {"model", "id"}


@pytest.mark.parametrize("scheme", ["file", "FILE", "ftp", "gopher", "scp", "dict", "ldap", "data", "javascript"])
def test_curl_2009_0037_only_http_and_https(tmp_path: Path, scheme: str) -> None:
    """Neither asked for by a redirect nor by the user."""
    location = f"{scheme}:///etc/passwd"
    with serving(redirect(location)) as server, pytest.raises(fastdl.ProtocolError):
        fastdl.download(server.url(), tmp_path / "out")
    with pytest.raises(fastdl.UsageError):
        fastdl.download(location, tmp_path / "out")
    assert names(tmp_path) == set()


NETRC = "\n".join(f"{who} login user password s3cr3t" for who in ("machine 127.0.0.1", "machine localhost", "default"))


def test_curl_2024_11053_requests_2024_47081_no_netrc(tmp_path: Path) -> None:
    """It is read for nobody: not for the first host, not after a redirect, not where the URL names a login."""
    home, folder = tmp_path / "home", tmp_path / "to"
    folder.mkdir()
    home.mkdir()
    (home / ".netrc").write_text(NETRC)
    (home / ".netrc").chmod(0o600)
    variables = {"HOME": str(home), "NETRC": str(home / ".netrc")}
    with serving(ranged(DATA)) as other:
        with serving(redirect(other.url().replace("127.0.0.1", "localhost"))) as server:
            for url in (server.url(), server.url().replace("://", "://user@")):
                assert run(url, "-o", "out", cwd=folder, variables=variables).code == 0
            assert [seen.headers.get("authorization") for seen in server.log] == [None, "Basic dXNlcjo="]
        assert not any(b"authorization" in seen.raw.lower() for seen in other.log)


def test_requests_2015_2296_no_cookie_is_kept(tmp_path: Path) -> None:
    """There is no jar: what a server sets goes back to nobody, and the user's own Cookie to its origin alone."""
    fields = {"Set-Cookie": "session=planted; Domain=127.0.0.1; Path=/"}

    def first(exchange: Exchange) -> None:
        exchange.reply(302, fields | {"Location": "/second"})

    handlers: dict[str, Handler] = {"/object": first, "/second": ranged(DATA, extra_headers=fields)}
    with serving(routes(handlers)) as server:
        fastdl.download(server.url(), tmp_path / "out", headers={"Cookie": "own=1"}, part_size=PART)
        assert {seen.headers["cookie"] for seen in server.log} == {"own=1"}


def test_urllib3_2023_43804_and_proxies_strip_too(tmp_path: Path) -> None:
    """Redirected through a proxy (GHSA-qccp-gfcp-xxvc), in any spelling (2018-25091), by name of header or not."""

    def handle(exchange: Exchange) -> None:
        if exchange.request.target.startswith("http://first.invalid/"):
            exchange.reply(302, {"Location": "http://second.invalid/x"})
        else:
            ranged(DATA)(exchange)

    secrets = {"aUtHoRiZaTiOn": "s3cr3t", "cOOkie": "s3cr3t", "X-Odd": "s3cr3t", "Proxy-Authorization": "s3cr3t"}
    with serving(handle) as server:
        fastdl.download("http://first.invalid/x", tmp_path / "out", headers=secrets, proxy=server.url(""))
        for seen in server.log:
            assert (b"s3cr3t" in seen.raw) == seen.target.startswith("http://first.invalid/")


def test_requests_2023_32681_proxy_credentials_stay_with_their_proxy(tmp_path: Path) -> None:
    """The target of a tunnel never sees them, nor does another call's proxy (curl 2026-6253)."""
    with serving(ranged(DATA)) as one, serving(ranged(DATA)) as other:
        first = one.url("").replace("://", "://user:s3cr3t@")
        fastdl.download("http://name.invalid/x", tmp_path / "out", proxy=first)
        fastdl.download("http://name.invalid/x", tmp_path / "out", proxy=other.url(""))
        fastdl.download(other.url(), tmp_path / "out", proxy="")
        assert all("proxy-authorization" in seen.headers for seen in one.log)
        assert not any("proxy-authorization" in seen.headers for seen in other.log)


def test_curl_2021_22923_a_second_url_gets_no_credentials_of_the_first(tmp_path: Path) -> None:
    """A checksum file elsewhere is asked for without the headers that go with the object."""
    headers = {"Authorization": "s3cr3t"}
    with serving(status(200, body=f"{'0' * 64}  other\n".encode())) as sums, serving(ranged(DATA)) as server:
        with pytest.raises(fastdl.UsageError, match="has no digest"):
            fastdl.download(server.url(), tmp_path / "out", headers=headers, checksum_file=sums.url("/SUMS"))
        assert not any(b"s3cr3t" in seen.raw for seen in sums.log)
        assert sums.log


def test_curl_2022_32207_rclone_2024_52522_modes(tmp_path: Path) -> None:
    """What is replaced stays as closed as it was; what a link leads to is neither written nor changed in mode."""
    output, target = tmp_path / "out", tmp_path / "target"
    output.write_bytes(b"older")
    output.chmod(0o600)
    target.write_bytes(b"precious")
    target.chmod(0o640)
    with serving(ranged(DATA)) as server:
        fastdl.download(server.url(), output)
        (tmp_path / "link").symlink_to(target)
        with pytest.raises(fastdl.UsageError):
            fastdl.download(server.url(), tmp_path / "link")
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    assert (target.read_bytes(), stat.S_IMODE(target.stat().st_mode)) == (b"precious", 0o640)


def test_wget_2018_20483_no_url_is_kept_with_the_file(tmp_path: Path) -> None:
    """No extended attributes: a URL may hold a password."""
    with serving(ranged(DATA)) as server:
        fastdl.download(server.url().replace("://", "://user:s3cr3t@"), tmp_path / "out")
    assert os.listxattr(tmp_path / "out") == []


def test_aria2_2019_3500_no_log_tells_a_password(tmp_path: Path) -> None:
    """Whatever -v tells of a run of several workers."""
    with serving(script(left_to_workers(PART, 2), otherwise=ranged(DATA))) as server:
        url = server.url().replace("://", "://user:s3cr3t@")
        outcome = run(url, "-o", "out", "-v", "-p", str(PART), cwd=tmp_path)
    assert outcome.code == 0
    assert "s3cr3t" not in outcome.stderr + outcome.stdout


@pytest.mark.parametrize(
    "url",
    [
        *("127.0.0.1:80/x", "localhost/x", "user@host:path", "//host/x", "http:host/x", "http:/host/x", "http://@/x"),
        *("http://a b/", "http://host\\@other/", "http://host:80:80/", "http://[::1/", "http://", "http://:80/"),
    ],
)
def test_wget_2024_10524_2024_38428_no_lax_urls(tmp_path: Path, url: str) -> None:
    """No shorthand, and nothing whose host two parsers could read differently."""
    with pytest.raises(fastdl.UsageError):
        fastdl.download(url, tmp_path / "out", retry=0, connect_timeout=1)


@pytest.mark.parametrize(
    "url", ["http://user;x:pw@host/", "http://user:p;w@host/", "http://a@b@host/", "http://u:p:q@host/"]
)
def test_wget_2024_38428_the_host_stands_behind_the_last_at(url: str) -> None:
    """Semicolons, colons and signs in a login are the login's."""
    assert split_url(url).hostname == "host"


@pytest.mark.parametrize("codings", ["gzip", "gzip, " * 99 + "gzip"])
def test_curl_2023_23916_urllib3_bombs_nothing_is_decoded(tmp_path: Path, codings: str) -> None:
    """Neither in a body, nor in one that is only drained, of a redirect or a refusal."""
    bomb = gzip.compress(bytes(1 << 24))

    def handle(exchange: Exchange) -> None:
        fields = {"Content-Encoding": codings, "Location": "/next"}
        exchange.reply(302 if exchange.request.target == "/object" else 200, fields, bomb)

    with serving(handle) as server, pytest.raises(fastdl.ProtocolError, match="content coding"):
        fastdl.download(server.url(), tmp_path / "out")
    assert names(tmp_path) == set()


def test_pip_2013_1888_nothing_is_written_outside_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No predictable name in a shared temporary directory: the only files are OUT, OUT.part and OUT.cp."""
    shared, folder = tmp_path / "tmp", tmp_path / "to"
    shared.mkdir()
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(shared))
    seen: set[str] = set()

    def looking(exchange: Exchange) -> None:
        seen.update(names(folder))
        assert names(shared) == set()
        ranged(DATA)(exchange)

    with serving(looking) as server:
        outcome = run(server.url(), "-o", "out", "-p", str(PART), cwd=folder, variables={"TMPDIR": str(shared)})
    assert outcome.code == 0
    assert seen <= {"out.part", "out.cp"}
    assert names(folder) == {"out"}
