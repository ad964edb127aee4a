"""The four EXIF tags in which recipes travel (EXIF 2.32, TIFF 6.0).

An existing block is never rewritten: its bytes stay where they are, so every
offset in it, a camera's private ones too, stays right. New directories are
appended, and the header is pointed at them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from history.metadata.limits import MAX_TEXT

DESCRIPTION: Final = 0x010E
MAKE: Final = 0x010F
MODEL: Final = 0x0110
COMMENT: Final = 0x9286
_EXIF_DIRECTORY: Final = 0x8769

_ASCII, _LONG, _UNDEFINED = 2, 4, 7
_WIDTHS: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 129: 1}
_MAX_ENTRIES = 1000


@dataclass(frozen=True, slots=True)
class _Entry:
    """One line of a directory; `raw` is its four bytes of value or offset."""

    kind: int
    count: int
    raw: bytes


_Directory = dict[int, _Entry]


class _Block:
    """A TIFF block being read.

    Raises:
        ValueError, struct.error: it isn't one, or points outside itself.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4], "")
        if not self.order:
            raise ValueError("not a TIFF block")
        self.main, self.following = self._directory(*struct.unpack_from(f"{self.order}I", data, 4))
        self.exif = self._exif()

    def _exif(self) -> _Directory:
        entry = self.main.get(_EXIF_DIRECTORY)
        if entry is None:
            return {}
        return self._directory(*struct.unpack(f"{self.order}I", entry.raw))[0]

    def _directory(self, offset: int) -> tuple[_Directory, int]:
        """The entries, and the offset of the directory that follows."""
        [count] = struct.unpack_from(f"{self.order}H", self.data, offset)
        if count > _MAX_ENTRIES:
            raise ValueError("too many entries")
        lines = [self._entry(offset + 2 + 12 * index) for index in range(count)]
        [following] = struct.unpack_from(f"{self.order}I", self.data, offset + 2 + 12 * count)
        return dict(lines), following

    def _entry(self, offset: int) -> tuple[int, _Entry]:
        tag, kind, count, raw = struct.unpack_from(f"{self.order}HHI4s", self.data, offset)
        return tag, _Entry(kind, count, raw)

    def value(self, tag: int) -> bytes | None:
        """The bytes of a tag of either directory."""
        entry = self.exif.get(tag) or self.main.get(tag)
        if entry is None:
            return None
        size = _WIDTHS.get(entry.kind, 1) * entry.count
        if size <= 4:
            return entry.raw[:size]
        [offset] = struct.unpack(f"{self.order}I", entry.raw)
        if size > MAX_TEXT or offset + size > len(self.data):
            return None
        return self.data[offset : offset + size]


def _open(data: bytes | None) -> _Block | None:
    try:
        return _Block(data or b"")
    except (ValueError, struct.error):
        return None


# -- reading -------------------------------------------------------------------


def read_tags(data: bytes) -> dict[int, str]:
    """The texts of the four tags, as far as they are there and can be read."""
    block = _open(data)
    if block is None:
        return {}
    values = {tag: block.value(tag) for tag in (DESCRIPTION, MAKE, MODEL, COMMENT)}
    return {tag: _decode(value) for tag, value in values.items() if value}


def _decode(value: bytes) -> str:
    code, body = value[:8], value[8:]
    if code == b"UNICODE\0":
        return _decode_utf16(body)
    if code in (b"ASCII\0\0\0", bytes(8)):
        value = body
    return value.rstrip(b"\0").decode("utf-8", "replace")


def _decode_utf16(body: bytes) -> str:
    """EXIF doesn't say which byte comes first; ASCII letters, which every recipe holds, do."""
    little = body[1::2].count(0) > body[::2].count(0)
    return body.decode("utf-16-le" if little else "utf-16-be", "replace").strip("\ufeff\0")


# -- writing -------------------------------------------------------------------


def with_recipe(data: bytes | None, description: bytes, comment: str) -> bytes:
    """An EXIF block with both texts and everything else that `data` held.

    `comment` is written as Automatic1111 does: UserComment, "UNICODE", UTF-16
    with the high byte first, whatever the block's own order. Empty: left out.
    """
    block = _open(data)
    if block is None or _is_ours(block):
        block = _Block(b"MM\0*" + struct.pack(">IHI", 8, 0, 0))  # one empty directory
    out = _Appender(block)
    main, exif = dict(block.main), dict(block.exif)
    main[DESCRIPTION] = out.entry(_ASCII, description + b"\0")
    if comment:
        text = comment.encode("utf-16-be", "replace")
        exif[COMMENT] = out.entry(_UNDEFINED, b"UNICODE\0" + text)
    if exif:
        offset = out.directory(exif, following=0)
        main[_EXIF_DIRECTORY] = _Entry(_LONG, 1, struct.pack(f"{block.order}I", offset))
    return out.finish(out.directory(main, block.following))


def _is_ours(block: _Block) -> bool:
    """Nothing in it but a recipe: started again, so that writing twice doesn't grow the file."""
    return block.main.keys() <= {DESCRIPTION, _EXIF_DIRECTORY} and block.exif.keys() <= {COMMENT}


class _Appender:
    """Puts values and directories behind a block."""

    def __init__(self, block: _Block) -> None:
        self._order = block.order
        self._out = bytearray(block.data)

    def _append(self, data: bytes) -> int:
        self._out += bytes(len(self._out) % 2)  # offsets are even
        offset = len(self._out)
        self._out += data
        return offset

    def entry(self, kind: int, value: bytes) -> _Entry:
        """A value of more than four bytes, put down; its line for a directory."""
        return _Entry(kind, len(value), struct.pack(f"{self._order}I", self._append(value)))

    def directory(self, entries: _Directory, following: int) -> int:
        """A directory, sorted by tag as the standard asks; where it was put."""
        lines = [
            struct.pack(f"{self._order}HHI4s", tag, entry.kind, entry.count, entry.raw)
            for tag, entry in sorted(entries.items())
        ]
        head = struct.pack(f"{self._order}H", len(lines))
        return self._append(head + b"".join(lines) + struct.pack(f"{self._order}I", following))

    def finish(self, main: int) -> bytes:
        """The block, its header pointing at the new main directory."""
        struct.pack_into(f"{self._order}I", self._out, 4, main)
        return bytes(self._out)
