"""Sea: a low light over open water, and its path on the waves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from backends.demo.canvas import Grid, Layer, Shape
from backends.demo.color import Plane, mix
from backends.demo.fields import below, rugged
from backends.demo.inks import down, flat, graded, stippled
from backends.demo.shapes import both, half_plane
from backends.demo.sheet import Sheet


def sea(sheet: Sheet) -> list[Layer]:
    """Sky, sun, perhaps a coast, and the water."""
    horizon = sheet.y("horizon", 0.4, 0.62)
    x, radius = sheet.x("sun.x", 0.2, 0.8), sheet.dice.between("sun.r", 0.07, 0.17)
    y = horizon - radius * sheet.dice.between("sun.y", -0.2, 2.2)
    layers = [*sheet.sky(horizon), *sheet.sun(x, y, radius), *_coast(sheet, horizon)]
    return layers + _water(sheet, horizon, x, radius)


def _coast(sheet: Sheet, horizon: float) -> list[Layer]:
    """Land on the horizon, in most pictures."""
    layers = []
    above = half_plane(0, horizon, math.pi / 2)
    for index, odds in enumerate((0.65, 0.35)):
        if sheet.dice.chance(f"coast{index}", odds):
            base = horizon + 0.05 - 0.03 * index
            land = below(rugged(sheet.dice, f"coast{index}", base, 0.07, 0.9), horizon - 0.3)
            layers.append(Layer(both(land, above), flat(sheet.palette.land(0.18 + 0.22 * index))))
    return layers


def _water(sheet: Sheet, horizon: float, x: float, radius: float) -> list[Layer]:
    """Water below the horizon, with the light's path under x = `x`."""
    palette, h = sheet.palette, sheet.height
    phases = (sheet.dice.units("swell", 4) * math.tau).tolist()
    swell = _Swell(phases, horizon, h - horizon)
    surface = half_plane(0, horizon, -math.pi / 2)
    depth = stippled(down(horizon, h * 1.05), 0.1)
    path = both(surface, swell.path(x, radius))
    glitter = flat(mix(palette.light, palette.tones[0], 0.3))
    return [
        Layer(surface, graded(palette.land(0.22), palette.land(0.92), depth)),
        Layer(both(surface, swell.troughs(0.35)), flat(palette.land(1.0)), 0.38),
        Layer(both(surface, swell.crests(0.72)), flat(palette.air(1.0)), 0.16),
        Layer(path, glitter, 0.92),
    ]


@dataclass(frozen=True, slots=True)
class _Swell:
    """Waves in perspective: long in front, closing up toward the horizon.

    `phases` are four angles in radians; the water begins at y = `horizon` and
    is `depth` units deep on the sheet.
    """

    phases: list[float]
    horizon: float
    depth: float

    def crests(self, above: float) -> Shape:
        """Where waves are higher than this."""
        return Shape(lambda g: (above - self._height(g)) * self._unit(g), thickness=0.004)

    def troughs(self, under: float) -> Shape:
        """Where waves are lower than minus this."""
        return Shape(lambda g: (self._height(g) + under) * self._unit(g))

    def path(self, x: float, radius: float) -> Shape:
        """What reflects a light of this radius above x: only crests, far from its middle."""

        def distance(g: Grid) -> Plane:
            aside: Plane = np.abs(g.x - x) / (radius * (0.75 + 0.9 * self._nearness(g)))
            return (aside * 1.25 - 0.55 - self._height(g)) * self._unit(g)

        return Shape(distance)

    def _nearness(self, grid: Grid) -> Plane:
        """0 at the horizon, 1 at the lower edge."""
        near: Plane = np.maximum((grid.y - self.horizon) / self.depth, 0)
        return near

    def _height(self, grid: Grid) -> Plane:
        """How high the water stands, about ±1."""
        near = self._nearness(grid)
        rows, spread = np.log(near + 0.05), 1 / (near + 0.12)
        first, second, third, fourth = self.phases
        bend = np.sin(2.7 * grid.x * np.sqrt(spread) + first + 3 * rows)
        long = np.sin(34 * rows + 2.2 * bend + second)
        cross = np.sin(21 * rows + grid.x * spread * 3.1 + third)
        chop = np.sin(57 * rows - grid.x * spread * 6.3 + fourth)
        height: Plane = 0.5 * long + 0.35 * cross + 0.3 * chop
        return height

    def _unit(self, grid: Grid) -> Plane:
        """How many units tall a height of 1 looks."""
        return (self._nearness(grid) + 0.05) * (self.depth / 34)
