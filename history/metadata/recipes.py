"""Our recipe: complete as JSON, and as the `parameters` text that other tools read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, Final, Literal
from urllib.parse import unquote, urlsplit

from generation.errors import MediaRefused
from generation.imagefile import MAX_BYTES
from generation.request import GenerationRequest
from generation.result import Receipt
from history.metadata import a1111, exif, jpeg, png, webp

KEY: Final = "playground_recipe"  # the PNG keyword, and in the JSON the version of its format
PARAMETERS: Final = "parameters"
VERSION: Final = 1
SOURCE: Final = "Z-Image Turbo LoRA Playground"


def make_recipe(
    request: GenerationRequest, receipt: Receipt, *, index: int = 0, app_version: str
) -> dict[str, Any]:
    """All that an image needs to be made again, as plain JSON.

    `request` is the endpoint's payload with the seed that was used, as text;
    `receipt` says what was really done, adapters with file and sha included;
    `image` is the position in the job.
    """
    return {
        KEY: VERSION,
        "app_version": app_version,
        "backend": receipt.backend,
        "request": request.payload() | {"seed": receipt.seed},
        "receipt": receipt.as_json(),
        "image": index,
    }


def embed_recipe(image: bytes, recipe: Mapping[str, Any]) -> bytes:
    """`image` (PNG, JPEG or WebP bytes) with the recipe inside, every pixel and chunk kept.

    An earlier recipe is replaced. Where a file has no room (a JPEG's EXIF ends
    at 64 KB) less is written: the receipt and the `parameters` text go first.

    Raises:
        MediaRefused: another format.
    """
    kind = image_kind(image)
    if kind == "PNG":
        return png.with_texts(image, {KEY: json.dumps(recipe), PARAMETERS: parameters(recipe)})
    if kind == "WEBP":
        description, comment = next(_versions(recipe))
        return webp.with_exif(image, exif.with_recipe(webp.read_exif(image), description, comment))
    return _embed_jpeg(image, recipe)


def _embed_jpeg(image: bytes, recipe: Mapping[str, Any]) -> bytes:
    found = jpeg.read_exif(image)
    for description, comment in _versions(recipe):
        block = exif.with_recipe(found, description, comment)
        if len(block) <= jpeg.MAX_EXIF:
            return jpeg.with_exif(image, block)
    return image


def _versions(recipe: Mapping[str, Any]) -> Iterator[tuple[bytes, str]]:
    """ImageDescription and UserComment, from the most to the least complete."""
    yield json.dumps(recipe).encode("ascii"), parameters(recipe)
    # EXIF 2 asks for ASCII; UTF-8 takes a third to a half and is read as well.
    yield _utf8(recipe), parameters(recipe)
    yield _utf8({**recipe, "receipt": None}), ""


def _utf8(recipe: Mapping[str, Any]) -> bytes:
    return json.dumps(recipe, ensure_ascii=False).encode("utf-8", "replace")


def image_kind(data: bytes) -> Literal["PNG", "JPEG", "WEBP"]:
    """The format, by its first bytes; nothing is decoded.

    Raises:
        MediaRefused: too large, or none of the three.
    """
    if len(data) > MAX_BYTES:
        raise MediaRefused(reason=f"{len(data) // 2**20} MiB, more than {MAX_BYTES // 2**20}")
    if data.startswith(png.SIGNATURE):
        return "PNG"
    if data.startswith(jpeg.SIGNATURE):
        return "JPEG"
    if data.startswith(webp.SIGNATURE) and data[8:12] == webp.FORM:
        return "WEBP"
    raise MediaRefused(reason="it is not a PNG, JPEG or WebP image")


# -- the common text -----------------------------------------------------------


def parameters(recipe: Mapping[str, Any]) -> str:
    """The recipe as Automatic1111 would write it, without what this model doesn't have."""
    request, receipt = recipe["request"], recipe["receipt"]
    size = receipt["image_size"]
    settings = {
        "Steps": receipt["num_inference_steps"],
        "Seed": receipt["seed"],
        "Size": f"{size['width']}x{size['height']}",
        "Model": "Z-Image-Turbo",
        "Acceleration": receipt["acceleration"],
        "Version": f"{SOURCE} {recipe['app_version']}",
    }
    loras = [(adapter_name(lora), lora["scale"]) for lora in receipt["loras"]]
    return a1111.write(request["prompt"], loras, settings)


def adapter_name(lora: Mapping[str, Any]) -> str:
    """What a person calls the file: its name without folder and ending."""
    path = lora.get("file") or lora["path"]
    if "://" in path:
        path = unquote(urlsplit(path).path)
    return PurePosixPath(path.strip("/")).name.removesuffix(".safetensors") or "adapter"
