"""Certificates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fastdl.errors import ProtocolError, UsageError
from tests.servers.scripted import (
    ranged,
    serving,
)
from tests.servers.tls import certificate
from tests.unit.asking import DATA, fetch

if TYPE_CHECKING:
    from pathlib import Path


def test_a_certificate_that_fails_is_not_retried() -> None:
    """Unknown authority: a protocol error with what to do; verification is never switched off by itself."""
    with certificate() as pem, serving(ranged(DATA), tls=pem.server_context()) as server:
        with pytest.raises(ProtocolError, match=r"certificate refused: .*; give its CA with --cacert"):
            fetch(server.url())
        assert fetch(server.url(), cacert=str(pem.ca))[1] == DATA


def test_the_systems_authorities_are_trusted_without_being_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """And those that the environment names, as every program's that uses OpenSSL."""
    with certificate() as pem, serving(ranged(DATA), tls=pem.server_context()) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(pem.ca))
        assert fetch(server.url())[1] == DATA


def test_a_certificate_of_another_host_is_refused() -> None:
    """The right authority is not enough."""
    with (
        certificate("other.example") as pem,
        serving(ranged(DATA), tls=pem.server_context()) as server,
        pytest.raises(ProtocolError, match="certificate refused"),
    ):
        fetch(server.url(), cacert=str(pem.ca))


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_insecure_is_the_users_own_choice() -> None:
    """Told so, any certificate is accepted."""
    with certificate("other.example") as pem, serving(ranged(DATA), tls=pem.server_context()) as server:
        assert fetch(server.url(), insecure=True)[1] == DATA


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_a_ca_file_that_is_none_is_a_usage_error(tmp_path: Path, content: bytes | None) -> None:
    """A mistyped path is not a broken line: it is not retried, and the text names the file."""
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"CA file .*ca\.pem"):
        fetch("https://127.0.0.1:1/", cacert=str(path))
