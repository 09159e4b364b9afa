"""SPDY/3.1 frames, as far as `kubectl port-forward` speaks them inside a WebSocket (KEP-4006).

kubectl opens two streams for each connection that it forwards, so one WebSocket carries many connections. No library
for Python speaks SPDY any more. The frames are those of draft-mbelshe-httpbis-spdy-00; kubectl knows
no flow control.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping

from msgspec import Struct, field

SYN_STREAM, SYN_REPLY, RST_STREAM, PING, GOAWAY, HEADERS = 1, 2, 3, 6, 7, 8
FIN = 1
"""Flag: the sender is done with the stream."""
VERSION = 3
CONTROL = 0x80000000
STREAM_ID = 0x7FFFFFFF
FRAME_MAX_BYTES = 1 << 20
"""kubectl's frames carry at most 64 KiB."""
HEADERS_MAX_BYTES = 64 << 10
"""Of one header block, unpacked."""
HEAD_BYTES = 8

NAMES = """
options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow
authorization cache-control connection content-base content-encoding content-language content-length
content-location content-md5 content-range content-type date etag expect expires from host if-match
if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma
proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade
user-agent vary via warning www-authenticate method get status
"""
WORDS = (
    *NAMES.split(),
    *("200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin"),
)
TEXT = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized"
    "403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,"
    "publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = b"".join(struct.pack(">I", len(word)) + word.encode() for word in WORDS) + TEXT.encode()
"""What both sides' compression of headers begins with (draft, section 2.6.10.1)."""


class ProtocolError(Exception):
    """What came is no SPDY/3.1."""


class Frame(Struct, frozen=True):
    """A frame that was read. `kind` is 0 for data."""

    kind: int
    stream: int
    fin: bool
    data: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Reader:
    """Frames out of a stream of bytes, however it is cut."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._unpack = zlib.decompressobj(zdict=DICTIONARY)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are whole now. Raises ProtocolError."""
        self._buffer += data
        while len(self._buffer) >= HEAD_BYTES:
            word, flags_and_length = struct.unpack_from(">II", self._buffer)
            length = flags_and_length & 0xFFFFFF
            if length > FRAME_MAX_BYTES:
                raise ProtocolError(f"a frame of {length} bytes is longer than {FRAME_MAX_BYTES}")
            if len(self._buffer) < HEAD_BYTES + length:
                return
            body = bytes(self._buffer[HEAD_BYTES : HEAD_BYTES + length])
            del self._buffer[: HEAD_BYTES + length]
            yield self._frame(word, bool(flags_and_length >> 24 & FIN), body)

    def _frame(self, word: int, fin: bool, body: bytes) -> Frame:
        if not word & CONTROL:
            return Frame(0, word, fin, body)
        kind, version = word & 0xFFFF, word >> 16 & 0x7FFF
        if version != VERSION:
            raise ProtocolError(f"SPDY/{version} is not spoken here, only SPDY/{VERSION}")
        offset = {SYN_STREAM: 10, SYN_REPLY: 4, HEADERS: 4}.get(kind)
        if len(body) < (offset or (4 if kind in (RST_STREAM, PING, GOAWAY) else 0)):
            raise ProtocolError("a frame is too short")
        stream = struct.unpack_from(">I", body)[0] & STREAM_ID if len(body) >= 4 else 0
        headers = self._headers(body[offset:]) if offset else {}
        return Frame(kind, stream, fin, body, headers)

    def _headers(self, packed: bytes) -> dict[str, str]:
        try:
            block = self._unpack.decompress(packed, HEADERS_MAX_BYTES)
            if self._unpack.unconsumed_tail:
                raise ProtocolError(f"headers are longer than {HEADERS_MAX_BYTES} bytes")
            texts, offset = [], 4
            for _ in range(2 * struct.unpack_from(">I", block)[0]):
                length = struct.unpack_from(">I", block, offset)[0]
                texts.append(block[offset + 4 : offset + 4 + length].decode("latin-1"))
                offset += 4 + length
        except (zlib.error, struct.error) as error:
            raise ProtocolError(f"headers can't be read: {error}") from None
        return {name.lower(): value for name, value in zip(texts[::2], texts[1::2], strict=True)}


class Writer:
    """Frames as bytes."""

    def __init__(self) -> None:
        self._pack = zlib.compressobj(zdict=DICTIONARY)

    def data(self, stream: int, data: bytes, *, fin: bool = False) -> bytes:
        return struct.pack(">II", stream, (FIN if fin else 0) << 24 | len(data)) + data

    def syn_stream(self, stream: int, headers: Mapping[str, str]) -> bytes:
        return self._control(SYN_STREAM, struct.pack(">IIH", stream, 0, 0) + self._headers(headers))

    def syn_reply(self, stream: int) -> bytes:
        return self._control(SYN_REPLY, struct.pack(">I", stream) + self._headers({}))

    def reset(self, stream: int, status: int) -> bytes:
        return self._control(RST_STREAM, struct.pack(">II", stream, status))

    def pong(self, ping: Frame) -> bytes:
        return self._control(PING, ping.data)

    def _control(self, kind: int, body: bytes) -> bytes:
        return struct.pack(">HHI", 0x8000 | VERSION, kind, len(body)) + body

    def _headers(self, headers: Mapping[str, str]) -> bytes:
        texts = [text.encode("latin-1") for pair in headers.items() for text in pair]
        block = struct.pack(">I", len(headers)) + b"".join(struct.pack(">I", len(text)) + text for text in texts)
        return self._pack.compress(block) + self._pack.flush(zlib.Z_SYNC_FLUSH)
