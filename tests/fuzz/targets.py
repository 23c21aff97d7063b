"""One target a parser: it takes any bytes, lets errors of ours be, and raises whatever else comes or was broken.

Hypothesis drives them in the suite (``test_targets``); any other fuzzer can: ``TARGETS[name](data)``.
"""

from __future__ import annotations

import base64
import io
import os
import re
import tempfile
import warnings
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np
import safetensors
from urllib3 import HTTPHeaderDict

from fastdl.arrays import Tensors, npy
from fastdl.checkpoint import open_checkpoint
from fastdl.contract import check_partial, content_length, parse_content_range, unsatisfied_size
from fastdl.digest import Digest, parse_checksum
from fastdl.errors import DiskError, FastdlError, ProtocolError, Refused, Truncated, UsageError
from fastdl.header import Header, decode
from fastdl.http import Transport, _redirected
from fastdl.job import file_name
from fastdl.messages import Line, Request
from fastdl.multipart import WINDOW, Multipart, boundary_of
from fastdl.names import is_safe_name
from fastdl.plan import Plan, parse_size
from fastdl.promises import promised
from fastdl.redact import redacted_url
from fastdl.retry import parse_retry_after
from fastdl.signatures import unsigned_url
from fastdl.sources import oss_errors, oss_roles, ossutil
from fastdl.sources.base import clock_ahead, describe_plainly
from fastdl.sources.http import HttpSource
from fastdl.sources.s3_errors import explain_s3, region_of, skew_of
from fastdl.sums import find_digests
from fastdl.urls import environment_proxy, origin
from fastdl.validator import Validator

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastdl.contract import ContentRange

PLAN = Plan(20_000, 1000)
OTHER = Digest(2**64 - 1, 2**64 - 2)  # of bytes that nobody recorded
MARKED = {0: Digest(1, 2), 7: Digest(3, 4), 19: Digest(5, 6)}


def text(data: bytes) -> str:
    """Read bytes as a head's are read."""
    return data.decode("latin-1")


def content_range(data: bytes) -> None:
    """What is taken for a range is one, and says what it says."""
    value = text(data)
    got = parse_content_range(value)
    if got is not None:
        assert 0 <= got.start < got.stop <= (got.stop if got.size is None else got.size)
        assert value.strip().lower() == f"bytes {value.strip()[6:]}".lower()
    headers = HTTPHeaderDict({"Content-Range": value, "Content-Length": value})
    assert (unsatisfied_size(headers) or 0) >= 0
    with suppress(ProtocolError):
        assert (content_length(headers) or 0) >= 0
    with suppress(FastdlError):
        taken = check_partial(206, HTTPHeaderDict({"Content-Range": value}), "http://host/x", 5, 10, 20)
        assert (taken.start, taken.size in (20, None), taken.stop <= 10) == (5, True, True)
    describe_plainly(headers, 20)
    describe_plainly(HTTPHeaderDict({"x-oss-hash-crc64ecma": value}), 20)


def dates(data: bytes) -> None:
    """A wish is some seconds, a clock is some seconds ahead, or neither says anything."""
    wish = parse_retry_after(text(data), 1e9)
    assert wish is None or 0 <= wish < 1e13
    ahead = clock_ahead(Refused("", 403, {"date": text(data)}, b""))
    assert ahead is None or abs(ahead) < 1e12


def refusals(data: bytes) -> None:
    """A refusal of either store is one printable line of bounded length."""
    coded = base64.b64encode(data).decode()
    heads: tuple[dict[str, str], ...] = (
        {},
        {"x-oss-err": coded},
        {"x-oss-err": text(data), "x-amz-request-id": text(data)},
    )
    for headers in heads:
        for status in (301, 400, 403, 404, 405, 409, 500, 503):
            refused = Refused("x", status, headers, b"" if "x-oss-err" in headers else data)
            for error in (oss_errors.explain("oss://b/k", refused), explain_s3("s3://b/k", "b", "k", refused)):
                assert isinstance(error, FastdlError)
                assert str(error).isprintable()
                assert len(str(error)) < 2500
            region_of(refused)
            skew_of(refused)


