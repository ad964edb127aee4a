"""From a request to pictures: composed once, then drawn at any size and number of steps."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from backends.demo.canvas import Grid, Layer, paint
from backends.demo.color import Plane, to_srgb
from backends.demo.dice import Adapter, Dice, generator
from backends.demo.families import FAMILIES
from backends.demo.fields import Waves, waves
from backends.demo.mark import add_mark
from backends.demo.prompt import read
from backends.demo.sheet import Sheet
from backends.demo.treatments import treat
from generation.request import GenerationRequest, OutputFormat

ALL_STEPS: Final = 8
_BAND: Final = 48 * 1024  # pixels drawn at once: small enough for a core's own cache
_GRAIN: Final = 0.025  # of the lightness; also hides the steps of 8 bits

Stop = Callable[[], bool]


class Stopped(Exception):
    """Nobody waits for the picture any more."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A composition: `size` in pixels at full size, everything else in units.

    `mottle` are three fields, for lightness and the two colour axes: what is
    not yet resolved after a few steps.
    """

    layers: tuple[Layer, ...]
    adapters: tuple[Adapter, ...]
    mottle: tuple[Waves, ...]
    seed: int
    size: tuple[int, int]
    width: float
    height: float


def compose(request: GenerationRequest, prompt: str, seed: int) -> Picture:
    """Decide everything but the resolution. `prompt` is the text to draw, expanded or not."""
    reading = read(prompt)
    adapters = tuple((lora.path, lora.scale) for lora in request.loras)
    width, height = request.pixels
    unit = max(min(width, height), max(width, height) / 4)
    dice = Dice(reading.place, seed, adapters)
    sheet = Sheet(dice, reading.palette, width / unit, height / unit)
    rest = Dice(reading.place, seed)
    return Picture(
        layers=tuple(FAMILIES[reading.family](sheet)),
        adapters=adapters,
        mottle=tuple(waves(rest, f"mottle{axis}", 9, 24) for axis in range(3)),
        seed=seed,
        size=(width, height),
        width=sheet.width,
        height=sheet.height,
    )


def draw(
    picture: Picture, size: tuple[int, int], steps: int, stop: Stop = lambda: False
) -> Image.Image:
    """Draw and mark a picture at `size` (width, height in pixels), as far as `steps` resolve it.

    Raises:
        Stopped: `stop` said so; it is asked every few milliseconds.
    """
    width, height = size
    pixels = np.empty((height, width, 3), np.uint8)
    noise = generator("grain", picture.seed, width, height)
    rows = max(1, _BAND // width)
    for top in range(0, height, rows):
        if stop():
            raise Stopped
        bottom = min(top + rows, height)
        white = noise.random((bottom - top, width), dtype=np.float32)
        pixels[top:bottom] = _band(picture, _grid(picture, size, top, white, steps))
    image = Image.fromarray(pixels)
    add_mark(image)
    return image


def encode(image: Image.Image, kind: OutputFormat, quality: int = 92) -> bytes:
    """The image as a file; fast rather than small. `quality` is for JPEG and WebP."""
    file = io.BytesIO()
    if kind == "png":
        image.save(file, "PNG", compress_level=1)
    elif kind == "webp":
        image.save(file, "WEBP", quality=quality, method=1)
    else:
        image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def _grid(picture: Picture, size: tuple[int, int], top: int, noise: Plane, steps: int) -> Grid:
    """The points of a band of rows that starts at row `top`."""
    px = picture.width / size[0]
    detail = (steps - 1) / (ALL_STEPS - 1)
    return Grid(
        x=_centres(0, size[0], px)[None],
        y=_centres(top, noise.shape[0], picture.height / size[1])[:, None],
        noise=noise,
        px=px,
        soft=1.2 * px + 0.10 * (1 - detail) ** 2.2,
        detail=detail,
        width=picture.width,
        height=picture.height,
    )


def _centres(first: int, count: int, pitch: float) -> Plane:
    """Where pixels are: (count,) in units."""
    return ((np.arange(first, first + count) + 0.5) * pitch).astype(np.float32)


def _band(picture: Picture, grid: Grid) -> npt.NDArray[np.uint8]:
    lab = np.zeros((3, *grid.noise.shape), np.float32)
    for layer in picture.layers:
        paint(lab, grid, layer)
    treat(lab, grid, picture.adapters)
    if grid.detail < 1:
        _unresolve(lab, grid, picture.mottle)
    lab[0] += _GRAIN * (grid.noise - 0.5)
    return to_srgb(lab)


def _unresolve(lab: Plane, grid: Grid, mottle: tuple[Waves, ...]) -> None:
    """Blotches of lightness and colour, as a few steps leave them."""
    left = (1 - grid.detail) ** 1.8
    for plane, field, strength in zip(lab, mottle, (0.045, 0.022, 0.022), strict=True):
        plane += (strength * left) * field(grid)
