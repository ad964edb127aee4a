"""Colours that change from place to place, and the fields that steer them."""

from __future__ import annotations

import numpy as np

from backends.demo.canvas import Field, Grid, Ink, hypotenuse
from backends.demo.color import Lab, Plane


def flat(color: Lab) -> Ink:
    """One colour."""
    plane = _as_plane(color)
    return lambda _grid: plane


def graded(first: Lab, second: Lab, amount: Field) -> Ink:
    """From the first colour (where `amount` is 0 or less) to the second (1 or more)."""
    start = _as_plane(first)
    step = _as_plane(second) - start
    return lambda grid: start + step * np.clip(amount(grid), 0, 1)


def ramp(colors: tuple[Lab, ...], amount: Field) -> Ink:
    """Through several colours, evenly spaced over 0 to 1."""
    knots, places = np.linspace(0, 1, len(colors)), np.linspace(0, 1, 256)
    channels = [np.interp(places, knots, channel) for channel in zip(*colors, strict=True)]
    table = np.array(channels, np.float32)
    return lambda grid: table[:, (np.clip(amount(grid), 0, 1) * 255).astype(np.uint8)]


def down(top: float, bottom: float) -> Field:
    """0 at `top`, 1 at `bottom`."""
    return lambda grid: (grid.y - top) * (1 / (bottom - top))


def along(x0: float, y0: float, x1: float, y1: float) -> Field:
    """0 at the first point, 1 at the second, constant across."""
    squared = (x1 - x0) ** 2 + (y1 - y0) ** 2
    dx, dy = (x1 - x0) / squared, (y1 - y0) / squared
    return lambda grid: (grid.x - x0) * dx + (grid.y - y0) * dy


def away(x: float, y: float, inner: float, outer: float) -> Field:
    """0 up to `inner` units from a point, 1 from `outer` on."""

    def amount(grid: Grid) -> Plane:
        return (hypotenuse(grid.x - x, grid.y - y) - inner) * (1 / (outer - inner))

    return amount


def flipped(amount: Field) -> Field:
    """1 where the field is 0, and the reverse."""
    return lambda grid: 1 - amount(grid)


def stippled(amount: Field, grain: float) -> Field:
    """The field with its in-between values sprayed."""
    return lambda grid: amount(grid) + grain * (grid.noise - 0.5)


def _as_plane(color: Lab) -> Plane:
    return np.array(color, np.float32).reshape(3, 1, 1)
