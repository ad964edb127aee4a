"""Celestial: a planet, its ring and its moons, lit from one side."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from backends.demo.canvas import Layer, Shape
from backends.demo.fields import waves
from backends.demo.inks import along, away, flat, graded, ramp, stippled
from backends.demo.shapes import both, disc, ellipse, everywhere, half_plane, minus, ring, union
from backends.demo.sheet import Sheet


@dataclass(frozen=True, slots=True)
class _Globe:
    """A ball: its middle and radius in units."""

    x: float
    y: float
    radius: float

    def toward(self, angle: float, far: float) -> tuple[float, float]:
        """A place `far` radii from the middle."""
        reach = self.radius * far
        return self.x + reach * math.cos(angle), self.y + reach * math.sin(angle)


def celestial(sheet: Sheet) -> list[Layer]:
    """Always on a dark ground, whatever the palette."""
    night = replace(sheet, palette=sheet.palette.at_night())
    dice = sheet.dice
    planet = _Globe(
        sheet.x("x", 0.35, 0.65), sheet.y("y", 0.4, 0.62), dice.between("r", 0.17, 0.27)
    )
    light = dice.between("light", 0, math.tau)
    layers = [_space(night), *night.stars(sheet.height)]
    ringed = _hoops(night, planet) if dice.chance("ringed", 0.7) else []
    layers += [*ringed[:1], *_globe(night, "planet", planet, light), *ringed[1:]]
    for index in range(dice.count("moons", 1, 3)):
        layers += _moon(night, f"moon{index}", planet, light)
    return layers


def _space(sheet: Sheet) -> Layer:
    tones = tuple(sheet.palette.tone(depth) for depth in (1.0, 0.93, 0.74))
    slant = along(0, 0, sheet.width * 0.4, sheet.height)
    return Layer(everywhere(), ramp(tones, stippled(slant, 0.15)))


def _hoops(sheet: Sheet, planet: _Globe) -> list[Layer]:
    """The ring around the planet: the whole, and the half in front."""
    x, y = planet.x, planet.y
    tilt = sheet.dice.between("tilt", -0.6, 0.6)
    reach = planet.radius * sheet.dice.between("ring", 1.65, 2.1)
    edges = [ellipse(x, y, reach * s, reach * s * 0.26, tilt) for s in (1.0, 0.86, 0.83, 0.7)]
    hoop = union(minus(edges[0], edges[1]), minus(edges[2], edges[3]))
    front = both(hoop, half_plane(x, y, tilt - math.pi / 2))
    across = along(x - reach, y, x + reach, y)
    ink = graded(sheet.palette.accent, sheet.palette.tones[1], across)
    return [Layer(hoop, ink, 0.9), Layer(front, ink)]


def _moon(sheet: Sheet, name: str, planet: _Globe, light: float) -> Iterator[Layer]:
    """A small ball on a thin orbit."""
    dice = sheet.dice
    far = dice.between(f"{name}.far", 1.7, 2.6)
    place = planet.toward(dice.between(f"{name}.turn", 0, math.tau), far)
    orbit: Shape = ring(planet.x, planet.y, planet.radius * far, 0.0022)
    size = planet.radius * dice.between(f"{name}.r", 0.08, 0.24)
    yield Layer(orbit, flat(sheet.palette.tones[1]), 0.35)
    yield from _globe(sheet, name, _Globe(*place, size), light)


def _globe(sheet: Sheet, name: str, globe: _Globe, light: float) -> Iterator[Layer]:
    """A ball with bands of weather, and its night side."""
    palette, body = sheet.palette, disc(globe.x, globe.y, globe.radius)
    weather = waves(sheet.dice, f"{name}.weather", 0.27 / globe.radius, 9, stretch=5)
    bands = tuple(palette.tone(depth) for depth in (0.05, 0.3, 0.5, 0.2))
    dusk = away(*globe.toward(light, 0.55), globe.radius * 0.8, globe.radius * 1.35)
    yield Layer(body, ramp(bands, stippled(lambda g: 0.5 + 0.5 * weather(g), 0.15)))
    yield Layer(body, flat(palette.tone(0.98)), 0.94, fade=dusk, grain=0.7)
