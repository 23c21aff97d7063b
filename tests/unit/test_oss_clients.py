"""The OSS endpoint of the tests, proven by clients nobody here wrote: the official SDK and its predecessor ``oss2``."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import alibabacloud_oss_v2 as oss  # type: ignore[import-untyped, unused-ignore]
import oss2  # type: ignore[import-untyped, unused-ignore]
import pytest

from tests.servers.oss import KEY, AccessKey, OssServer, Stored, serving_oss
from tests.unit.test_servers import get, refused, sdk

if TYPE_CHECKING:
    from collections.abc import Iterator

STS = AccessKey("STS.test-id", "test-sts-secret", "test-token/+=")
DATA = random.Random(7).randbytes(100_000)
KEYS = ("key", "a b+c%41/日?x=y#z~", "dir/.hidden", "~'()*!,$@:")


@pytest.fixture
def server() -> Iterator[OssServer]:
    """Serve every key, an archived object and one with versions."""
    objects: dict[str, bytes | Stored] = dict.fromkeys(KEYS, DATA)
    objects |= {"cold": Stored(DATA, archived=True), "versions": Stored(DATA, version_id="null", etag='"1"')}
    with serving_oss(objects, keys=[KEY, STS], cnames=["data.example"]) as server:
        yield server


def bucket(server: OssServer, key: AccessKey = KEY, **settings: Any) -> Any:
    """Make a bucket of ``oss2``, which signs by V4, lists additional headers, and checks CRC-64 itself."""
    provider = oss2.credentials.StaticCredentialsProvider(key.id, key.secret, key.token or "")
    defaults = {"endpoint": server.url(""), "is_path_style": True, "region": server.region}
    return oss2.Bucket(oss2.ProviderAuthV4(provider), bucket_name="bucket", **(defaults | settings))


@pytest.mark.parametrize("access", [KEY, STS], ids=["AK/SK", "STS"])
@pytest.mark.parametrize("key", KEYS)
def test_both_clients_read_the_same_objects(server: OssServer, key: str, access: AccessKey) -> None:
    """By path style, signed in their own ways, whole and in ranges; both compare the CRC-64 of what they read."""
    old = bucket(server, access)
    assert old.get_object(key).read() == DATA
    assert old.get_object(key, byte_range=(5, 9)).read() == DATA[5:10]
    found = old.head_object(key)
    with sdk(server, access) as client:
        result, body = get(client, key)
        assert body == DATA
        assert get(client, key, range_header="bytes=5-9", range_behavior="standard")[1] == DATA[5:10]
    assert (found.content_length, str(found.server_crc)) == (len(DATA), result.hash_crc64)


def test_both_clients_by_the_domain_of_a_bucket(server: OssServer) -> None:
    """CNAME and virtual host, reached by the server as a proxy: their signatures cover the bucket all the same."""
    proxies = {"http": server.url("")}
    for endpoint, cname in (("http://data.example", True), ("http://oss-cn-hangzhou.aliyuncs.com", False)):
        old = bucket(server, endpoint=endpoint, is_cname=cname, is_path_style=False, proxies=proxies)
        assert old.get_object("key").read() == DATA
        with sdk(server, proxy=server.url(""), endpoint=endpoint, use_path_style=False, use_cname=cname) as client:
            assert get(client)[1] == DATA


def test_a_url_that_the_old_client_signed(server: OssServer) -> None:
    """Its presigned URLs are read by itself and refused once anything of them changes."""
    old = bucket(server)
    url = old.sign_url("GET", "dir/.hidden", 60, slash_safe=True)
    assert old.get_object_with_url(url).read() == DATA
    with pytest.raises(oss2.exceptions.OssError) as caught:
        old.get_object_with_url(url.replace("hidden", "other"))
    assert caught.value.status == 403


def test_both_clients_restore(server: OssServer) -> None:
    """What one asks for the other sees going on and over."""
    old = bucket(server)
    with sdk(server) as client:
        assert refused(client, "cold").code == "InvalidObjectState"
        with pytest.raises(oss2.exceptions.OssError, match="InvalidObjectState"):
            old.get_object("cold").read()
        request = oss.RestoreObjectRequest(bucket="bucket", key="cold", restore_request=oss.RestoreRequest(days=2))
        assert client.restore_object(request).status_code == 202
        with pytest.raises(oss2.exceptions.RestoreAlreadyInProgress):
            old.restore_object("cold")
        assert old.head_object("cold").headers["x-oss-restore"] == 'ongoing-request="true"'
        assert (
            'ongoing-request="false"' in client.head_object(oss.HeadObjectRequest(bucket="bucket", key="cold")).restore
        )
    assert server.restorations.days == [2]
    assert old.get_object("cold").read() == DATA


def test_both_clients_on_versions_and_delete_markers(server: OssServer) -> None:
    """An old version by its id, a marker on top told as one, and 405 by the marker's own id."""
    old = bucket(server)
    server.delete("versions", marker="m")
    assert old.get_object("versions", params={"versionId": "null"}).read() == DATA
    with pytest.raises(oss2.exceptions.NoSuchKey) as missing:
        old.get_object("versions")
    assert missing.value.headers["x-oss-delete-marker"] == "true"
    with sdk(server) as client:
        assert get(client, "versions", version_id="null")[1] == DATA
        error = refused(client, "versions", version_id="m")
        assert (error.status_code, error.code) == (405, "MethodNotAllowed")


@pytest.mark.parametrize(
    ("limit", "fine"), [(819_199, False), (819_200, True), (838_860_800, True), (838_860_801, False)]
)
def test_both_clients_limit_their_traffic(server: OssServer, limit: int, fine: bool) -> None:
    """Within OSS's bounds."""
    headers = {oss2.headers.OSS_TRAFFIC_LIMIT: str(limit)}
    with sdk(server) as client:
        if fine:
            assert bucket(server).get_object("key", headers=headers).read() == DATA
            assert get(client, traffic_limit=limit)[1] == DATA
        else:
            assert refused(client, traffic_limit=limit).code == "InvalidArgument"
