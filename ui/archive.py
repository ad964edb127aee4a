"""All images of a visitor as one zip file, made while it is sent: it is never whole in memory."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final
from zipfile import ZipFile, ZipInfo

from generation.errors import NotInHistory
from history.store import MAX_ROWS, History

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

BLOCK: Final = 256 * 1024  # bytes


def stored_images(history: History, owner: str) -> Iterator[tuple[str, Path]]:
    """The owner's image files, newest first, each with a name of its own: month/job-index.png."""
    before = None
    while jobs := history.search(owner, limit=MAX_ROWS, before=before):
        for job in jobs:
            for image in job.images:
                try:
                    path = history.image_file(job.id, owner, image.index)
                except NotInHistory:  # deleted meanwhile
                    continue
                yield f"{path.parent.name}/{path.name}", path
        before = jobs[-1].id


def zip_of(files: Iterable[tuple[str, Path]]) -> Iterator[bytes]:
    """A zip file of (name in it, file), in parts of about `BLOCK` bytes.

    Nothing is compressed: images already are.
    """
    outlet = _Outlet()
    with ZipFile(outlet, "w", strict_timestamps=False) as archive:
        for name, path in files:
            yield from _added(archive, outlet, name, path)
    yield outlet.taken()


def _added(archive: ZipFile, outlet: _Outlet, name: str, path: Path) -> Iterator[bytes]:
    try:
        source = path.open("rb")
    except FileNotFoundError:  # purged meanwhile
        return
    with source, archive.open(ZipInfo.from_file(path, name), "w") as entry:
        while block := source.read(BLOCK):
            entry.write(block)
            yield outlet.taken()


class _Outlet(io.RawIOBase):
    """What the archive is written to; it holds only what nobody took yet."""

    def __init__(self) -> None:
        self._held = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        self._held += data
        return memoryview(data).nbytes

    def taken(self) -> bytes:
        """What was written since the last time."""
        taken, self._held = bytes(self._held), bytearray()
        return taken
