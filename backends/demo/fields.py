"""Smooth randomness as functions of place: the same at every resolution."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from backends.demo.canvas import Field, Grid, Shape, hypotenuse
from backends.demo.color import Plane
from backends.demo.dice import Dice, Vector

Profile = Callable[[Grid], Plane]
"""The height of a crest line (its y in units) at each x: (1, columns)."""


@dataclass(frozen=True, slots=True)
class Waves:
    """A sum of plane waves: smooth, endless, without a lattice. Values are about ±1.

    Each array is (waves,). cos(kx·x + ky·y + phase) splits into a part of x and
    a part of y, so a whole field costs two matrix products.
    """

    kx: Vector
    ky: Vector
    phase: Vector
    amplitude: Vector

    def __call__(self, grid: Grid) -> Plane:
        """The field's values, (rows, columns)."""
        return self._sum(grid, self.amplitude, 0.0)

    def slope(self, grid: Grid) -> Plane:
        """How steep the field is, per unit."""
        # The derivative of cos(k·x + p) is k·cos(k·x + p + π/2).
        dx = self._sum(grid, self.amplitude * self.kx, math.pi / 2)
        dy = self._sum(grid, self.amplitude * self.ky, math.pi / 2)
        return hypotenuse(dx, dy)

    def _sum(self, grid: Grid, amplitude: Vector, ahead: float) -> Plane:
        across = self.kx.astype(np.float32)[:, None] * grid.x
        down = grid.y * self.ky.astype(np.float32) + (self.phase + ahead).astype(np.float32)
        scale = amplitude.astype(np.float32)
        field: Plane = (np.cos(down) * scale) @ np.cos(across)
        field -= (np.sin(down) * scale) @ np.sin(across)
        return field


def waves(dice: Dice, name: str, cycles: float, count: int = 12, stretch: float = 1.0) -> Waves:
    """A field of about `cycles` waves per unit; `stretch` above 1 draws it out sideways."""
    angle = dice.units(f"{name}.angle", count) * math.tau
    pitch = math.tau * cycles * np.exp(0.35 * dice.normals(f"{name}.pitch", count))
    return Waves(
        np.cos(angle) * pitch / stretch,
        np.sin(angle) * pitch,
        dice.units(f"{name}.phase", count) * math.tau,
        1 / pitch / np.linalg.norm(1 / pitch),
    )


def rolling(dice: Dice, name: str, height: float, swell: float, cycles: float) -> Profile:
    """A smooth crest line around y = `height`, `swell` units high."""
    pitch = math.tau * cycles * np.exp(0.5 * dice.normals(f"{name}.pitch", 5))
    phase = dice.units(f"{name}.phase", 5) * math.tau
    amplitude = swell / pitch / np.linalg.norm(1 / pitch)
    return lambda grid: _float(height - np.cos(grid.x[..., None] * pitch + phase) @ amplitude)


def rugged(dice: Dice, name: str, height: float, swell: float, cycles: float) -> Profile:
    """A crest of peaks and shoulders that gains finer facets with every step."""
    octaves = 7
    table = dice.normals(f"{name}.table", 64)
    starts = dice.steady_units(f"{name}.start", octaves) * len(table)

    def profile(grid: Grid) -> Plane:
        crest = np.zeros(grid.x.shape)
        for octave, start in enumerate(starts):
            resolved = min(max(grid.detail * octaves - octave + 1.5, 0), 1)
            facets = _endless(table, grid.x * (cycles * 2**octave) + start)
            crest += resolved * 0.5**octave * facets
        return _float(height - swell * crest)

    return profile


def peaked(base: Profile, peak: float, swell: float, reach: float) -> Profile:
    """A crest line with one summit at x = `peak`, sharp as wind leaves it."""

    def profile(grid: Grid) -> Plane:
        aside: Plane = np.sqrt((grid.x - peak) ** 2 + 1e-4) / reach
        summit: Plane = swell * np.exp(-aside)
        return base(grid) - summit

    return profile


def below(profile: Profile, top: float) -> Shape:
    """Everything under a crest line that never rises above y = `top`."""

    def distance(g: Grid) -> Plane:
        crest = profile(g)
        steep = np.gradient(crest[0]) / g.px if crest.size > 1 else np.zeros(1)
        return (crest - g.y) * _float(1 / np.sqrt(1 + steep * steep))

    return Shape(distance, (-math.inf, top, math.inf, math.inf))


def under(profile: Profile, reach: float) -> Field:
    """0 at a crest line, 1 at `reach` units below it."""
    return lambda grid: (grid.y - profile(grid)) * (1 / reach)


def _endless(table: Vector, place: Vector | Plane) -> Vector:
    """Straight lines between the values of a table that repeats without end."""
    index = np.floor(place).astype(np.int64)
    part = place - index
    lines: Vector = table[index % len(table)] * (1 - part) + table[(index + 1) % len(table)] * part
    return lines


def _float(values: Vector | Plane) -> Plane:
    return values.astype(np.float32)