def configuration(data: bytes) -> None:
    """Any file is sections of settings."""
    for name, section in ossutil.parse(data).items():
        assert name == name.lower()
        ossutil._profile(section)


def checksum_file(data: bytes) -> None:
    """Digests of hexadecimal digits, or none."""
    for name in ("SUMS", "object.sha256", "sha512-md5-crc32.txt"):
        with suppress(UsageError):
            found = find_digests(data, "SUMS", name, ("a", "object"), "out")
            assert found
            assert all(set(each.hex) <= set("0123456789abcdef") for each in found)


def digest_fields(data: bytes) -> None:
    """Whatever a head promises can be compared."""
    fields = text(data)
    for name in ("Repr-Digest", "Content-Digest", "Content-MD5", "x-goog-hash", "x-amz-checksum-sha256"):
        for whole in (True, False):
            for each in promised(HTTPHeaderDict({name: fields, "x-amz-checksum-type": fields}), whole=whole):
                int(each.hex, 16)


def parts(data: bytes) -> None:
    """What is taken for the parts of a body stands in it, behind a head that names its range; in bounded memory."""
    for step in (1, 7, 10**6):  # however it arrives
        rest, most = memoryview(data), 0

        def read(view: memoryview, step: int = step) -> int:
            nonlocal rest, most
            count = min(step, len(view), len(rest))
            view[:count], rest = rest[:count], rest[count:]
            most = max(most, len(view))
            return count

        found: list[tuple[ContentRange, bytes]] = []
        with suppress(ProtocolError, Truncated):
            body = Multipart(b"bnd", read)
            while (got := body.part()) is not None:
                view = memoryview(bytearray(min(got.stop - got.start, 1000)))
                body.readinto(view)
                found.append((got, bytes(view)))
        assert most <= WINDOW
        at = 0
        for got, content in found:
            head = re.compile(rb"--bnd[ \t]*\r\n(?:[^\r\n]+\r\n)+\r\n" + re.escape(content)).search(data, at)
            assert head is not None
            named = b"bytes %d-%d/%s" % (got.start, got.stop - 1, b"*" if got.size is None else b"%d" % got.size)
            fields = re.sub(rb"(?<=[ -/])0+(?=\d)", b"", head[0])
            assert named in fields.lower()
            at = head.end()
    with suppress(ValueError):
        boundary = boundary_of(text(data))
        assert boundary is None or boundary in data


def location(data: bytes) -> None:
    """A redirect leads to a web address, not from https to http, and to another origin without a secret."""
    for url in ("http://host:81/a", "https://user:pw@host/a?b"):
        request = Request(url, (("Authorization", "s3cr3t"), ("Range", "bytes=0-1")))
        with suppress(ProtocolError):
            there = _redirected(request, text(data))
            assert there.url.lower().startswith(("http://", "https://"))
            assert not (url.startswith("https") and there.url.lower().startswith("http:"))
            assert ("s3cr3t" in str(there.headers)) == (origin(url) == origin(there.url))


def urls(data: bytes) -> None:
    """A URL of the user's is one or a UsageError; what is shown of it is one line, what it names is a safe name."""
    for url in (text(data), "http://" + text(data), "oss://" + data.decode("utf-8", "surrogateescape")):
        assert redacted_url(url).isprintable()
        with suppress(UsageError):
            assert is_safe_name(file_name(url))
        with suppress(UsageError):
            source = HttpSource(url)
            assert source.identity == unsigned_url(url)
            assert source.request(None).url.lower().startswith(("http://", "https://"))


def proxies(data: bytes) -> None:
    """A proxy of the environment is one or a UsageError."""
    value = text(data).replace("\0", "")
    for name in ("http_proxy", "all_proxy", "no_proxy"):
        with mock.patch.dict(os.environ, {name: value, "https_proxy": "http://proxy:3128"}, clear=True):
            proxy = environment_proxy("http://host/x")
            environment_proxy("https://host/x")
        if proxy.startswith(("http://", "https://")):
            with suppress(UsageError):
                Transport(Line(proxy=proxy), 1).close()


