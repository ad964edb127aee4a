"""The mark that says on the image itself that no model made it."""

from __future__ import annotations

from typing import Final

from PIL import Image, ImageDraw, ImageFont

TEXTS: Final = ("DEMO · not Z-Image", "DEMO")
_PLATE: Final = (20, 20, 22)
_INK: Final = (246, 244, 238)
_SMALLEST: Final = 9  # pixels; below, the built-in font can't be read


def add_mark(image: Image.Image) -> None:
    """Mark an image in place: a tag in the lower left corner, a chequered edge if too small.

    The tag brings its own dark plate, so it reads on any picture.
    """
    for text in TEXTS:
        if _tag(image, text):
            return
    _chequer(image)


def _tag(image: Image.Image, text: str) -> bool:
    """Draw the tag if the image has room for it, with a margin."""
    size = max(_SMALLEST, round(min(image.size) * 0.026))
    font = ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(text)
    wide, high = round(right - left + 1.5 * size), round(1.9 * size)
    margin = max(2, size * 3 // 4)
    if wide + 2 * margin > image.width or high + 2 * margin > image.height:
        return False
    x, y = margin, image.height - margin - high
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle((x, y, x + wide - 1, y + high - 1), radius=size // 3, fill=_PLATE)
    place = (x + (wide - right - left) / 2, y + (high - top - bottom) / 2)
    draw.text(place, text, font=font, fill=_INK)
    return True


def _chequer(image: Image.Image) -> None:
    """Squares of black and white along the lower edge; a single pixel is white.

    Never all black: that is how the endpoint shows a flagged image.
    """
    side = max(1, min(image.size) // 6)
    top = image.height - side
    draw = ImageDraw.Draw(image)
    for number, x in enumerate(range(0, image.width, side)):
        fill = _PLATE if number % 2 else _INK
        draw.rectangle((x, top, x + side - 1, top + side - 1), fill=fill)
