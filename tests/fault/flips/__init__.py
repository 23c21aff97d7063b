"""Single flipped bits, a million of them: on the line, in memory, in the unfinished file, in its checkpoint.

The store promises the object's CRC-64. One trial is one flipped bit, judged alone by the code that judges it in a
download; ``trials`` says for each kind what that is. ``python -m tests.fault.flips --count 1000000`` is the long form,
``tests/fault/test_flips.py`` the short one, which also runs the command.

What no kind covers: a bit that flips after it was hashed and before it is on the disk, or on the disk while the same
run goes on. CRC-64 is combined from what was received, the file is not read again. The next look at the file, by a
resume or by ``fastdl verify``, finds it; so does any other digest (``--checksum sha256=...``), computed from the file.
"""
