"""Images made ready for the disk: the recipe inside, hashed."""

from __future__ import annotations

import hashlib

from generation.imagefile import CheckedImage
from generation.result import Receipt
from history.files import image_name
from history.metadata import embed_recipe, make_recipe
from history.records import Job, StoredImage


def pack(
    job: Job, index: int, image: CheckedImage, receipt: Receipt, app_version: str, mark: str = ""
) -> tuple[StoredImage, bytes]:
    """One image as it will lie in its file, its pixels untouched, and the record of it.

    `mark` becomes a part of the file's name.
    """
    recipe = make_recipe(job.request, receipt, index=index, app_version=app_version)
    data = embed_recipe(image.data, recipe)
    flags = receipt.has_nsfw_concepts
    record = StoredImage(
        index=index,
        file=image_name(job.id, job.created, index, mark, image.info.extension),
        sha256=hashlib.sha256(data).hexdigest(),
        width=image.info.width,
        height=image.info.height,
        format=image.info.format,
        flagged=index < len(flags) and flags[index],
        size_bytes=len(data),
    )
    return record, data
