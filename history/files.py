"""The image files: whole or not there at all.

    images/2026-11/{job id}-{index}.png      as made, plus the recipe; with its worker in
                                             the name where several may write it
    previews/2026-11/{job id}-{index}.webp   long side 512 pixels at most, made when first seen

A month has its folder so that none grows without end.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final

from PIL import Image

from generation.errors import StorageError
from generation.imagefile import open_image

PREVIEW_SIDE: Final = 512


def preview_of(data: bytes) -> bytes | None:
    """A small WebP of a whole image, long side `PREVIEW_SIDE` pixels at most.

    None where Pillow can't: an image that was paid for isn't lost over its preview.
    """
    try:
        return _preview(open_image(data))
    except (OSError, ValueError, SyntaxError):
        return None


def _preview(image: Image.Image) -> bytes:
    # Colours are judged by the preview too; a profile of grey or CMYK would fit no longer.
    profile = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA") else None
    image.draft("RGB", (PREVIEW_SIDE, PREVIEW_SIDE))  # JPEG decodes small by itself
    # A palette can't be scaled smoothly.
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    image.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    out = io.BytesIO()
    image.save(out, "WEBP", quality=80, method=1, icc_profile=profile or b"")
    return out.getvalue()


class ImageFolder:
    """Names and files below the data folder; a name never comes from outside."""

    def __init__(self, root: Path, mark: str = "") -> None:
        """`mark` is in the names of unfinished files: another process may write the same."""
        self._root = root.resolve()
        self._mark = mark

    def path(self, name: str) -> Path:
        """The file of a relative name.

        Raises:
            StorageError: it would lie outside the data folder.
        """
        path = (self._root / name).resolve()
        if not path.is_relative_to(self._root):
            raise StorageError
        return path

    def write(self, files: Iterable[tuple[str, bytes]]) -> None:
        """Write each (name, bytes); a failure leaves whole files or none, never a part."""
        folders = {self._root}
        for name, data in files:
            path = self.path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_whole(path, data, f"{self._mark}.part")
            folders |= {path.parent, path.parent.parent}
        # Every level, each time: an earlier attempt may have made a folder and gone no further.
        for folder in folders:
            _sync_folder(folder)

    def remove(self, created: datetime, job_ids: set[str]) -> None:
        """Remove every file of the jobs of one month, left-over parts included."""
        for kind in ("images", "previews"):
            folder = self._root / kind / _month(created)
            if not folder.is_dir():
                continue
            for entry in os.scandir(folder):
                if entry.name.partition("-")[0] in job_ids:
                    os.unlink(entry.path)


def image_name(job_id: str, created: datetime, index: int, mark: str, extension: str) -> str:
    """Where an image lies, relative to the data folder."""
    return f"images/{_month(created)}/{job_id}-{index}{mark}.{extension}"


def preview_name(job_id: str, created: datetime, index: int) -> str:
    """Where the image's preview lies."""
    return f"previews/{_month(created)}/{job_id}-{index}.webp"


def _month(created: datetime) -> str:
    return f"{created:%Y-%m}"


def _write_whole(path: Path, data: bytes, suffix: str) -> None:
    """Write aside, sync, and only then give the file its name."""
    part = path.with_name(path.name + suffix)
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    """Make the names in `folder` last; a rename alone may be forgotten by a power cut."""
    if os.name == "nt":  # which has no handles of folders
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
