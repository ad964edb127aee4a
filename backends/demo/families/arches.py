"""Arches: a wall with openings; light falls through them onto the floor."""

from __future__ import annotations

from dataclasses import dataclass

from backends.demo.canvas import Layer, Shape
from backends.demo.color import Lab, mix
from backends.demo.fields import below, rolling
from backends.demo.inks import along, down, flat, flipped, graded, stippled
from backends.demo.shapes import arch, both, disc, everywhere, minus, rectangle, sheared, union
from backends.demo.sheet import Sheet


@dataclass(frozen=True, slots=True)
class _Door:
    """An arched opening, in units: its middle, the top of its curve, the floor, half its width."""

    x: float
    top: float
    floor: float
    half: float

    def shape(self, aside: float = 0.0) -> Shape:
        """The opening, moved sideways."""
        return arch(self.x + aside, self.top, self.floor, self.half)

    def light(self, slant: float) -> Shape:
        """What falls through it: the opening laid on the floor, and pushed aside."""
        end = self.floor + (self.floor - self.top) * 0.75 - self.half
        straight = rectangle(self.x - self.half, self.floor, self.x + self.half, end)
        return sheared(union(straight, disc(self.x, end, self.half)), self.floor, slant)


def arches(sheet: Sheet) -> list[Layer]:
    """One to three openings in a row, a landscape behind them."""
    floor = sheet.y("floor", 0.66, 0.78)
    side = 1.0 if sheet.dice.chance("side", 0.5) else -1.0
    wall = sheet.palette.land(sheet.dice.between("wall", 0.12, 0.3))
    doors = _doors(sheet, floor)
    layers = [_wall(sheet, wall, floor, side)]
    for door in doors:
        layers += _view(sheet, door, 0.16 * door.half * side)
    return layers + _ground(sheet, doors, floor, wall, side)


def _doors(sheet: Sheet, floor: float) -> list[_Door]:
    dice, w = sheet.dice, sheet.width
    count = dice.count("doors", 1, 3) if w >= 1.2 else 1
    half = min(dice.between("door.width", 0.11, 0.2), w / (2.9 * count))
    pitch = half * dice.between("door.pitch", 2.5, 3.0)
    start = (w - pitch * (count - 1)) * dice.between("door.x", 0.4, 0.6)
    top = floor - max(half * 2, floor * dice.between("door.top", 0.6, 0.8))
    return [_Door(start + pitch * index, top, floor, half) for index in range(count)]


def _wall(sheet: Sheet, wall: Lab, floor: float, side: float) -> Layer:
    """The wall, darker on the side that the light comes from."""
    start, end = (0.0, sheet.width) if side > 0 else (sheet.width, 0.0)
    dark = mix(wall, sheet.palette.land(0.5), 0.8)
    return Layer(everywhere(), graded(wall, dark, stippled(along(start, 0, end, floor), 0.3)))


def _view(sheet: Sheet, door: _Door, reveal: float) -> list[Layer]:
    """What is seen through a doorway, and the thickness of the wall beside it."""
    dice, palette = sheet.dice, sheet.palette
    opening = door.shape()
    x, y = sheet.x("sun.x", 0.3, 0.7), door.floor - sheet.y("sun.y", 0.14, 0.4)
    height = down(door.top, door.floor)
    jamb = minus(opening, door.shape(reveal))
    sun = disc(x, y, dice.between("sun.r", 0.05, 0.1))
    far = below(rolling(dice, "far", door.floor - 0.10, 0.05, 0.6), 0)
    near = below(rolling(dice, "near", door.floor - 0.03, 0.04, 0.5), 0)
    return [
        Layer(opening, graded(palette.air(0.0), palette.air(1.0), height)),
        Layer(both(opening, sun), flat(palette.light)),
        Layer(both(opening, far), flat(palette.land(0.35))),
        Layer(both(opening, near), flat(palette.land(0.62))),
        Layer(jamb, graded(palette.land(0.66), palette.land(0.5), height)),
    ]


def _ground(sheet: Sheet, doors: list[_Door], floor: float, wall: Lab, side: float) -> list[Layer]:
    """The floor, and the light on it."""
    h, shade = sheet.height, sheet.palette.land(0.5)
    ground = rectangle(-1, floor, sheet.width + 1, h + 1)
    dark = mix(shade, sheet.palette.land(0.8), 0.5)
    bright = flat(mix(wall, sheet.palette.tones[0], 0.5))
    slant = side * sheet.dice.between("slant", 0.55, 1.3)
    fade = flipped(down(floor, h * 1.3))
    layers = [Layer(ground, graded(dark, shade, stippled(down(floor, h), 0.2)))]
    for door in doors:
        light = both(ground, door.light(slant))
        layers.append(Layer(light, bright, 0.85, fade=fade, grain=0.3))
    return layers
