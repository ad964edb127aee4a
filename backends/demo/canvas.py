"""Layers of ink on a sheet: what to cover is a signed distance, how is a colour field.

Lengths are in units: the shorter side of the sheet is 1 (or a quarter of the
longer, on very long sheets), so a picture is the same at every resolution.
Nothing here knows pixels but `Grid.px`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from backends.demo.color import Plane

Field = Callable[["Grid"], Plane]
"""A value per point, (rows, columns) or what broadcasts to it."""
Ink = Callable[["Grid"], Plane]
"""An OKLab colour per point, (3, rows, columns) or what broadcasts to it."""
Blend = Callable[[Plane, Plane], Plane]
"""The colour where ink covers fully, from what is there and the ink."""
Box = tuple[float, float, float, float]
"""Left, top, right, bottom in units."""

EVERYWHERE: Final[Box] = (-math.inf, -math.inf, math.inf, math.inf)


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the points of a band are, and how finely they are resolved.

    `x` is (1, columns) and `y` (rows, 1), in units from the sheet's top left.
    `noise` is white, 0 to 1, one value per point. `px` is a pixel's side in
    units. `detail` runs from 0 (one step) to 1 (eight), and `soft` is the
    width over which an edge goes from clear to covered, in units. The whole
    sheet measures `width` by `height` units.
    """

    x: Plane
    y: Plane
    noise: Plane
    px: float
    soft: float
    detail: float
    width: float
    height: float

    def crop(self, rows: slice, columns: slice) -> Grid:
        """The part of the band inside the two slices."""
        noise = self.noise[rows, columns]
        return replace(self, x=self.x[:, columns], y=self.y[rows], noise=noise)

    def at(self, x: Plane) -> Grid:
        """The same rows, at other places across: (1, columns) in units."""
        return replace(self, x=x)

    def moved(self, dx: float, dy: float) -> Grid:
        """The same points as seen by a shape that was pushed by (dx, dy) units."""
        return replace(self, x=self.x - dx, y=self.y - dy)


@dataclass(frozen=True, slots=True)
class Shape:
    """A signed distance in units, negative inside, and the box outside of which it is positive.

    `thickness` is the width of a line: one thinner than its blurred edge is
    drawn fainter instead of fatter.
    """

    distance: Field
    box: Box = EVERYWHERE
    thickness: float = math.inf


def hypotenuse(dx: Plane, dy: Plane) -> Plane:
    """The hypotenuse; np.hypot guards against overflow, and takes three times as long."""
    root: Plane = np.sqrt(dx * dx + dy * dy)
    return root


def plain(_base: Plane, ink: Plane) -> Plane:
    """Opaque ink."""
    return ink


def overprint(base: Plane, ink: Plane) -> Plane:
    """Translucent ink over ink: darkens, and adds the hues."""
    mixed = 0.7 * base + 0.85 * ink
    mixed[0] = base[0] * ink[0] ** 0.8
    return mixed


def shine(base: Plane, ink: Plane) -> Plane:
    """Light over what is there: lightens, and leans toward the light's hue."""
    mixed = 0.5 * base + 0.5 * ink
    mixed[0] = base[0] + ink[0] * (1 - base[0])
    return mixed


@dataclass(frozen=True, slots=True)
class Layer:
    """One pull of ink.

    `softness` blurs the edge by units, `fade` (1 = solid, 0 = gone) thins the
    ink from place to place, and `grain` (0 to 1) stipples what is half covered.
    """

    shape: Shape
    ink: Ink
    opacity: float = 1.0
    softness: float = 0.0
    grain: float = 0.0
    fade: Field | None = None
    blend: Blend = plain


def paint(lab: Plane, grid: Grid, layer: Layer) -> None:
    """Lay one layer on (3, rows, columns) of OKLab, in place."""
    edge = grid.soft + layer.softness
    window = _window(grid, layer.shape.box, edge)
    if window is None:
        return
    part = grid.crop(*window)
    base = lab[(slice(None), *window)]
    base += _coverage(part, layer, edge) * (layer.blend(base, layer.ink(part)) - base)


def _coverage(grid: Grid, layer: Layer, edge: float) -> Plane:
    """How much of each point the layer covers, 0 to 1."""
    cover: Plane = np.clip(0.5 - layer.shape.distance(grid) * (1 / edge), 0, 1)
    cover = cover * cover * (3 - 2 * cover)
    if layer.fade is not None:
        cover = cover * np.clip(layer.fade(grid), 0, 1)
    if layer.grain:
        # Strongest half way, none at either end: a sprayed edge, as on a screen print.
        cover = cover + (layer.grain * 4) * cover * (1 - cover) * (grid.noise - 0.5)
        cover = np.clip(cover, 0, 1)
    return cover * (layer.opacity * _thinning(layer.shape.thickness, edge))


def _thinning(thickness: float, edge: float) -> float:
    """How much fainter a line is that its edge makes fatter, so that its ink stays the same."""
    if thickness >= edge:
        return 1.0
    return 4 * thickness * edge / (thickness + edge) ** 2


def _window(grid: Grid, box: Box, edge: float) -> tuple[slice, slice] | None:
    left, top, right, bottom = box
    columns = _span(grid.x[0], left - edge, right + edge)
    rows = _span(grid.y[:, 0], top - edge, bottom + edge)
    return (rows, columns) if columns and rows else None


def _span(places: Plane, low: float, high: float) -> slice | None:
    first, last = np.searchsorted(places, (low, high))
    return slice(int(first), int(last)) if first < last else None
