"""Signed distances of closed forms: discs, boxes, leaves, lines. Lengths in units."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from backends.demo.canvas import EVERYWHERE, Box, Field, Grid, Shape, hypotenuse
from backends.demo.color import Plane


def everywhere() -> Shape:
    """The whole sheet."""
    inside = np.full((1, 1), -1e3, np.float32)
    return Shape(lambda _grid: inside)


def disc(x: float, y: float, radius: float) -> Shape:
    """A filled circle."""
    return Shape(lambda g: _from_point(g, x, y) - radius, _around(x, y, radius, radius))


def ring(x: float, y: float, radius: float, width: float) -> Shape:
    """A circle's line."""
    return outline(disc(x, y, radius), width)


def ellipse(x: float, y: float, rx: float, ry: float, angle: float = 0.0) -> Shape:
    """A filled ellipse, turned by radians; the distance is exact at its edge."""
    cosine, sine = math.cos(angle), math.sin(angle)

    def distance(g: Grid) -> Plane:
        dx, dy = g.x - x, g.y - y
        u, v = (dx * cosine + dy * sine) / rx, (dy * cosine - dx * sine) / ry
        near = hypotenuse(u, v) + 1e-6
        slope = hypotenuse(u / rx, v / ry) + 1e-6
        near_edge: Plane = near * (near - 1) / slope
        return near_edge

    reach_x, reach_y = math.hypot(rx * cosine, ry * sine), math.hypot(rx * sine, ry * cosine)
    return Shape(distance, _around(x, y, reach_x, reach_y))


def rectangle(left: float, top: float, right: float, bottom: float, rounded: float = 0.0) -> Shape:
    """An upright rectangle, its corners rounded by a radius."""
    cx, cy = (left + right) / 2, (top + bottom) / 2
    half_x, half_y = (right - left) / 2 - rounded, (bottom - top) / 2 - rounded

    def distance(g: Grid) -> Plane:
        dx = np.abs(g.x - cx) - half_x
        dy = np.abs(g.y - cy) - half_y
        inside: Plane = np.maximum(dx, dy)
        if not rounded:
            return inside
        corner = hypotenuse(np.maximum(dx, 0), np.maximum(dy, 0))
        return corner + np.clip(inside, None, 0) - rounded

    return Shape(distance, (left, top, right, bottom))


def arch(x: float, top: float, bottom: float, half_width: float) -> Shape:
    """A doorway: a half circle on a rectangle."""
    spring = top + half_width
    wall = rectangle(x - half_width, spring, x + half_width, bottom)
    return union(disc(x, spring, half_width), wall)


def leaf(x: float, y: float, length: float, width: float, angle: float) -> Shape:
    """A lens with its stem end at (x, y), pointing along `angle`."""
    half, depth = length / 2, width / 2
    radius = (half * half + depth * depth) / (2 * depth)
    cosine, sine = math.cos(angle), math.sin(angle)
    cx, cy = x + half * cosine, y + half * sine

    def distance(g: Grid) -> Plane:
        dx, dy = g.x - cx, g.y - cy
        u, v = dx * cosine + dy * sine, np.abs(dy * cosine - dx * sine)
        return hypotenuse(u, v + (radius - depth)) - radius

    return Shape(distance, _around(cx, cy, half, half))


def segment(x0: float, y0: float, x1: float, y1: float, width: float) -> Shape:
    """A line with round ends."""
    dx, dy, half = x1 - x0, y1 - y0, width / 2
    squared = dx * dx + dy * dy + 1e-12

    def distance(g: Grid) -> Plane:
        px, py = g.x - x0, g.y - y0
        t = np.clip((px * dx + py * dy) / squared, 0, 1)
        return hypotenuse(px - t * dx, py - t * dy) - half

    box = (min(x0, x1) - half, min(y0, y1) - half, max(x0, x1) + half, max(y0, y1) + half)
    return Shape(distance, box, width)


def half_plane(x: float, y: float, angle: float) -> Shape:
    """Everything beyond a line through (x, y), on the side that `angle` points away from."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return Shape(lambda g: (g.x - x) * cosine + (g.y - y) * sine)


def contours(field: Field, slope: Field, every: float, width: float) -> Shape:
    """The level lines of a field, `width` units wide wherever they run."""

    def distance(g: Grid) -> Plane:
        value = field(g) * (1 / every)
        off: Plane = np.abs(value - np.floor(value) - 0.5) * every
        return off / np.maximum(slope(g), 1e-3) - (width / 2)

    return Shape(distance, EVERYWHERE, width)


# -- made from other shapes ----------------------------------------------------


def union(first: Shape, second: Shape) -> Shape:
    """What either covers."""
    (a, b, c, d), (e, f, g, h) = first.box, second.box
    return Shape(
        lambda grid: np.minimum(first.distance(grid), second.distance(grid)),
        (min(a, e), min(b, f), max(c, g), max(d, h)),
    )


def both(first: Shape, second: Shape) -> Shape:
    """What both cover."""
    (a, b, c, d), (e, f, g, h) = first.box, second.box
    return Shape(
        lambda grid: np.maximum(first.distance(grid), second.distance(grid)),
        (max(a, e), max(b, f), min(c, g), min(d, h)),
        min(first.thickness, second.thickness),
    )


def minus(first: Shape, second: Shape) -> Shape:
    """What the first covers and the second doesn't."""
    return replace(
        first, distance=lambda grid: np.maximum(first.distance(grid), -second.distance(grid))
    )


def outline(shape: Shape, width: float) -> Shape:
    """A shape's edge as a line."""
    a, b, c, d = shape.box
    r = width / 2
    box = (a - r, b - r, c + r, d + r)
    return Shape(lambda grid: np.abs(shape.distance(grid)) - r, box, width)


def pushed(shape: Shape, dx: float, dy: float) -> Shape:
    """A shape moved by units."""
    a, b, c, d = shape.box
    box = (a + dx, b + dy, c + dx, d + dy)
    return Shape(lambda grid: shape.distance(grid.moved(dx, dy)), box, shape.thickness)


def sheared(shape: Shape, base: float, slant: float) -> Shape:
    """A shape pushed sideways by `slant` units for each unit below `base`, as light falls."""

    def distance(g: Grid) -> Plane:
        return shape.distance(replace(g, x=g.x - slant * (g.y - base)))

    return Shape(distance, (-math.inf, shape.box[1], math.inf, shape.box[3]))


def _around(x: float, y: float, reach_x: float, reach_y: float) -> Box:
    return x - reach_x, y - reach_y, x + reach_x, y + reach_y


def _from_point(grid: Grid, x: float, y: float) -> Plane:
    return hypotenuse(grid.x - x, grid.y - y)
