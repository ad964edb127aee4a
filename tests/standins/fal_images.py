"""Real images, cheap to make: a few flat shapes that follow from the seed alone."""

import io
import random
import struct
import zlib
from functools import cache, lru_cache
from typing import Any

from PIL import Image, ImageDraw

Options = dict[str, Any]
ENCODERS: dict[str, Options] = {
    "png": {"compress_level": 1},
    "jpeg": {"quality": 85},
    "webp": {"quality": 75, "method": 0},
}
EXTENSIONS = {"png": "png", "jpeg": "jpg", "webp": "webp"}


@lru_cache(maxsize=256)
def picture(size: tuple[int, int], file_format: str, seed: int, black: bool = False) -> bytes:
    """The encoded image, the same for the same arguments."""
    image = Image.new("RGB", size)
    if not black:
        _draw(image, random.Random(seed))
    buffer = io.BytesIO()
    image.save(buffer, file_format, **ENCODERS[file_format])
    return buffer.getvalue()


def _draw(image: Image.Image, dice: random.Random) -> None:
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, *image.size), fill=_colour(dice))
    for _ in range(3):
        xs = sorted(dice.randrange(image.width) for _ in range(2))
        ys = sorted(dice.randrange(image.height) for _ in range(2))
        draw.rectangle((xs[0], ys[0], xs[1], ys[1]), fill=_colour(dice))


def _colour(dice: random.Random) -> tuple[int, int, int]:
    """Never near black, so that only a black image is black."""
    return dice.randrange(40, 256), dice.randrange(40, 256), dice.randrange(40, 256)


def as_jpeg(encoded: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(encoded)).convert("RGB").save(buffer, "jpeg")
    return buffer.getvalue()


@cache
def bomb(side: int = 20_000) -> bytes:
    """A valid one-bit PNG of `side` squared pixels in some fifty kilobytes."""
    row = b"\0" * (1 + (side + 7) // 8)
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(row * 1000) for _ in range(side // 1000)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    )
