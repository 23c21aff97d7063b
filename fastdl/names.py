"""The one judge of file names that come out of foreign text: the last segments of URLs and of stores' keys.

What the user names himself is obeyed. Headers name nothing here: Content-Disposition is not read, because a server that
chooses the name of a file chooses which file is replaced. The rules of POSIX and of Windows hold on every system, since
files travel: on shared disks, in archives, by synchronisation.
"""

from __future__ import annotations

_LONGEST = 255 - len(".part")  # bytes: what every usual file system takes, and the partial file has a longer name
_FORBIDDEN = frozenset('/\\:*?"<>|')  # separators, drives and streams (``a:b``), wildcards
# Devices of Windows in every directory, whatever the suffix. Source: Microsoft, "Naming Files, Paths, and Namespaces".
_DEVICES = frozenset(
    (
        *("CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"),
        *(f"{port}{number}" for port in ("COM", "LPT") for number in "0123456789\xb9\xb2\xb3"),
    )
)


def is_safe_name(name: str) -> bool:
    """Tell whether ``name`` is that of one file in the directory it is put in, on any system, and looks like it.

    No parent, separator, drive, stream, device; no control character, surrogate or mark that turns the writing; no
    dot or space at the end, which Windows drops, so that it would be another name; not too long.
    """
    if not name.strip(". ") or name[-1] in ". " or not name.isprintable() or not _FORBIDDEN.isdisjoint(name):
        return False
    stem = name.partition(".")[0].rstrip(" ").upper()
    return stem not in _DEVICES and len(name.encode()) <= _LONGEST
