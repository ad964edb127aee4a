"""Images made ready for the disk: the recipe inside, hashed, with a preview."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from generation.imagefile import CheckedImage
from generation.result import Receipt
from history.files import image_name, preview_name, preview_of
from history.metadata import embed_recipe, make_recipe
from history.records import Job, StoredImage


@dataclass(frozen=True, slots=True)
class Packed:
    """An image of a job, and its files: names below the data folder with their bytes."""

    record: StoredImage
    files: tuple[tuple[str, bytes], ...]


def pack(job: Job, index: int, image: CheckedImage, receipt: Receipt, app_version: str) -> Packed:
    """One image, its pixels untouched."""
    recipe = make_recipe(job.request, receipt, index=index, app_version=app_version)
    data = embed_recipe(image.data, recipe)
    flags = receipt.has_nsfw_concepts
    record = StoredImage(
        index=index,
        file=image_name(job.id, job.created, index, image.info.extension),
        sha256=hashlib.sha256(data).hexdigest(),
        width=image.info.width,
        height=image.info.height,
        format=image.info.format,
        flagged=index < len(flags) and flags[index],
        size_bytes=len(data),
    )
    files = [(record.file, data)]
    if preview := preview_of(image.data):
        files.append((preview_name(job.id, job.created, index), preview))
    return Packed(record, tuple(files))
