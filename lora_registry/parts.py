"""Reading a part of a file over HTTP: what is asked for, and what an answer says of the whole."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

MAX_FILE: Final = 2 * 2**30
CHUNK: Final = 2**20
SECONDS: Final = 15.0
DOWNLOAD_SECONDS: Final = 3600.0
IDENTITY: Final = {"Accept-Encoding": "identity"}

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are here and all bytes, where those are known."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some bytes of a file, and how many the whole file has where the answer said so."""

    data: bytes
    file_bytes: int | None


def range_of(start: int, stop: int | None = None) -> dict[str, str]:
    """Headers that ask for the bytes from `start` up to, not including, `stop`."""
    last = "" if stop is None else stop - 1
    return IDENTITY | {"Range": f"bytes={start}-{last}"}


def file_bytes(status: int, headers: Mapping[str, str]) -> int | None:
    """The whole file's size: behind the slash of Content-Range, or the length of all of it."""
    ranged = re.search(r"/(\d{1,18})$", headers.get("content-range", ""))
    if ranged:
        return int(ranged[1])
    length = headers.get("content-length", "")
    return int(length) if status == 200 and re.fullmatch(r"\d{1,18}", length) else None
