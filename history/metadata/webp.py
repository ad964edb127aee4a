"""The EXIF chunk of a WebP file (RFC 9649)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from history.metadata.limits import MAX_CHUNKS

SIGNATURE: Final = b"RIFF"
FORM: Final = b"WEBP"
_HEADER = 12
_EXIF_FLAG, _ALPHA_FLAG = 0x08, 0x10
_NAME = b"Exif\0\0"  # belongs to JPEG; some writers put it here too

# Kind, start and end (padding included) of a chunk; its body begins at start + 8.
_Chunk = tuple[bytes, int, int]


def read_exif(data: bytes) -> bytes | None:
    """The EXIF block."""
    for kind, start, _end in _chunks(data):
        if kind == b"EXIF":
            return _body(data, start).removeprefix(_NAME)
    return None


def with_exif(data: bytes, block: bytes) -> bytes:
    """`data` with `block` as its EXIF chunk; as it was where the file is too odd to change."""
    chunks = list(_chunks(data))
    header = _extended_header(data, chunks[0]) if chunks else None
    if header is None:
        return data
    body = [header]
    body += [data[start:end] for kind, start, end in chunks if kind not in (b"VP8X", b"EXIF")]
    # XMP is the only chunk that the standard puts behind EXIF.
    at = next((i for i, part in enumerate(body) if part[:4] == b"XMP "), len(body))
    body.insert(at, _chunk(b"EXIF", block))
    inside = FORM + b"".join(body)
    return SIGNATURE + struct.pack("<I", len(inside)) + inside + data[chunks[-1][2] :]


def _extended_header(data: bytes, first: tuple[bytes, int, int]) -> bytes | None:
    """The VP8X chunk that announces EXIF: the file's own, or one made for a simple file."""
    kind, start, _end = first
    body = _body(data, start)
    if kind == b"VP8X" and len(body) >= 10:
        return _chunk(b"VP8X", bytes([body[0] | _EXIF_FLAG]) + body[1:])
    if kind == b"VP8L" and body[:1] == b"\x2f" and len(body) >= 5:
        [bits] = struct.unpack_from("<I", body, 1)
        alpha = _ALPHA_FLAG if bits >> 28 & 1 else 0
        return _made_header(alpha, bits & 0x3FFF, bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a" and len(body) >= 10:
        width, height = struct.unpack_from("<HH", body, 6)
        return _made_header(0, (width & 0x3FFF) - 1, (height & 0x3FFF) - 1)
    return None


def _made_header(flags: int, last_column: int, last_row: int) -> bytes:
    size = last_column.to_bytes(3, "little") + last_row.to_bytes(3, "little")
    return _chunk(b"VP8X", bytes([flags | _EXIF_FLAG, 0, 0, 0]) + size)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def _body(data: bytes, start: int) -> bytes:
    [length] = struct.unpack_from("<I", data, start + 4)
    return data[start + 8 : start + 8 + length]


def _chunks(data: bytes) -> Iterator[_Chunk]:
    """Whole chunks, up to the first that isn't, or to the end that the file declares."""
    [size] = struct.unpack_from("<I", data, 4)
    stop, start = min(len(data), size + 8), _HEADER
    for _ in range(MAX_CHUNKS):
        if start + 8 > stop:
            return
        kind, length = struct.unpack_from("<4sI", data, start)
        end = start + 8 + length + length % 2
        if end > stop + length % 2 or start + 8 + length > stop:
            return
        yield kind, start, min(end, len(data))
        start = end
