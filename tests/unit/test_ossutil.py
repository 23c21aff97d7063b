"""Profiles of ossutil are read as it reads them, whatever a file holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdl.errors import UsageError as Usage
from fastdl.sources.ossutil import Profile, load_profile, parse

if TYPE_CHECKING:
    from pathlib import Path

FILE = """
stray = before any section
# comment
[default]
accessKeyId = AKID
accessKeySecret=s3cr3t=with;signs#too
region: nothing, ossutil writes =
Region = cn-hangzhou

[Profile Work]
access_key_id = W
ACCESS-KEY-SECRET = WS
sts_token = T==
endpoint = https://data.example
mode = StsToken

[profile  ecs ]   # an instance
mode = Ali-EcsRamRole
ecsRoleName = robot
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Write a file that everybody may read."""
    path = tmp_path / "ossutilconfig"
    path.write_text(FILE)
    path.chmod(0o644)
    return path


def load(file: Path, name: str | None, **environment: str) -> Profile:
    """Load a profile of ``file``."""
    return load_profile(name, {"OSSUTIL_CONFIG_FILE": str(file), **environment})


def test_the_default_profile_and_others(file: Path) -> None:
    """Names of sections and keys in any case and spelling; a value may hold every sign."""
    usual = Profile(access_key_id="AKID", access_key_secret="s3cr3t=with;signs#too", region="cn-hangzhou")
    work = Profile("W", "WS", "T==", endpoint="https://data.example", mode="ststoken")
    assert load(file, None) == load(file, "DEFAULT") == usual
    assert load(file, "work") == load(file, None, OSSUTIL_PROFILE="WORK") == work
    assert load(file, "ecs") == Profile(mode="ecsramrole", role="robot")


@pytest.mark.parametrize(
    "spelling", ["accessKeyId", "access_key_id", "access-key-id", "ACCESSKEYID", " Access Key Id "]
)
def test_a_key_has_many_spellings(spelling: str) -> None:
    """All of ossutil's, and what people make of them."""
    assert parse(f"[default]\n{spelling}=x".encode()) == {"default": {"accesskeyid": "x"}}


def test_the_home_directory_has_the_usual_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing one is no error unless a profile of it was asked for."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_profile(None, {}) == Profile()
    with pytest.raises(Usage, match="cannot be read: No such file"):
        load_profile("work", {})
    (tmp_path / ".ossutilconfig").write_text(FILE)
    assert load_profile("work", {}).access_key_id == "W"
    with pytest.raises(Usage, match="there is no profile 'play'"):
        load_profile("play", {})


@pytest.mark.parametrize("name", ["/no/such/file", "/", "\0", "~nobody-here/x"])
def test_a_file_that_was_named_must_be_there(name: str) -> None:
    """One line, with the reason."""
    with pytest.raises(Usage, match="cannot be read") as caught:
        load_profile(None, {"OSSUTIL_CONFIG_FILE": name})
    assert str(caught.value).isprintable()


def test_a_file_without_an_end_is_no_configuration() -> None:
    """Nobody reads /dev/zero to its end."""
    with pytest.raises(Usage, match="too long"):
        load_profile(None, {"OSSUTIL_CONFIG_FILE": "/dev/zero"})


def test_a_profile_shows_no_secret(file: Path) -> None:
    """In no traceback and no log."""
    assert "s3cr3t" not in repr(load(file, None))
    assert "T==" not in repr(load(file, "work"))


def test_a_byte_order_mark_and_windows_line_ends() -> None:
    """As editors of other systems leave them."""
    assert parse("\ufeff[default]\r\nregion = x\r\n".encode()) == {"default": {"region": "x"}}


@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_read(raw: bytes) -> None:
    """No file makes the parser fail, and every key is one that can be looked up."""
    for section in parse(raw).values():
        assert all(key == key.lower() and not set(key) & set("-_ =") for key in section)


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,8}", fullmatch=True),
        st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.from_regex(r"[!-~]{0,20}", fullmatch=True)),
    )
)
def test_what_is_written_is_read(sections: dict[str, dict[str, str]]) -> None:
    """A section for each profile, in any spelling, gives its settings back."""
    lines = []
    for name, settings in sections.items():
        lines += [f"[profile {name.upper()}]", *(f"{key.title()} = {value}" for key, value in settings.items())]
    assert parse("\n".join(lines).encode()) == sections
