"""Weight files on this machine: written aside and checked before they get their name."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from generation.errors import AdapterUnavailable
from lora_format.header import FIRST_READ, Header, header_size, parse_header
from lora_registry.parts import Part

LENGTH: Final = 8  # of the number in front of the header
Read = Callable[[int, int], Part]


def read_header(read: Read, name: str) -> tuple[bytes, Header]:
    """The bytes that hold a file's header, and the header; one read, a second for a large one.

    `read` gives the bytes from a start up to a stop.

    Raises:
        AdapterRefused: it is no safetensors file, or a hostile one.
    """
    first = read(0, FIRST_READ)
    data, whole = first.data, LENGTH + header_size(first.data)
    if whole > len(data) == FIRST_READ:
        data += read(FIRST_READ, whole).data
    return data[:whole], parse_header(data[:whole], name=name, file_bytes=first.file_bytes)


def header_of(path: Path, name: str) -> Header:
    """The header of a file that is here.

    Raises:
        AdapterRefused: as `read_header`.
    """
    size = path.stat().st_size

    def read(start: int, stop: int) -> Part:
        with path.open("rb") as file:
            file.seek(start)
            return Part(file.read(stop - start), size)

    return read_header(read, name)[1]


def put_in_place(part: Path, path: Path, name: str) -> None:
    """Check a file that is complete and give it its name; a refused one is removed.

    Raises:
        AdapterRefused: it is no safetensors file.
    """
    try:
        header_of(part, name)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextmanager
def disk_said(name: str) -> Iterator[None]:
    """What the disk refuses, in words.

    Raises:
        AdapterUnavailable: it is full, or can't be written.
    """
    try:
        yield
    except OSError as exc:
        full = exc.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "the disk is full" if full else f"the disk refuses it ({exc.strerror})"
        raise AdapterUnavailable(name=name, reason=reason) from exc
