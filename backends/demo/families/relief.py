"""Flow and strata: a slow field, as lines of raked sand or as sheets of cut paper."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from backends.demo.canvas import Grid, Layer, Shape
from backends.demo.color import Plane, lit
from backends.demo.fields import Waves, waves
from backends.demo.inks import along, flat, flipped, graded, ramp, stippled
from backends.demo.shapes import both, contours, disc, everywhere, minus, pushed
from backends.demo.sheet import Sheet

# -- flow ----------------------------------------------------------------------


def flow(sheet: Sheet) -> list[Layer]:
    """Level lines of a slow current, that pass a disc."""
    dice, palette = sheet.dice, sheet.palette
    current = waves(dice, "current", dice.between("cycles", 0.7, 1.2), 9, stretch=1.5)
    tint = waves(dice, "tint", 0.6, 6)
    lines = contours(current, current.slope, dice.between("every", 0.08, 0.13), 0.0052)
    tones = tuple(palette.line(strength) for strength in (0.1, 0.5, 1.0, 0.6))
    x, y = sheet.x("disc.x", 0.25, 0.75), sheet.y("disc.y", 0.3, 0.65)
    radius = dice.between("disc.r", 0.16, 0.3)
    body = disc(x, y, radius)
    fade = flipped(along(x, y - radius, x + radius * 0.4, y + 1.8 * radius))
    over = palette.tones[-1] if palette.dark else palette.tones[0]
    return [
        sheet.ground(palette.air(0.9), palette.air(0.35)),
        Layer(body, flat(palette.light), fade=stippled(fade, 0.2), grain=0.5),
        Layer(minus(lines, body), ramp(tones, lambda g: 0.5 + 0.5 * tint(g))),
        Layer(both(lines, body), flat(over), 0.9),
    ]


# -- strata --------------------------------------------------------------------


def strata(sheet: Sheet) -> list[Layer]:
    """Sheets of paper with the field's outlines, each a little higher, each with its shadow."""
    dice, palette = sheet.dice, sheet.palette
    relief = waves(dice, "relief", dice.between("cycles", 0.5, 0.85), 9)
    count = dice.count("sheets", 6, 9)
    inward = dice.chance("inward", 0.5)
    layers = [Layer(everywhere(), flat(palette.tone(0.0 if inward else 1.0)))]
    for index in range(count):
        near = (index + 1) / count
        layers += _cut(sheet, relief, 2.1 * near - 1.2, near if inward else 1 - near)
    return [*layers, Layer(_above(relief, 1.12), flat(palette.accent))]


def _cut(sheet: Sheet, relief: Waves, level: float, depth: float) -> Iterator[Layer]:
    """One sheet above a level; `depth` is its place between light (0) and dark (1)."""
    shape, color = _above(relief, level), sheet.palette.tone(depth)
    slant = stippled(along(0, 0, sheet.width, sheet.height), 0.35)
    shadow = flat(sheet.palette.tone(1.0))
    yield Layer(pushed(shape, 0.012, 0.018), shadow, 0.42, softness=0.035)
    yield Layer(shape, graded(lit(color, 0.025), lit(color, -0.025), slant))


def _above(relief: Waves, level: float) -> Shape:
    def distance(grid: Grid) -> Plane:
        # Nearly flat places would be all edge, so the slope has a floor.
        return (level - relief(grid)) / np.maximum(relief.slope(grid), 0.3)

    return Shape(distance)
