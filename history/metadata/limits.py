"""How much of a file from outside is looked at."""

from __future__ import annotations

import json
import zlib
from typing import Any, Final

MAX_TEXT: Final = 1024 * 1024  # bytes of one text, unpacked; ComfyUI's graphs reach 200 KB
MAX_TEXTS: Final = 64
MAX_CHUNKS: Final = 20_000  # a 16-megapixel PNG in chunks of 8 KiB has about 8,000
MAX_NAMED: Final = 24  # things that couldn't be restored, by name


def inflate(packed: bytes) -> bytes | None:
    """Unpacked zlib data, or None where it is broken or more than `MAX_TEXT` bytes."""
    try:
        data = zlib.decompressobj().decompress(packed, MAX_TEXT + 1)
    except zlib.error:
        return None
    return data if len(data) <= MAX_TEXT else None


def load_object(text: str) -> dict[str, Any] | None:
    """A JSON object, or None for anything else, however hostile."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        # Not a number, so nothing for us: NaN and Infinity become None.
        value = json.loads(text, parse_constant=lambda _name: None)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def clean(text: str) -> str:
    """Text that any encoder takes: the halves of a character become U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
