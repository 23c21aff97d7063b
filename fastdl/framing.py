"""Where heads, chunks and bodies end, read as strictly as terabytes demand, where http.client looks away."""

from __future__ import annotations

import http.client
import io
import re
import socket
from typing import Any

from fastdl.wire import Wire

MAX_INTERIM = 32
MAX_HEAD = 64 * 1024  # bytes of one answer's head, interim ones included
_FINAL = 200
_FIELD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:|[ \t]")  # a name and its colon, or the fold of the line before
_VERSION = b"HTTP/1."
_STATUS = re.compile(rb"HTTP/1\.[0-9] [0-9]{3}(?: |$)")
_LENGTH_DIGITS = 19  # of the longest length that can be meant
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?\r\n")
_SWITCHING = 101


class _Lines:
    """The lines of a head, each looked at before http.client sees it.

    That one takes the end of the stream for the end of the head, and any amount of it, and behind a line that is no
    field it sees no further field: a length or a transfer coding there would be missed. Its status may be whatever
    int() understands. Source: RFC 9112, 2.2, 4 and 5.
    """

    def __init__(self, fp: Any) -> None:
        self._fp = fp
        self._nbytes = 0
        self._in_fields = False

    def readline(self, limit: int) -> bytes:
        line: bytes = self._fp.readline(limit)
        cut = len(line) < limit and not line.endswith(b"\n")
        if cut and (self._nbytes or (line and _VERSION.startswith(line[: len(_VERSION)]))):
            raise ConnectionAbortedError("the head broke off")  # not reset, as an idle connection's end is
        self._nbytes += len(line)
        if self._nbytes > MAX_HEAD:
            raise http.client.HTTPException(f"a head of more than {MAX_HEAD} bytes")
        text = line.removesuffix(b"\n").removesuffix(b"\r")
        if b"\r" in text or b"\0" in text:
            raise http.client.HTTPException("control characters in the head")
        if self._in_fields and text and _FIELD.match(text) is None:
            raise http.client.HTTPException("a line in the head that is no field")
        if line and not self._in_fields and _STATUS.match(text) is None:
            raise http.client.HTTPException("no status line of HTTP/1")
        self._in_fields = bool(text)  # a blank line ends the head, and a status line begins one
        return line

    def close(self) -> None:
        self._fp.close()


class StrictResponse(http.client.HTTPResponse):
    """An answer of which nothing is guessed: what its head or its chunks do not say clearly is an error."""

    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.sock = sock  # the connection forgets it if it ends with this answer
        if isinstance(sock, socket.socket):  # not what urllib3 makes of a connection through a TLS proxy
            self.fp = io.BufferedReader(Wire(self.fp.detach(), sock))

    def begin(self) -> None:
        """Skip interim answers, of which http.client knows only 100; refuse framing that it would misread.

        Raises:
            HTTPException: the length or the transfer coding cannot be relied on. Source: RFC 9112, 6.3.
        """
        fp = self.fp
        self.fp = _Lines(fp)  # type: ignore[assignment]
        try:
            self._begin_final()
        finally:
            self.fp = self.fp and fp  # http.client drops it when it gives up
        coding = self.headers.get_all("Transfer-Encoding")
        if coding is not None:
            # http.client passes the framing of any coding but the very string "chunked" off as the body.
            if [value.strip().lower() for value in coding] != ["chunked"]:
                raise http.client.HTTPException("a transfer coding other than chunked")
            self.chunked, self.chunk_left, self.length = True, None, None
            return
        lengths = {value.strip() for field in self.headers.get_all("Content-Length", []) for value in field.split(",")}
        if len(lengths) > 1:
            raise http.client.HTTPException("two different lengths")
        value = lengths.pop() if lengths and self.length is None else ""
        if value.isascii() and value.isdigit() and len(value) <= _LENGTH_DIGITS:
            self.length = int(value)  # repeated, but equal

    def _get_chunk_left(self) -> int | None:
        """Return what is left of a chunk, None behind the last one: http.client asks this before it reads a chunk.

        Its own takes a size line that broke off for a shorter number, even for the last chunk's zero, any two bytes for
        the end of a chunk, and all that int() understands for a size. Source: RFC 9112, 7.1.
        """
        if not self.chunk_left:
            if self.chunk_left is not None and self._safe_read(2) != b"\r\n":  # type: ignore[attr-defined]
                raise http.client.IncompleteRead(b"")
            size = _CHUNK_SIZE.fullmatch(self.fp.readline(MAX_HEAD))
            if size is None:
                raise http.client.IncompleteRead(b"")
            self.chunk_left = int(size[1], 16) or None
            if self.chunk_left is None:
                self._read_and_discard_trailer()  # type: ignore[attr-defined]
                self._close_conn()  # type: ignore[attr-defined]
        return self.chunk_left

    def _begin_final(self) -> None:
        for _ in range(MAX_INTERIM):
            super().begin()
            if self.status >= _FINAL or self.status == _SWITCHING:
                return
            self.headers = None  # type: ignore[assignment] # else it believes to have begun
        raise http.client.HTTPException(f"more than {MAX_INTERIM} interim answers")
