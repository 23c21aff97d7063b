"""Over TLS: whom the command trusts, whom it does not, and connections that end without saying so."""

from __future__ import annotations

import random
import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import trustme

from tests.e2e.command import left_to_workers, names, run
from tests.servers import scripted
from tests.servers.nginx import serving_nginx
from tests.servers.scripted import Exchange, Handler, chunked, no_length, ranged, script, serving
from tests.servers.tls import Certificate, certificate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PART = 16 * 1024
DATA = random.Random(5).randbytes(20 * PART + 5)
COMMAND = ("-o", "out", "-p", str(PART), "-x", "3", "-w", "2", "--retry", "2")


@pytest.fixture(scope="module")
def pem() -> Iterator[Certificate]:
    """One authority and one certificate for 127.0.0.1 and localhost."""
    with certificate() as made:
        yield made


@pytest.mark.parametrize("how", ["--cacert", "SSL_CERT_FILE", "--insecure"])
def test_a_trusted_server(tmp_path: Path, pem: Certificate, how: str) -> None:
    """The authority given by flag or environment is trusted by all processes; --insecure is silent."""
    flags = {"--cacert": ("--cacert", str(pem.ca)), "--insecure": ("--insecure",)}.get(how, ())
    variables = {"SSL_CERT_FILE": str(pem.ca)} if how == "SSL_CERT_FILE" else {}
    handler = script(left_to_workers(PART, 3), otherwise=ranged(DATA))
    with serving(handler, tls=pem.server_context()) as server:
        outcome = run(server.url(), *COMMAND, *flags, cwd=tmp_path, variables=variables)
        assert len(server.log) > 3
    assert (outcome.code, outcome.stderr) == (0, "")
    assert (tmp_path / "out").read_bytes() == DATA


def test_insecure_where_warnings_are_errors(tmp_path: Path, pem: Certificate) -> None:
    """What the user asked for is warned of by nobody, in the command and in its workers."""
    handler = script(left_to_workers(PART, 3), otherwise=ranged(DATA))
    with serving(handler, tls=pem.server_context()) as server:
        outcome = run(server.url(), *COMMAND, "--insecure", cwd=tmp_path, variables={"PYTHONWARNINGS": "error"})
    assert (outcome.code, outcome.stderr) == (0, "")
    assert (tmp_path / "out").read_bytes() == DATA


def test_nginx_over_tls(tmp_path: Path, pem: Certificate) -> None:
    """A real server's TLS, by eight connections."""
    data = DATA * 40
    root = tmp_path / "root"
    root.mkdir()
    (root / "big").write_bytes(data)
    with serving_nginx(root, tls=pem) as server:
        outcome = run(server.url("/big"), "--cacert", pem.ca, "-p", "1M", cwd=tmp_path)
    assert outcome.code == 0, outcome.message
    assert (tmp_path / "big").read_bytes() == data


def refused(server: scripted.Server, folder: Path, *flags: str | Path) -> str:
    """Check that nothing is asked of a server that is not trusted, and that one line says so."""
    outcome = run(server.url(), *COMMAND, *flags, cwd=folder)
    assert outcome.code == 6, outcome.message
    assert len(outcome.stderr.splitlines()) == 1
    assert "certificate" in outcome.message
    assert (server.log, server.connections) == ((), 1)
    assert names(folder) == set()
    return outcome.message


def test_an_unknown_authority_is_refused(tmp_path: Path, pem: Certificate) -> None:
    """By default the system's authorities count; the text names the flag for others."""
    with serving(ranged(DATA), tls=pem.server_context()) as server:
        assert "--cacert" in refused(server, tmp_path)
    with certificate() as other, serving(ranged(DATA), tls=pem.server_context()) as server:
        refused(server, tmp_path, "--cacert", other.ca)


def test_a_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    """The right authority does not help a server of the wrong name."""
    with certificate("other.example") as other, serving(ranged(DATA), tls=other.server_context()) as server:
        assert "match" in refused(server, tmp_path, "--cacert", other.ca)


def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    """Neither does it help a server whose certificate is of yesterday."""
    folder = tmp_path / "pem"
    folder.mkdir()
    authority = trustme.CA()
    now = datetime.now(UTC)
    issued = authority.issue_cert("127.0.0.1", not_before=now - timedelta(days=9), not_after=now - timedelta(days=1))
    authority.cert_pem.write_to_path(folder / "ca.pem")
    issued.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "server.pem")
    out = tmp_path / "out"
    out.mkdir()
    with serving(ranged(DATA), tls=context) as server:
        assert "expired" in refused(server, out, "--cacert", folder / "ca.pem")


@pytest.mark.parametrize(
    "fault",
    [scripted.truncate_after(1000), scripted.truncate_after(70_000), scripted.reset_after(1000), scripted.hang_up],
    ids=["early", "after progress", "reset", "before the head"],
)
def test_a_connection_that_ends_without_close_notify_is_continued(
    tmp_path: Path, pem: Certificate, fault: Handler
) -> None:
    """A truncated body over TLS is truncated, whatever the TLS library thinks of it."""
    handler = script(left_to_workers(PART, 3, {2: fault}), otherwise=ranged(DATA))
    with serving(handler, tls=pem.server_context()) as server:
        outcome = run(server.url(), *COMMAND, "--cacert", pem.ca, cwd=tmp_path)
    assert outcome.code == 0, outcome.message
    assert (tmp_path / "out").read_bytes() == DATA


def closing_properly(exchange: Exchange) -> None:
    """Answer without a length, and end with close_notify."""
    exchange.head(200, version="HTTP/1.0")
    exchange.body(DATA)
    assert isinstance(exchange._conn, ssl.SSLSocket)
    exchange._conn.unwrap()
    exchange.close()


def test_close_notify_ends_a_body_without_a_length(tmp_path: Path, pem: Certificate) -> None:
    """Over TLS the end of a connection can be told from its loss. Source: RFC 9112, 9.8."""
    with serving(closing_properly, tls=pem.server_context()) as server:
        outcome = run(server.url(), *COMMAND, "--cacert", pem.ca, cwd=tmp_path)
    assert (outcome.code, outcome.last["integrity"]) == (0, "none")
    assert (tmp_path / "out").read_bytes() == DATA


@pytest.mark.parametrize("handler", [no_length(DATA[:-9]), chunked(DATA, last=b"")], ids=["no length", "chunked"])
def test_a_body_without_its_end_is_no_object(tmp_path: Path, pem: Certificate, handler: Handler) -> None:
    """Without close_notify, as without the last chunk, anybody may have cut the body: exit code 5 and no file."""
    with serving(handler, tls=pem.server_context()) as server:
        outcome = run(server.url(), *COMMAND, "--retry", "0", "--cacert", pem.ca, cwd=tmp_path)
    assert outcome.code == 5, "a truncated body was published"
    assert names(tmp_path) == set()


def test_https_on_a_server_that_speaks_http(tmp_path: Path) -> None:
    """A mistaken scheme is one line, whether the server answers in the clear or waits for more."""
    root = tmp_path / "root"
    root.mkdir()
    with serving_nginx(root) as server:
        outcome = run(server.url("/x").replace("http://", "https://"), *COMMAND, "--retry", "0", cwd=tmp_path)
        assert (outcome.code in (5, 6), "TLS" in outcome.message) == (True, True)
    with serving(ranged(DATA)) as silent:
        url = silent.url().replace("http://", "https://")
        outcome = run(url, *COMMAND, "--retry", "0", "--connect-timeout", "0.5", "--read-timeout", "0.5", cwd=tmp_path)
        assert outcome.code == 5, outcome.message
    assert names(tmp_path) == {"root"}
