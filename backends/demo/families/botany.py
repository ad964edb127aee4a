"""Botany: cut leaves on a few stems before a pale disc."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from backends.demo.canvas import Layer
from backends.demo.color import Lab, lit, mix
from backends.demo.inks import along, away, down, flat, flipped, graded, stippled
from backends.demo.shapes import both, disc, everywhere, half_plane, leaf, segment
from backends.demo.sheet import Sheet

Place = tuple[float, float, float]
"""A point in units, and a direction in radians."""


@dataclass(frozen=True, slots=True)
class _Stem:
    """A curve from its foot at y = `ground` to a tip `rise` units up and `bend` units aside."""

    foot: float
    ground: float
    bend: float
    rise: float

    def at(self, t: float) -> Place:
        """The stem at t = 0 (foot) to 1 (tip)."""
        heading = math.atan2(-self.rise, 2 * self.bend * t)
        return self.foot + self.bend * t * t, self.ground - self.rise * t, heading


def botany(sheet: Sheet) -> list[Layer]:
    """Four to eight stems, the nearer ones darker."""
    palette = sheet.palette
    back = graded(palette.air(0.5), palette.air(1.0), stippled(down(0, sheet.height), 0.3))
    layers = [Layer(everywhere(), back), _backdrop(sheet)]
    count = sheet.dice.count("stems", 3, 5) + int(sheet.width)
    for index in range(count):
        slot = (index * 3 + index // 3) % count / count  # neighbours lie at different depths
        layers += _plant(sheet, f"stem{index}", slot, index / (count - 1))
    return layers


def _backdrop(sheet: Sheet) -> Layer:
    x, y = sheet.x("disc.x", 0.3, 0.7), sheet.y("disc.y", 0.28, 0.5)
    radius = sheet.dice.between("disc.r", 0.22, 0.32)
    fade = stippled(flipped(down(y, y + 2.2 * radius)), 0.1)
    return Layer(disc(x, y, radius), flat(sheet.palette.light), fade=fade, grain=0.8)


def _plant(sheet: Sheet, name: str, slot: float, near: float) -> Iterator[Layer]:
    """A stem that stands at `slot` (0 left to 1 right), its leaves, and perhaps a seed head."""
    dice = sheet.dice
    foot = sheet.width * (slot + dice.between(f"{name}.foot", -0.04, 0.2))
    bend = dice.between(f"{name}.bend", -0.45, 0.45)
    rise = sheet.y(f"{name}.rise", 0.5, 0.95) * (1 - 0.3 * near)
    stem = _Stem(foot, sheet.height * 1.03, bend, rise)
    size = dice.between(f"{name}.leaf", 0.16, 0.30) * (0.75 + 0.5 * near)
    color = sheet.palette.land(0.3 + 0.6 * near)
    count = 2 * dice.count(f"{name}.pairs", 4, 7)
    for step in range(count):
        start, end = stem.at(step / count), stem.at((step + 1) / count)
        yield Layer(segment(*start[:2], *end[:2], 0.006), flat(color))
    blooms = dice.chance(f"{name}.bloom", 0.35)
    yield from _leaves(sheet, name, stem, size, color, count - blooms)
    if blooms:
        yield from _seed_head(sheet, stem.at(1.0), size * 0.2)


def _leaves(
    sheet: Sheet, name: str, stem: _Stem, size: float, color: Lab, count: int
) -> Iterator[Layer]:
    """Leaves by turns left and right, smaller toward the tip; the last one ends the stem."""
    slim = sheet.dice.between(f"{name}.slim", 0.22, 0.5)
    sway = sheet.dice.normals(f"{name}.sway", count + 1).tolist()
    for step in range(2, count + 1):
        t = step / count
        x, y, heading = stem.at(t)
        aside = 0.0 if step == count else (0.95 - 0.35 * t) * (1 if step % 2 else -1)
        length = size * (1.05 - 0.6 * t)
        place = (x, y, heading + aside + 0.12 * sway[step])
        yield from _leaf(sheet, place, length, length * slim, color)


def _leaf(sheet: Sheet, place: Place, length: float, width: float, color: Lab) -> Iterator[Layer]:
    """One leaf, its halves in different light."""
    x, y, angle = place
    shape = leaf(x, y, length, width, angle)
    tip = (x + length * math.cos(angle), y + length * math.sin(angle))
    pale = mix(color, sheet.palette.air(1.0), 0.35)
    shaded = both(shape, half_plane(x, y, angle - math.pi / 2))
    yield Layer(shape, graded(color, pale, stippled(along(x, y, *tip), 0.4)))
    yield Layer(shaded, flat(lit(color, -0.07)), 0.75)


def _seed_head(sheet: Sheet, place: Place, size: float) -> Iterator[Layer]:
    """A ball at the tip, lit from above."""
    x, y, _ = place
    ball, color = disc(x, y, size), sheet.palette.accent
    dusk = away(x - size * 0.4, y - size * 0.5, size * 0.7, size * 1.8)
    yield Layer(ball, flat(color))
    yield Layer(ball, flat(mix(color, sheet.palette.tone(0.8), 0.5)), fade=dusk, grain=0.8)
