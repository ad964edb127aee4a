"""The EXIF segment of a JPEG (JEITA CP-3451, 4.5.4)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from history.metadata.limits import MAX_CHUNKS

SIGNATURE: Final = b"\xff\xd8\xff"
MAX_EXIF: Final = 0xFFFF - 2 - 6  # a segment's length counts itself and the six bytes of its name
_NAME = b"Exif\0\0"
_APP0, _APP1, _SCAN, _END = 0xE0, 0xE1, 0xDA, 0xD9
_ALONE = (0x01, *range(0xD0, 0xD9))  # markers without a body

# Marker, start and end of a segment; its body lies between start + 4 and end.
_Segment = tuple[int, int, int]


def read_exif(data: bytes) -> bytes | None:
    """The EXIF block, without its name."""
    segment = _exif_segment(data)
    return segment and data[segment[1] + 10 : segment[2]]


def with_exif(data: bytes, block: bytes) -> bytes:
    """`data` with `block` (`MAX_EXIF` bytes at most) as its EXIF segment."""
    new = b"\xff\xe1" + struct.pack(">H", len(block) + 8) + _NAME + block
    segment = _exif_segment(data)
    if segment:
        return data[: segment[1]] + new + data[segment[2] :]
    at = _after_app0(data)
    return data[:at] + new + data[at:]


def _exif_segment(data: bytes) -> _Segment | None:
    for marker, start, end in _segments(data):
        if marker == _APP1 and data[start + 4 : start + 10] == _NAME:
            return marker, start, end
    return None


def _after_app0(data: bytes) -> int:
    """Behind JFIF's own segment, which wants to be the first."""
    for marker, _start, end in _segments(data):
        return end if marker == _APP0 else 2
    return 2


def _segments(data: bytes) -> Iterator[_Segment]:
    """The segments before the pixels, up to the first that isn't whole."""
    start = 2
    for _ in range(MAX_CHUNKS):
        if start + 4 > len(data) or data[start] != 0xFF:
            return
        marker = data[start + 1]
        if marker == 0xFF:  # a fill byte
            start += 1
            continue
        if marker in (_SCAN, _END) or marker in _ALONE:
            return
        [length] = struct.unpack_from(">H", data, start + 2)
        end = start + 2 + length
        if length < 2 or end > len(data):
            return
        yield marker, start, end
        start = end
