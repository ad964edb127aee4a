"""Ridges and dunes: crest behind crest, paler with distance."""

from __future__ import annotations

import numpy as np

from backends.demo.canvas import Field, Grid, Layer, Shape
from backends.demo.color import Plane, lit, mix
from backends.demo.fields import Profile, below, peaked, rolling, rugged, waves
from backends.demo.inks import down, flat, graded, stippled
from backends.demo.shapes import both, contours
from backends.demo.sheet import Sheet

# -- ridges --------------------------------------------------------------------


def ridges(sheet: Sheet) -> list[Layer]:
    """Mountains behind mountains, in mist."""
    horizon = sheet.y("horizon", 0.42, 0.58)
    x, y = sheet.x("sun.x", 0.15, 0.85), horizon - sheet.y("sun.y", 0.02, 0.3)
    layers = [*sheet.sky(horizon), *sheet.sun(x, y, sheet.dice.between("sun.r", 0.06, 0.15))]
    lean = 1.0 if x < sheet.width / 2 else -1.0
    count = sheet.dice.count("ridges", 4, 7)
    for index in range(count):
        layers += _ridge(sheet, f"ridge{index}", index / (count - 1), horizon, lean)
    return layers


def _ridge(sheet: Sheet, name: str, near: float, horizon: float, lean: float) -> list[Layer]:
    """One crest; `near` runs from 0 at the horizon to 1 in front."""
    palette, h = sheet.palette, sheet.height
    height = horizon + (h - horizon) * near**1.25 * 0.84
    swell = h * (0.06 + 0.035 * near) * (1.6 - near)
    profile = rugged(sheet.dice, name, height, swell, 1.1 + 0.9 * (1 - near))
    shape = below(profile, height - 3.5 * swell)
    rock = palette.land(near**0.9)
    haze = mix(palette.land(max(0.0, near - 0.4)), palette.air(1.0), 0.5 * (1 - near))
    mist = _mist(sheet, name, height, h * (0.15 + 0.2 * near))
    light = _slopes(sheet, name, profile, lean)
    return [
        Layer(shape, graded(rock, haze, mist)),
        Layer(shape, flat(lit(rock, 0.10 - 0.05 * near)), 0.8, fade=light, grain=0.4),
    ]


def _mist(sheet: Sheet, name: str, height: float, reach: float) -> Field:
    """Clear at y = `height`, thick `reach` units further down, in drifts."""
    drift = waves(sheet.dice, f"{name}.mist", 1.1, stretch=2.5)
    return stippled(lambda g: (g.y - height) * (1 / reach) + 0.18 * drift(g), 0.35)


def _slopes(sheet: Sheet, name: str, profile: Profile, lean: float) -> Field:
    """Where slopes face the sun: stripes that run down from the crest and fade out."""
    relief = waves(sheet.dice, f"{name}.relief", 3.2, 10)

    def light(grid: Grid) -> Plane:
        depth = grid.y - profile(grid)
        stripe: Plane = np.sin((grid.x - lean * depth * 0.8 + 0.07 * relief(grid)) * 13)
        facing: Plane = np.clip(stripe * 2.2, 0, 1)
        return facing * np.clip(1 - depth * 6.2, 0, 1)

    return light


# -- dunes ---------------------------------------------------------------------


def dunes(sheet: Sheet) -> list[Layer]:
    """Wind-sharp crests with a lit and a shaded side."""
    horizon = sheet.y("horizon", 0.34, 0.5)
    x, y = sheet.x("sun.x", 0.15, 0.85), horizon * sheet.dice.between("sun.y", 0.35, 0.8)
    layers = [*sheet.sky(horizon), *sheet.sun(x, y, sheet.dice.between("sun.r", 0.05, 0.13))]
    side = -1.0 if x < sheet.width / 2 else 1.0
    count = sheet.dice.count("dunes", 3, 5)
    for index in range(count):
        layers += _dune(sheet, f"dune{index}", index / (count - 1), horizon, side)
    return layers


def _dune(sheet: Sheet, name: str, near: float, horizon: float, side: float) -> list[Layer]:
    dice, palette, h = sheet.dice, sheet.palette, sheet.height
    height = horizon + (h - horizon) * (0.10 + 0.72 * near**1.2)
    swell = h * (0.07 + 0.13 * near)
    peak = sheet.x(f"{name}.peak", 0.08, 0.92)
    swelling = rolling(dice, name, height, 0.35 * swell, 0.4)
    profile = peaked(swelling, peak, swell, 0.46 - 0.17 * near)
    body = below(profile, height - 2.3 * swell)
    bright, shade = palette.land(0.02 + 0.40 * near), palette.land(0.26 + 0.58 * near)
    reach = h * (0.2 + 0.5 * near)
    depth = stippled(down(height - 0.3 * reach, height + 0.7 * reach), 0.3)
    lee = both(body, _lee(sheet, name, profile, peak, side))
    return [
        Layer(body, graded(bright, mix(bright, shade, 0.5), depth)),
        Layer(lee, graded(shade, mix(shade, bright, 0.55), depth), softness=0.003),
        Layer(_ripples(sheet, name, body), flat(shade), 0.25 * near, fade=depth),
    ]


def _ripples(sheet: Sheet, name: str, body: Shape) -> Shape:
    sand = waves(sheet.dice, f"{name}.ripples", 2.2, stretch=3.0)
    return both(contours(sand, sand.slope, 0.05, 0.0022), body)


def _lee(sheet: Sheet, name: str, profile: Profile, peak: float, side: float) -> Shape:
    """The shaded side: beyond a line that winds down from the summit at x = `peak`."""
    dice = sheet.dice
    bend, turn = dice.between(f"{name}.bend", 0.1, 0.3), dice.between(f"{name}.turn", 0, 6.28)
    lean = dice.between(f"{name}.lean", -0.2, 1.0) * side
    summit = np.full((1, 1), peak, np.float32)

    def distance(grid: Grid) -> Plane:
        drop = np.maximum(grid.y - profile(grid.at(summit)), 0)
        fold = peak - lean * drop + bend * drop * np.sin(drop * 9 + turn)
        return (grid.x - fold) * (side * 0.7)

    return Shape(distance)
