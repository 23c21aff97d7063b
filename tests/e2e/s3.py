"""Downloads from the S3 endpoint of the tests, by the real command and in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import fastdl
from tests.e2e.command import Outcome, run
from tests.servers.s3 import BUCKET, KEY, REGION, S3Server

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from botocore.credentials import Credentials

    from fastdl import DownloadResult

PART = 16 * 1024
QUIET = {"AWS_EC2_METADATA_DISABLED": "true"}


def nobodys_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let botocore find nothing of whoever runs the tests."""
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(folder / "none"))
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)


def login(key: Credentials = KEY, region: str = REGION) -> dict[str, str]:
    """Make the variables that carry a key."""
    token = {"AWS_SESSION_TOKEN": key.token} if key.token else {}
    names = {"AWS_ACCESS_KEY_ID": key.access_key, "AWS_SECRET_ACCESS_KEY": key.secret_key, "AWS_REGION": region}
    return QUIET | names | token


def get(
    server: S3Server, folder: Path, *arguments: str, key: str = "key", variables: dict[str, str] | None = None
) -> Outcome:
    """Run the command by path style on the server's address."""
    return run(
        *(f"s3://{BUCKET}/{key}", "-o", "out", "-p", str(PART), "--endpoint-url", server.url(""), *arguments),
        cwd=folder,
        variables=login() if variables is None else variables,
    )


def fetch(server: S3Server, folder: Path, key: str = "key", **settings: Any) -> DownloadResult:
    """Download in this process by path style on the server's address."""
    defaults = {"part_size": PART, "connections": 1, "workers": 1, "region": REGION, "credentials": KEY}
    return fastdl.download(
        f"s3://{BUCKET}/{key}", folder / "out", **({"endpoint_url": server.url("")} | defaults | settings)
    )
