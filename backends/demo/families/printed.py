"""Orbits and tiles: plain geometry, as a screen print."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from backends.demo.canvas import Layer, Shape, overprint, shine
from backends.demo.color import Lab, mix
from backends.demo.inks import along, flat, graded, stippled
from backends.demo.shapes import both, disc, rectangle, ring
from backends.demo.sheet import Sheet

# -- orbits --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Print:
    """A disc's middle and radius in units, and the direction in which its ink runs thin."""

    x: float
    y: float
    radius: float
    angle: float

    def toward(self, angle: float, far: float) -> tuple[float, float]:
        """A place `far` radii from the middle."""
        reach = self.radius * far
        return self.x + reach * math.cos(angle), self.y + reach * math.sin(angle)


def orbits(sheet: Sheet) -> list[Layer]:
    """Discs, rings and bars printed over each other."""
    dice, palette = sheet.dice, sheet.palette
    x, y = sheet.x("main.x", 0.38, 0.62), sheet.y("main.y", 0.4, 0.6)
    main = _Print(x, y, dice.between("main.r", 0.26, 0.36), dice.between("axis", 0, math.tau))
    layers = [sheet.ground(palette.air(1.0), palette.air(0.7)), *_bars(sheet, main)]
    layers.append(_printed(sheet, main, palette.tone(0.5)))
    for index in range(dice.count("discs", 2, 4)):
        tone = palette.tone(dice.between(f"disc{index}.tone", 0.25, 0.75))
        satellite = _satellite(sheet, f"disc{index}", main, 2.2 * index)
        layers.append(_printed(sheet, satellite, tone if index else palette.accent))
    return [*layers, *_rings(sheet, main)]


def _satellite(sheet: Sheet, name: str, main: _Print, turn: float) -> _Print:
    angle = main.angle + turn + sheet.dice.between(f"{name}.turn", -0.5, 0.5)
    place = main.toward(angle, sheet.dice.between(f"{name}.far", 0.7, 1.45))
    return _Print(*place, main.radius * sheet.dice.between(f"{name}.r", 0.3, 0.75), angle)


def _printed(sheet: Sheet, place: _Print, color: Lab) -> Layer:
    """A disc in translucent ink that runs thin to one side."""
    fade = along(*place.toward(place.angle, 1.6), *place.toward(place.angle, -0.6))
    blend = shine if sheet.palette.dark else overprint
    shape = disc(place.x, place.y, place.radius)
    return Layer(shape, flat(color), 0.95, fade=stippled(fade, 0.2), grain=0.7, blend=blend)


def _bars(sheet: Sheet, main: _Print) -> Iterator[Layer]:
    """A block of bars, each thicker than the one above."""
    dice, radius = sheet.dice, main.radius
    count = dice.count("bars", 6, 13)
    x, y = main.toward(main.angle + math.pi, 0.8)
    wide, pitch = radius * dice.between("bars.w", 1.0, 2.6), radius * 1.6 / count
    left = x - wide * dice.between("bars.x", 0.2, 0.8)
    top = y - radius * dice.between("bars.y", 0.3, 1.3)
    ink = flat(sheet.palette.line(0.3))
    for index in range(count):
        edge, thick = top + pitch * index, pitch * (0.08 + 0.7 * index / count)
        yield Layer(rectangle(left, edge, left + wide, edge + thick), ink, 0.9)


def _rings(sheet: Sheet, main: _Print) -> Iterator[Layer]:
    """Concentric lines at the edge of the main disc, and one orbit around it."""
    ink = flat(sheet.palette.line(1.0))
    x, y = main.toward(main.angle + 3.6, 0.9)
    for index in range(sheet.dice.count("rings", 3, 8)):
        yield Layer(ring(x, y, main.radius * (0.12 + 0.09 * index), 0.005), ink)
    orbit = main.radius * sheet.dice.between("orbit", 1.12, 1.4)
    yield Layer(ring(main.x, main.y, orbit, 0.003), ink, 0.8)


# -- tiles ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Tile:
    """A square: one of its corners (p), the opposite one (q), and its side, in units."""

    px: float
    py: float
    qx: float
    qy: float
    side: float

    @property
    def square(self) -> Shape:
        left, top = min(self.px, self.qx), min(self.py, self.qy)
        return rectangle(left, top, left + self.side, top + self.side)

    @property
    def middle(self) -> tuple[float, float]:
        return (self.px + self.qx) / 2, (self.py + self.qy) / 2


def tiles(sheet: Sheet) -> list[Layer]:
    """A grid of squares, each with one cut shape."""
    side = 1 / sheet.dice.count("across", 3, 5)
    columns, rows = math.ceil(sheet.width / side - 0.01), math.ceil(sheet.height / side - 0.01)
    left, top = (sheet.width - columns * side) / 2, (sheet.height - rows * side) / 2
    layers: list[Layer] = []
    for row in range(rows):
        for column in range(columns):
            corner = (left + column * side, top + row * side)
            layers += _tile(sheet, f"tile{column}.{row}", corner, side)
    return layers


def _tile(sheet: Sheet, name: str, corner: tuple[float, float], side: float) -> Iterator[Layer]:
    dice, (x, y) = sheet.dice, corner
    turn = dice.count(f"{name}.turn", 0, 3)
    px, py = x + side * (turn in (1, 2)), y + side * (turn in (2, 3))
    tile = _Tile(px, py, 2 * x + side - px, 2 * y + side - py, side)
    back, front = _two_colors(sheet, name)
    slant = along(tile.px, tile.py, tile.qx, tile.qy)
    ink = graded(front, mix(front, back, 0.35), stippled(slant, 0.5))
    yield Layer(tile.square, flat(back))
    for shape in _cut(tile, dice.count(f"{name}.kind", 0, 6)):
        yield Layer(shape, ink)


def _two_colors(sheet: Sheet, name: str) -> tuple[Lab, Lab]:
    """Two of the palette's colours that are not neighbours."""
    palette, dice = sheet.palette, sheet.dice
    colors = [*palette.tones, palette.accent]
    back = dice.count(f"{name}.back", 0, len(colors) - 1)
    front = back + dice.count(f"{name}.front", 2, len(colors) - 2)
    return colors[back], colors[front % len(colors)]


def _cut(tile: _Tile, kind: int) -> Iterator[Shape]:
    """A quarter disc (twice as often), a lens, a dot, rings, two half discs, or nothing."""
    square, side, (x, y) = tile.square, tile.side, tile.middle
    quarter = both(square, disc(tile.px, tile.py, side))
    if kind < 2:
        yield quarter
    elif kind == 2:
        yield both(quarter, disc(tile.qx, tile.qy, side))
    elif kind == 3:
        yield disc(x, y, side * 0.36)
    elif kind == 4:
        for step in (0.125, 0.375, 0.625, 0.875):
            yield both(square, ring(tile.px, tile.py, side * step, side * 0.1))
    elif kind == 5:
        yield both(square, disc(x, tile.py, side / 2))
        yield both(square, disc(x, tile.qy, side / 2))
