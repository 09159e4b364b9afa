"""SPDY frames: read back as written, however they are cut; what is no SPDY is told."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knarr.apiserver import spdy


def test_the_dictionary_is_that_of_version_3() -> None:
    assert (len(spdy.DICTIONARY), zlib.adler32(spdy.DICTIONARY)) == (1423, 0xE3C6A7C2)


@given(st.integers(1, 7))
def test_frames_are_read_back_however_they_are_cut(step: int) -> None:
    writer, reader = spdy.Writer(), spdy.Reader()
    sent = [
        writer.syn_stream(1, {"streamtype": "error", "port": "80"}),
        writer.syn_stream(3, {"streamtype": "data", "port": "80"}),
        writer.data(3, b"hello", fin=True),
        writer.syn_reply(3),
        writer.reset(5, 3),
    ]
    data = b"".join(sent)
    found = [frame for start in range(0, len(data), step) for frame in reader.feed(data[start : start + step])]
    assert [(frame.kind, frame.stream, frame.fin) for frame in found] == [
        (spdy.SYN_STREAM, 1, False),
        (spdy.SYN_STREAM, 3, False),
        (0, 3, True),
        (spdy.SYN_REPLY, 3, False),
        (spdy.RST_STREAM, 5, False),
    ]
    assert [frame.headers.get("streamtype") for frame in found[:2]] == ["error", "data"]
    assert found[2].data == b"hello"


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">II", 1, 0xFFFFFF),
        struct.pack(">HHI", 0x8002, 1, 0),
        struct.pack(">HHI", 0x8003, 1, 4) + b"abcd",
        struct.pack(">HHI", 0x8003, 1, 14) + bytes(10) + b"abcd",
    ],
    ids=["too long", "SPDY/2", "too short", "no headers"],
)
def test_what_is_no_spdy_is_told(data: bytes) -> None:
    with pytest.raises(spdy.ProtocolError):
        list(spdy.Reader().feed(data))


@given(st.binary(max_size=200))
def test_any_bytes_are_frames_or_a_protocol_error(data: bytes) -> None:
    try:
        list(spdy.Reader().feed(data))
    except spdy.ProtocolError:
        pass


def test_headers_that_unpack_to_very_much_are_refused() -> None:
    block = struct.pack(">I", 1) + struct.pack(">I", 1 << 24) + bytes(1 << 24)
    pack = zlib.compressobj(zdict=spdy.DICTIONARY)
    packed = pack.compress(block) + pack.flush(zlib.Z_SYNC_FLUSH)
    frame = struct.pack(">HHI", 0x8003, 1, 10 + len(packed)) + bytes(10) + packed
    with pytest.raises(spdy.ProtocolError, match="longer"):
        list(spdy.Reader().feed(frame))