def arguments(data: bytes) -> None:
    """Sizes and checksums as a user types them."""
    with suppress(UsageError):
        assert parse_size(data.decode("utf-8", "replace")) >= 0
    with suppress(UsageError):
        parse_checksum(data.decode("utf-8", "replace"))


def credentials(data: bytes) -> None:
    """What a metadata service answers is credentials or an error of ours."""
    with suppress(FastdlError):
        oss_roles._credentials(oss_roles._json(data, "it"), "it")
    with suppress(FastdlError):
        assert " " not in oss_roles._text(data, "it")
    assert oss_roles._reason(data).isprintable()


def valid_checkpoint() -> bytes:
    """Make a checkpoint's bytes, with three marks."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "cp")
        with closing(open_checkpoint(path)) as checkpoint:
            checkpoint.begin(Header(PLAN, "http://host/x", Validator('"v1"', "date"), 5, (1, 2), b"s" * 16))
            for index, digest in MARKED.items():
                checkpoint.mark(index, digest)
        return path.read_bytes()


VALID = valid_checkpoint()


def checkpoint(data: bytes) -> None:
    """Any file is a checkpoint that says something possible, or an error; what is judged wrong is marked no more."""
    decode(data[:4096])
    edits = bytearray(VALID)
    for at in range(0, len(data) - 3, 4):  # each four bytes: where to write one, and which
        edits[int.from_bytes(data[at : at + 3]) % len(edits)] = data[at + 3]
    for content in (data, bytes(edits), VALID[: len(data)] + data):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "cp")
            path.write_bytes(content)
            with suppress(DiskError), closing(open_checkpoint(path)) as opened:
                if opened.stored is None:
                    continue
                good, missing = opened.marks.runs()
                assert sum(run.stop - run.first for run in good + missing) == opened.stored.plan.count
                for index in [index for run in good for index in range(run.first, min(run.stop, run.first + 100))]:
                    right = opened.marks.digest(index) == OTHER
                    assert opened.judge(index, OTHER) == right
                    assert right or not any(run.first <= index < run.stop for run in opened.marks.runs()[0])


class Held:
    """An object that has come, for who reads it by views."""

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self._data = data

    def view(self, start: int, stop: int) -> memoryview:
        """Return some of it; who asks for more than there is has not looked."""
        assert 0 <= start <= stop <= self.size
        return memoryview(self._data)[start:stop]


def npy_file(data: bytes) -> None:
    """An array as numpy reads it; of a file, and of a header behind a right beginning."""
    for version in (0, 1, 2, 3):
        length = len(data).to_bytes(2 if version == 1 else 4, "little")
        file = b"\x93NUMPY" + bytes([version, 0]) + length + data if version else data
        for content in (file, file + bytes(16)):
            with suppress(UsageError), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # numpy's of old names
                array = npy(memoryview(content))
                assert not array.flags.writeable
                expected = np.load(io.BytesIO(content), allow_pickle=False)
                assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
                assert array.tobytes() == expected.tobytes()


def safetensors_file(data: bytes) -> None:
    """Tensors that safetensors itself reads so; as a file, and as a header before some bytes."""
    for content in (data, *(len(data).to_bytes(8, "little") + data + bytes(follow) for follow in (0, 4))):
        with suppress(UsageError):
            tensors = Tensors(Held(content))
            expected = dict(safetensors.deserialize(content))  # type: ignore[no-untyped-call]
            assert tensors.keys() == expected.keys()
            for name in tensors:
                with suppress(UsageError):  # smaller than a byte
                    assert tensors[name].tobytes() == bytes(expected[name]["data"])
                assert tensors.dtype(name) == expected[name]["dtype"]
                assert list(tensors.shape(name)) == expected[name]["shape"]


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        *(content_range, dates, refusals, configuration, checksum_file, digest_fields, location, urls, proxies),
        *(arguments, credentials, checkpoint, npy_file, safetensors_file),
    )
}
