"""What is read out of checksum files."""

from __future__ import annotations

import hashlib
import subprocess
from typing import TYPE_CHECKING

import pytest

from fastdl.digest import Expected
from fastdl.errors import UsageError
from fastdl.hashers import make_hasher
from fastdl.sums import find_digests

if TYPE_CHECKING:
    from pathlib import Path

DATA = b"123456789"
SHA256, MD5 = hashlib.sha256(DATA).hexdigest(), hashlib.md5(DATA).hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()


def read(text: str, *path: str, file_name: str = "SUMS", own_name: str = "out") -> dict[str, str]:
    """Read a file's text; by default about a/b/object."""
    found = find_digests(text.encode(), "SUMS", file_name, path or ("a", "b", "object"), own_name)
    return {each.algorithm: each.hex for each in found}


@pytest.mark.parametrize(
    "line",
    [
        f"{SHA256}  object",
        f"{SHA256} *object",
        f"{SHA256} object",
        f"{SHA256}\tobject",
        f"{SHA256.upper()}  object",
        f"{SHA256}  ./b/object",
        f"{SHA256}  /srv/www/a/b/object",
        f"SHA256 (object) = {SHA256}",
        f"SHA2-256(object)= {SHA256}",
        f"SHA-256 (b/object) = {SHA256}",
        f"\\{SHA256}  object",
    ],
)
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_every_form_of_a_line(line: str, end: str) -> None:
    """GNU's text and binary lines, BSD's and OpenSSL's, from Windows too, with comments and others around."""
    assert read(line + end) == {"sha256": SHA256}
    around = f"# {OTHER}  object\n\n{OTHER}  other{end or chr(10)}{line}{end or chr(10)}-----BEGIN PGP SIGNATURE-----\n"
    assert read(around) == {"sha256": SHA256}


@pytest.mark.parametrize(
    "name", ["a b", " a", "*a", "a)=b", "x) = y", "line\nbreak", "back\\slash", "ret\rurn", "日本", "#a"]
)
@pytest.mark.parametrize("flags", [[], ["--binary"], ["--tag"]])
def test_what_coreutils_writes_of_any_name(tmp_path: Path, name: str, flags: list[str]) -> None:
    """The real sha256sum, with names that it escapes; one whose name begins with a blank is written by path."""
    (tmp_path / name).write_bytes(DATA)
    command = ["sha256sum", *flags, f"./{name}"]
    text = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout
    assert find_digests(text, "SUMS", "SUMS", (name,), "out") == (Expected("sha256", SHA256),)


def test_a_name_that_is_no_utf_8() -> None:
    """Bytes of any kind are no error."""
    assert read(f"{OTHER}  \udcff\n".encode("utf-8", "surrogateescape").decode("latin-1") + f"{SHA256}  object") == {
        "sha256": SHA256
    }


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha224", "sha256", "sha384", "sha512"])
def test_the_length_tells_the_algorithm(algorithm: str) -> None:
    """Where nothing else does."""
    digest = hashlib.new(algorithm, DATA).hexdigest()
    assert read(f"{digest}  object") == {algorithm: digest}


@pytest.mark.parametrize(
    ("file_name", "algorithm"),
    [
        ("B2SUMS", "blake2b"),
        ("SUMS", "sha512"),
        ("object.b2sum", "blake2b"),
        ("SHA3_256SUMS", "sha3-256"),
        ("object.xxh3", "xxh3"),
        ("crc64nvme.txt", "crc64nvme"),
        ("object.crc32c", "crc32c"),
        ("object.crc32", "crc32"),
        ("md5.sha256", "sha256"),
    ],
)
def test_the_files_name_tells_more(file_name: str, algorithm: str) -> None:
    """If a digest of the algorithm it names is as long as the line's."""
    hasher = make_hasher(algorithm)
    hasher.update(memoryview(DATA))
    assert read(f"{hasher.hexdigest()}  object", file_name=file_name) == {algorithm: hasher.hexdigest()}


def test_a_digest_alone_is_the_objects() -> None:
    """As object.sha256 often holds it; two of them are of nobody knows what."""
    assert read(f"{SHA256}\n") == {"sha256": SHA256}
    assert read(f"# comment\r\n\r\n{MD5}\r\n") == {"md5": MD5}
    with pytest.raises(UsageError, match="has no digest of 'object'"):
        read(f"{SHA256}\n{OTHER}\n")


def test_the_longest_agreement_of_paths_wins() -> None:
    """Several directories hold an object of that name."""
    text = f"{OTHER}  object\n{OTHER}  c/object\n{SHA256}  b/object\n{OTHER}  a/c/object\n"
    assert read(text) == {"sha256": SHA256}


def test_the_outputs_name_counts_if_the_objects_is_not_there() -> None:
    """A URL may end in a number; the output is called as in the file."""
    assert read(f"{OTHER}  x\n{SHA256}  dir/model.bin\n", "download", "123", own_name="model.bin") == {"sha256": SHA256}
    assert read(f"{OTHER}  out\n{SHA256}  object\n") == {"sha256": SHA256}


def test_several_algorithms_are_all_expected() -> None:
    """BSD's files often have two."""
    assert read(f"MD5 (object) = {MD5}\nSHA256 (object) = {SHA256}\n") == {"md5": MD5, "sha256": SHA256}


def test_two_different_digests_are_a_contradiction() -> None:
    """The same one twice is none."""
    assert read(f"{SHA256}  object\n{SHA256.upper()} *object\n") == {"sha256": SHA256}
    with pytest.raises(UsageError, match="SUMS: has two different digests of 'object'"):
        read(f"{SHA256}  object\n{OTHER}  object\n")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        f"{SHA256}  other\n",
        f"{SHA256}  objects\n{SHA256}  an object\n{SHA256}  object/\n"[: 2 * 75],
        f"{SHA256[:-1]}  object\n",
        f"{SHA256}g  object\n",
        f"{SHA256}object\n",
        f"BLAKE2b-256 (object) = {SHA256}\n",
        f"MD5 (object) = {SHA256}\n",
        f"NONSENSE (object) = {SHA256}\n",
        "12345678  object\n",
        "<html>object</html>\n",
    ],
)
def test_no_line_about_the_object_is_a_usage_error(text: str) -> None:
    """It names the file and the object, in one line."""
    with pytest.raises(UsageError, match=r"^SUMS: has no digest of 'object' that is understood$"):
        read(text)


@pytest.mark.parametrize("content", [f"{SHA256}  object\n", f"SHA256 (object) = {SHA256}", SHA256])
def test_a_mark_of_byte_order_is_no_part_of_the_first_line(content: str) -> None:
    """Editors of Windows put one before UTF-8."""
    found = find_digests(b"\xef\xbb\xbf" + content.encode(), "SUMS", "SUMS", ("object",), "")
    assert [each.hex for each in found] == [SHA256]


def test_lines_cost_no_hashers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name of many algorithms and ten thousand lines: what an algorithm's length is, is found out once."""
    made = []

    def counting(algorithm: str) -> object:
        made.append(algorithm)
        return make_hasher(algorithm)

    monkeypatch.setattr("fastdl.sums.make_hasher", counting)
    content = b"".join(b"%064d  name%d\n" % (number, number) for number in range(10_000))
    found = find_digests(content, "S", "sha512-sha384-sha224-sha1-md5-blake2b-crc64-sha256.txt", ("name9",), "")
    assert [each.hex for each in found] == [f"{9:064d}"]
    assert len(made) < 100
