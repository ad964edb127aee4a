"""What counts as an image file, decided by its bytes and never by its label."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Final

from PIL import Image

from generation.errors import MediaBroken, MediaRefused

MAX_PIXELS: Final = 16_000_000
MAX_BYTES: Final = 64 * 1024 * 1024  # 16 MP of noise as an uncompressed-looking PNG
_BLACK_PNG: Final = 20  # pixels per byte: a black PNG packs hundreds of pixels into each
EXTENSIONS: Final = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """Format is Pillow's name (PNG, JPEG, WEBP); width and height are pixels."""

    format: str
    width: int
    height: int
    all_black: bool

    @property
    def extension(self) -> str:
        """The file name's ending, without a dot."""
        return EXTENSIONS[self.format]

    @property
    def media_type(self) -> str:
        """The MIME type that matches the bytes."""
        return f"image/{self.format.lower()}"


@dataclass(frozen=True, slots=True)
class CheckedImage:
    """The bytes of a whole image, and what decoding them showed."""

    data: bytes
    info: ImageInfo


def open_image(data: bytes) -> Image.Image:
    """Open PNG, JPEG or WebP bytes with the size checked before a pixel is decoded.

    Raises:
        MediaRefused: not such an image, or more than 16 megapixels.
    """
    if len(data) > MAX_BYTES:
        raise MediaRefused(reason=f"{len(data) // 2**20} MiB, more than {MAX_BYTES // 2**20}")
    try:
        image = Image.open(io.BytesIO(data), formats=tuple(EXTENSIONS))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as exc:
        raise MediaRefused(reason="it is not a PNG, JPEG or WebP image") from exc
    if image.width * image.height > MAX_PIXELS:
        raise MediaRefused(reason=f"{image.width} × {image.height} pixels, more than 16 megapixels")
    return image


def inspect_image(data: bytes) -> ImageInfo:
    """Check that the whole image is there, and what it is.

    Raises:
        MediaRefused: see `open_image`.
        MediaBroken: the header is right and the rest is not.
    """
    image = open_image(data)
    black = False
    try:
        if image.format == "PNG":
            image.verify()  # by checksums up to the last chunk, a tenth of decoding it
            image = open_image(data)
        if image.format != "PNG" or len(data) < image.width * image.height / _BLACK_PNG:
            image.load()
            black = _all_black(image)
    except (OSError, ValueError, SyntaxError) as exc:
        raise MediaBroken(reason="the file is cut short") from exc
    return ImageInfo(str(image.format), image.width, image.height, black)


def check_image(data: bytes) -> CheckedImage:
    """`inspect_image`, with the bytes kept beside what it found."""
    return CheckedImage(data, inspect_image(data))


def _all_black(image: Image.Image) -> bool:
    return image.convert("L").getextrema() == (0, 0)
