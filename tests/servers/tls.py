"""A certificate authority of the test's own, as the PEM files that servers and clients want."""

from __future__ import annotations

import ssl
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM files that live as long as the ``with`` block of :func:`certificate`."""

    ca: Path  # what a client must trust
    chain: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        """Make the context of a server that shows this certificate."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.chain, self.key)
        return context

    def client_context(self) -> ssl.SSLContext:
        """Make the context of a client that trusts this authority alone."""
        context = ssl.create_default_context(cafile=str(self.ca))
        context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)  # which some builds of Python set
        return context


@contextmanager
def certificate(*names: str) -> Iterator[Certificate]:
    """Yield a fresh certificate for ``names``; without names for 127.0.0.1 and localhost."""
    with TemporaryDirectory(prefix="fastdl-tls-") as folder:
        paths = Certificate(*(Path(folder, name) for name in ("ca.pem", "chain.pem", "key.pem")))
        authority = trustme.CA()
        issued = authority.issue_cert(*(names or ("127.0.0.1", "localhost")))
        authority.cert_pem.write_to_path(paths.ca)
        issued.private_key_pem.write_to_path(paths.key)
        for blob in issued.cert_chain_pems:
            blob.write_to_path(paths.chain, append=True)
        yield paths
