"""Profiles of ossutil: ``~/.ossutilconfig``, or the file that OSSUTIL_CONFIG_FILE names.

An INI file: ``[default]`` and ``[profile NAME]`` in any case, ``key = value`` with ``accessKeyId``, ``access_key_id``,
``access-key-id`` all the same, comments after ``#`` or ``;`` at the start of a line. Not read by ``configparser``: its
errors quote the line, which may be a secret, and one odd line would spoil the file.
Source: ossutil 2's documentation of its configuration.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fastdl.errors import UsageError
from fastdl.redact import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

_LIMIT = 1024 * 1024  # bytes; a file that is longer is no configuration
_SECTION = re.compile(r"\[\s*(?:profile\s+)?([^\]]*?)\s*\]\s*(?:[#;].*)?", re.IGNORECASE)
_USUAL = "default"


@dataclass(frozen=True, slots=True)
class Profile:
    """What one section says; empty where it says nothing. ``mode`` has letters and digits only, in lower case."""

    access_key_id: str = field(default="", repr=False)
    access_key_secret: str = field(default="", repr=False)
    sts_token: str = field(default="", repr=False)
    region: str = ""
    endpoint: str = ""
    mode: str = ""
    role: str = ""  # of an ECS instance
    role_arn: str = ""
    session_name: str = ""


def load_profile(name: str | None, environment: Mapping[str, str]) -> Profile:
    """Return the profile ``name``, or the one of OSSUTIL_PROFILE, or ``[default]``, empty where there is none.

    Who may read the file is its owner's business.

    Raises:
        UsageError: a profile or a file that was asked for by name is not there or cannot be read.
    """
    name = name or environment.get("OSSUTIL_PROFILE") or None
    given = environment.get("OSSUTIL_CONFIG_FILE")
    try:
        path = Path(given).expanduser() if given else Path.home() / ".ossutilconfig"
        with path.open("rb") as file:
            raw = file.read(_LIMIT + 1)
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: there is no home
        if given or name:
            reason = getattr(error, "strerror", None) or "no such path"
            shown = printable(given) if given else "~/.ossutilconfig"
            raise UsageError(f"the configuration of ossutil, {shown!r}, cannot be read: {reason}") from None
        return Profile()
    if len(raw) > _LIMIT:
        raise UsageError(f"{printable(str(path))!r} is too long for a configuration of ossutil")
    sections = parse(raw)
    if name and name.lower() not in sections:
        raise UsageError(f"there is no profile {printable(name, 60)!r} in {printable(str(path))!r}")
    return _profile(sections.get((name or _USUAL).lower(), {}))


def parse(raw: bytes) -> dict[str, dict[str, str]]:
    """Read the sections of a file, by name in lower case, each with its keys in lower case without ``-`` and ``_``.

    Lines that are neither section, setting nor comment are passed over; of a key that is there twice the last counts.
    """
    sections: dict[str, dict[str, str]] = {}
    section: dict[str, str] = {}  # what stands before the first section is nobody's
    for line in raw.decode("utf-8-sig", "replace").splitlines():
        text = line.strip()
        if text.startswith(("#", ";")):
            continue
        if match := _SECTION.fullmatch(text):
            section = sections.setdefault(match[1].lower(), {})
        elif "=" in text:
            key, _, value = text.partition("=")
            section[re.sub(r"[\s_-]", "", key).lower()] = value.strip()
    return sections


def _profile(section: Mapping[str, str]) -> Profile:
    mode = re.sub(r"[^a-z0-9]", "", section.get("mode", "").lower())
    return Profile(
        access_key_id=section.get("accesskeyid", ""),
        access_key_secret=section.get("accesskeysecret", ""),
        sts_token=section.get("ststoken", ""),
        region=section.get("region", ""),
        endpoint=section.get("endpoint", ""),
        mode=mode.removeprefix("ali"),  # ossutil writes Ali-EcsRamRole too
        role=section.get("ecsrolename", ""),
        role_arn=section.get("ramrolearn") or section.get("rolearn", ""),
        session_name=section.get("rolesessionname", ""),
    )
