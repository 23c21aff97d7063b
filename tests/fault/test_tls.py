"""Row N38: TLS that is cut, renegotiated, rekeyed or not trusted. Certificates by themselves are in ``tests/e2e``."""

from __future__ import annotations

import fcntl
import random
import subprocess
import termios
import threading
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

import pytest

import fastdl
from tests.e2e.command import names
from tests.e2e.processes import program, wait_until
from tests.servers import scripted
from tests.servers.program import free_port
from tests.servers.scripted import Exchange, ranged, serving
from tests.servers.tls import Certificate, certificate

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator
    from pathlib import Path

PART = 16 * 1024
DATA = random.Random(38).randbytes(20 * PART + 5)


@pytest.fixture(scope="module")
def pem() -> Iterator[Certificate]:
    """One authority and one certificate for 127.0.0.1."""
    with certificate() as made:
        yield made


@contextmanager
def openssl(pem: Certificate, folder: Path, version: str) -> Iterator[tuple[int, IO[bytes], Path]]:
    """Run OpenSSL's own server, which sends what it is told; yields port, its standard input and what it prints."""
    port = free_port()
    files = ("-cert", str(pem.chain), "-key", str(pem.key))
    command = [program("openssl", "openssl"), "s_server", "-accept", f"127.0.0.1:{port}", version, *files]
    printed = folder / "printed"
    with (
        printed.open("wb") as output,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=output) as process,
    ):
        assert process.stdin is not None
        try:
            wait_until(lambda: b"ACCEPT" in printed.read_bytes())
            yield port, process.stdin, printed
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("version", "command"), [("-tls1_2", b"r\n"), ("-tls1_3", b"K\n")], ids=["renegotiated", "keys updated"]
)
def test_n38_a_new_handshake_in_the_middle_of_a_body(
    tmp_path: Path, pem: Certificate, version: str, command: bytes
) -> None:
    """The bytes before and after it are one body, whatever OpenSSL does while we wait for the next ones."""
    half = b"x" * 60_000
    results: list[fastdl.DownloadResult] = []

    def download(port: int) -> None:
        url = f"https://127.0.0.1:{port}/object"
        results.append(fastdl.download(url, tmp_path / "out", cacert=pem.ca, retry=0, read_timeout=10))

    def tell(what: bytes) -> None:
        answers.write(what)
        answers.flush()
        wait_until(lambda: fcntl.ioctl(answers, termios.FIONREAD, bytes(4)) == bytes(4))

    with openssl(pem, tmp_path, version) as (port, answers, printed):
        thread = threading.Thread(target=download, args=(port,))
        thread.start()
        wait_until(lambda: b"GET /object" in printed.read_bytes())
        tell(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (2 * len(half)) + half)
        tell(command)
        tell(half)
        thread.join()
        wait_until(lambda: b"SSL_do_handshake -> 1" in printed.read_bytes())  # it says so when its buffer is flushed
    assert (tmp_path / "out").read_bytes() == 2 * half
    assert results[0].retries == 0


@pytest.mark.parametrize("cut", [100, 5000, 70_000])
@pytest.mark.parametrize("how", ["cut", "reset"])
def test_n38_truncated_records_are_a_truncated_body(tmp_path: Path, pem: Certificate, cut: int, how: str) -> None:
    """Without close_notify, at any place of a later answer: an error of the network and no file."""
    fault = scripted.truncate_after(cut) if how == "cut" else scripted.reset_after(cut)
    right = ranged(DATA)

    def handle(exchange: Exchange) -> None:
        exchange.otherwise = right
        if (exchange.request.range or (0, None))[0] == 0:
            scripted.short_206(10 * PART)(exchange)
        else:
            fault(exchange)

    with serving(handle, tls=pem.server_context()) as server, pytest.raises(fastdl.NetworkError):
        fastdl.download(
            server.url(), tmp_path / "out", part_size=10 * PART, connections=1, workers=1, retry=0, cacert=pem.ca
        )
    assert not (tmp_path / "out").exists()


def test_n38_another_certificate_mid_way_is_refused(tmp_path: Path, pem: Certificate) -> None:
    """The machine behind the name changes to one that nobody vouches for: no further byte is asked of it."""
    with certificate() as other:
        contexts = iter([pem.server_context()])

        def choose(sock: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _context: ssl.SSLContext) -> None:
            sock.context = next(contexts, None) or other.server_context()

        context = pem.server_context()
        context.sni_callback = choose

        def once(exchange: Exchange) -> None:
            exchange.otherwise = ranged(DATA)
            scripted.short_206(2 * PART)(exchange)
            exchange.close()

        with serving(once, tls=context) as server:
            url = f"https://localhost:{server.port}/object"
            with pytest.raises(fastdl.ProtocolError, match="certificate"):
                fastdl.download(url, tmp_path / "out", part_size=PART, connections=1, workers=1, cacert=pem.ca)
            assert len(server.log) == 1
    assert names(tmp_path) in ({"out.part", "out.cp"}, set())
