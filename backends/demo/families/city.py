"""City: rows of towers in haze, windows lit in the nearer ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from backends.demo.canvas import Box, Grid, Ink, Layer, Shape
from backends.demo.color import Plane, mix
from backends.demo.dice import Vector
from backends.demo.inks import down, flat, flipped, graded, stippled
from backends.demo.shapes import rectangle, segment
from backends.demo.sheet import Sheet


def city(sheet: Sheet) -> list[Layer]:
    """Three or four rows of towers before a large low sun."""
    ground = sheet.y("ground", 0.86, 0.98)
    x, y = sheet.x("sun.x", 0.2, 0.8), sheet.y("sun.y", 0.2, 0.5)
    radius = sheet.dice.between("sun.r", 0.09, 0.2)
    layers = [*sheet.sky(sheet.height * 0.8), *sheet.sun(x, y, radius)]
    rows = sheet.dice.count("rows", 3, 4)
    for index in range(rows):
        layers += _row(sheet, f"row{index}", index / (rows - 1), ground)
    return layers


def _row(sheet: Sheet, name: str, near: float, ground: float) -> Iterator[Layer]:
    """One row; `near` runs from 0 (the haze) to 1 (the front)."""
    palette, h = sheet.palette, sheet.height
    tall = h * (0.62 - 0.30 * near)
    wall = palette.land(0.1 + 0.85 * near)
    haze = mix(palette.land(max(0.0, near - 0.35)), palette.air(1.0), 0.5 * (1 - near))
    ink = graded(wall, haze, stippled(down(ground - tall, ground + 0.3 * h), 0.25))
    for number, (left, right, height) in enumerate(_plots(sheet, name, near)):
        tower, label = (left, ground - tall * height, right, ground), f"{name}.{number}"
        yield from _tower(sheet, label, tower, ink)
        if near > 0.3 and right - left > 0.04:
            yield _windows(sheet, label, tower, near)
    yield Layer(rectangle(-1, ground - 0.01, sheet.width + 1, h + 1), ink)


def _plots(sheet: Sheet, name: str, near: float) -> Iterator[tuple[float, float, float]]:
    """Left, right (units) and height (0 to 1) of each tower of a row, with gaps between."""
    count = int(sheet.width * (13 - 5 * near)) + 2
    widths = 0.55 + sheet.dice.units(f"{name}.width", count)
    gaps = sheet.dice.units(f"{name}.gap", count) ** 3 * 0.9
    heights = 0.18 + 0.82 * sheet.dice.units(f"{name}.height", count) ** 1.6
    ends = np.cumsum(widths + gaps)
    # A little wider than the sheet, so that the first and the last tower are cut off.
    scale = sheet.width * 1.06 / ends[-1]
    right = ends * scale - 0.03 * sheet.width
    yield from zip(*_lists(right - widths * scale, right, heights), strict=True)


def _lists(*columns: Vector) -> list[list[float]]:
    return [column.tolist() for column in columns]


def _tower(sheet: Sheet, name: str, tower: Box, ink: Ink) -> Iterator[Layer]:
    """The tower, and what stands on its roof."""
    left, top, right, _ = tower
    wide, middle = right - left, (left + right) / 2
    roof = sheet.dice.count(f"{name}.roof", 0, 5)
    yield Layer(rectangle(*tower), ink)
    if roof == 1:
        yield Layer(rectangle(left + wide * 0.2, top - wide * 0.25, right - wide * 0.2, top), ink)
    if roof == 2:
        yield Layer(rectangle(left + wide * 0.08, top - wide * 0.18, middle, top), ink)
    if roof in (1, 3) and wide > 0.05:
        yield Layer(segment(middle, top - wide * 0.9, middle, top, 0.0035), ink)


def _windows(sheet: Sheet, name: str, tower: Box, near: float) -> Layer:
    """A regular front of windows, some of them lit."""
    left, top, right, bottom = tower
    columns = max(2, round((right - left) / (0.012 + 0.006 * near)))
    lit = sheet.dice.units(f"{name}.lit", 97) < (0.42 if sheet.palette.dark else 0.2)
    shape = _panes(tower, columns, lit)
    glow = mix(sheet.palette.accent, sheet.palette.tones[0], 0.35)
    return Layer(shape, flat(glow), 0.5 + 0.4 * near, fade=flipped(down(top, bottom)))


def _panes(tower: Box, columns: int, lit: npt.NDArray[np.bool_]) -> Shape:
    """The lit panes of a front; `lit` is repeated over them in an order that shows no rows."""
    left, top, right, _ = tower
    pitch = (right - left) / (columns + 1)

    def distance(grid: Grid) -> Plane:
        u = (grid.x - left) / pitch - 0.5
        v = (grid.y - top) / (pitch * 1.5) - 0.5
        column, row = np.floor(u), np.floor(v)
        pane = np.maximum(np.abs(u - column - 0.5) - 0.24, 1.5 * np.abs(v - row - 0.5) - 0.4)
        wall = (column < 0) | (column >= columns) | (row < 0)
        on = lit[(column * 31 + row * 17).astype(np.int32) % len(lit)] & ~wall
        return np.where(on, pane, 1) * pitch

    return Shape(distance, tower, pitch * 0.48)
