"""Text chunks of a PNG (PNG specification, 11.3.3), byte by byte."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final

from history.metadata.limits import MAX_CHUNKS, MAX_TEXT, MAX_TEXTS, inflate

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_TEXT_KINDS = (b"tEXt", b"zTXt", b"iTXt")

# Kind, start and end of a chunk; its data lies between start + 8 and end - 4.
_Chunk = tuple[bytes, int, int]


def read_texts(data: bytes) -> dict[str, str]:
    """Texts by keyword; of several with one keyword, the first."""
    texts: dict[str, str] = {}
    chunks = (chunk for chunk in _chunks(data) if chunk[0] in _TEXT_KINDS)
    for kind, start, end in islice(chunks, MAX_TEXTS):
        if end - start <= MAX_TEXT and (found := _text(kind, data[start + 8 : end - 4])):
            texts.setdefault(*found)
    return texts


def read_exif(data: bytes) -> bytes | None:
    """The block of the eXIf chunk."""
    for kind, start, end in _chunks(data):
        if kind == b"eXIf":
            return data[start + 8 : end - 4]
    return None


def with_texts(data: bytes, texts: Mapping[str, str]) -> bytes:
    """`data` with the texts before its pixels, in place of earlier ones by their keywords."""
    out = bytearray(data[: len(SIGNATURE)])
    done, rest = False, len(SIGNATURE)
    for kind, start, end in _chunks(data):
        if kind == b"IDAT" and not done:
            out += b"".join(_text_chunk(key, text) for key, text in texts.items())
            done = True
        if not (kind in _TEXT_KINDS and _keyword(data[start + 8 : end - 4]) in texts):
            out += data[start:end]
        rest = end
    return bytes(out + data[rest:]) if done else data


def _chunks(data: bytes) -> Iterator[_Chunk]:
    """Whole chunks, up to the first that isn't."""
    start = len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        if start + 12 > len(data):
            return
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        if end > len(data):
            return
        yield kind, start, end
        start = end


def _keyword(body: bytes) -> str:
    return body[:80].partition(b"\0")[0].decode("latin-1")


def _text(kind: bytes, body: bytes) -> tuple[str, str] | None:
    keyword, separator, rest = body.partition(b"\0")
    if not separator or len(keyword) > 79:
        return None
    value, encoding = _value(kind, rest)
    if value is None:
        return None
    return keyword.decode("latin-1"), value.decode(encoding, "replace")


def _value(kind: bytes, rest: bytes) -> tuple[bytes | None, str]:
    if kind == b"tEXt":
        return rest, "latin-1"
    if kind == b"zTXt":
        return inflate(rest[1:]), "latin-1"
    compressed = rest[:1] == b"\x01"
    _language, _, rest = rest[2:].partition(b"\0")
    _translated, _, value = rest.partition(b"\0")
    return inflate(value) if compressed else value, "utf-8"


def _text_chunk(keyword: str, text: str) -> bytes:
    """tEXt where it can hold the text, since every reader knows it; else iTXt in UTF-8."""
    if text.isascii():
        return _chunk(b"tEXt", keyword.encode("latin-1") + b"\0" + text.encode("ascii"))
    header = keyword.encode("latin-1") + b"\0\0\0\0\0"
    return _chunk(b"iTXt", header + text.encode("utf-8", "replace"))


def _chunk(kind: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)
