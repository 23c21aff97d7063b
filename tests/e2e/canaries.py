"""Secrets whose every trace is recognised, and the look for them in what a command printed and left."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING
from urllib.parse import quote

from botocore.credentials import Credentials

from tests.servers.oss import AccessKey

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.command import Outcome
    from tests.servers.scripted import Server

PART = 16 * 1024
KEY = AccessKey("STS.canary", "CANARY-secret", "CANARY-token/+=")
OSS = {
    "OSS_ACCESS_KEY_ID": KEY.id,
    "OSS_ACCESS_KEY_SECRET": KEY.secret,
    "OSS_SESSION_TOKEN": KEY.token or "",
    "OSS_REGION": "cn-hangzhou",
}
S3_KEY = Credentials("ASIACanaryKey", "CANARY-secret", "CANARY-token/+=")
LOGIN, PROXY_LOGIN = "user:CANARY-password", "user:CANARY-proxy"
QUERY = "x-oss-signature=CANARY-signature&x-oss-security-token=CANARY-query&token=CANARY-other"
HEADERS = ("-H", "Authorization: Bearer CANARY-bearer", "-H", "X-Api-Key: CANARY-key")
# Every shape in which one of them could come to light.
FORBIDDEN = (
    "CANARY",
    "canary-",
    quote(KEY.token or "", safe=""),
    *(base64.b64encode(login.encode()).decode() for login in (LOGIN, PROXY_LOGIN)),
)
QUICK = ("-p", str(PART), "-x", "3", "-w", "2", "--retry", "0", "--read-timeout", "0.5")


def check(what: str, found: str | bytes) -> None:
    """Find no secret in ``found``."""
    text = found if isinstance(found, str) else found.decode("latin-1")
    for secret in FORBIDDEN:
        at = text.find(secret)
        assert at < 0, f"{what}: {text[max(0, at - 60) : at + 60]!r}"


def check_outcome(outcome: Outcome, folder: Path) -> None:
    """Find no secret in what the command printed and left."""
    check("stdout", outcome.stdout)
    check("stderr", outcome.stderr)
    for path in folder.iterdir():
        check("a file's name", path.name)
        if path.suffix == ".cp":
            check(path.name, path.read_bytes())


def secret_url(server: Server, path: str = "/object") -> str:
    """Make a URL that holds a password and signed query values."""
    return server.url(path).replace("://", f"://{LOGIN}@") + f"?{QUERY}"
