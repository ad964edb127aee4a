"""Portrait: a head and shoulders in a few cut shapes, lit from one side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from backends.demo.canvas import Field, Ink, Layer, Shape
from backends.demo.color import Lab, mix
from backends.demo.inks import along, away, down, flat, flipped, graded, stippled
from backends.demo.shapes import both, disc, ellipse, minus, rectangle, union
from backends.demo.sheet import Sheet


@dataclass(frozen=True, slots=True)
class _Sitter:
    """Where the head is (its middle), its scale in units, and the side in shadow (±1)."""

    x: float
    y: float
    size: float
    side: float

    def at(self, across: float, down: float) -> tuple[float, float]:
        """A place in head sizes from the middle, `across` toward the shadow."""
        return self.x + self.side * across * self.size, self.y + down * self.size

    def oval(self, across: float, down: float, wide: float, high: float) -> Shape:
        """An ellipse, in head sizes."""
        return ellipse(*self.at(across, down), wide * self.size, high * self.size)

    def block(self, half: float, top: float, bottom: float, rounded: float = 0.0) -> Shape:
        """An upright rectangle about the middle, in head sizes."""
        s = self.size
        left, right = self.x - half * s, self.x + half * s
        return rectangle(left, self.y + top * s, right, self.y + bottom * s, rounded * s)

    def shading(self, lit: tuple[float, float], dark: tuple[float, float], grain: float) -> Field:
        """From light to shadow between two places in head sizes."""
        return stippled(along(*self.at(*lit), *self.at(*dark)), grain)


def portrait(sheet: Sheet) -> list[Layer]:
    """One sitter before a disc."""
    dice, palette = sheet.dice, sheet.palette
    side = 1.0 if dice.chance("side", 0.5) else -1.0
    size = min(1.0, sheet.width, sheet.height) * dice.between("size", 0.19, 0.24)
    sitter = _Sitter(sheet.x("x", 0.44, 0.56), sheet.y("y", 0.37, 0.42), size, side)
    return [
        sheet.ground(palette.air(0.2), palette.air(1.0)),
        _backdrop(sheet, sitter),
        *_back_hair(sheet, sitter),
        *_bust(sheet, sitter),
        *_face(sheet, sitter),
        _front_hair(sheet, sitter),
    ]


def _backdrop(sheet: Sheet, sitter: _Sitter) -> Layer:
    dice = sheet.dice
    place = sitter.at(dice.between("disc.x", 0.2, 1.3), -dice.between("disc.y", 0, 0.9))
    glow = disc(*place, sitter.size * dice.between("disc.r", 1.7, 2.5))
    top, bottom = sitter.at(0, -2.6)[1], sitter.at(0, 4)[1]
    fade = stippled(flipped(down(top, bottom)), 0.2)
    return Layer(glow, flat(sheet.palette.light), fade=fade, grain=0.6)


def _bust(sheet: Sheet, sitter: _Sitter) -> Iterator[Layer]:
    """Shoulders, neck and collar."""
    palette = sheet.palette
    cloth, fold = palette.land(0.55), palette.land(0.85)
    skin, shadow = _skin(sheet)
    wide = sheet.dice.between("shoulders", 2.1, 2.8)
    slope = sitter.oval(0, 1.45 + wide * 0.75, wide, wide * 0.75)
    body = union(slope, sitter.block(wide, 1.45 + wide * 0.75, 9))
    neck = union(sitter.block(0.36, 0.5, 1.6), sitter.oval(0, 1.6, 0.36, 0.36))
    collar = minus(both(body, disc(*sitter.at(0, 1.35), sitter.size * 0.85)), neck)
    under_chin = stippled(down(sitter.at(0, 0.95)[1], sitter.at(0, 1.9)[1]), 0.3)
    yield Layer(body, graded(cloth, fold, sitter.shading((-wide, 1.5), (wide * 0.8, 4), 0.4)))
    yield Layer(neck, graded(shadow, skin, under_chin))
    yield Layer(collar, flat(mix(palette.accent, fold, 0.15)))


def _face(sheet: Sheet, sitter: _Sitter) -> Iterator[Layer]:
    """No features: a plane in light and a plane in shadow."""
    skin, shadow = _skin(sheet)
    face = sitter.oval(0, 0, 0.78, 1.08)
    cheek = sitter.shading((-0.5, 0), (1, 0.3), 0.4)
    dusk = away(*sitter.at(-0.6, -0.1), sitter.size * 0.95, sitter.size * 1.2)
    yield Layer(face, graded(skin, mix(skin, shadow, 0.5), cheek))
    yield Layer(face, flat(shadow), 0.85, fade=dusk, grain=0.6)


def _back_hair(sheet: Sheet, sitter: _Sitter) -> Iterator[Layer]:
    """What falls behind the shoulders, and perhaps a bun."""
    dice = sheet.dice
    crown = sitter.oval(0, -0.22, 1.0, 1.15)
    long = dice.between("hair", 0.2, 1.9)
    hair = union(crown, sitter.block(1.0, -0.7, long, 0.45)) if dice.chance("long", 0.5) else crown
    if dice.chance("bun", 0.35):
        hair = union(hair, disc(*sitter.at(0.55, -1.35), sitter.size * 0.42))
    yield Layer(hair, _hair_ink(sheet, sitter))


def _front_hair(sheet: Sheet, sitter: _Sitter) -> Layer:
    """What covers the forehead, parted on the lit side."""
    parting = ellipse(
        *sitter.at(-0.75, 0.45), sitter.size * 1.25, sitter.size * 1.15, sitter.side * 0.35
    )
    hair = minus(sitter.oval(0, 0, 0.80, 1.1), parting)
    return Layer(hair, _hair_ink(sheet, sitter))


def _hair_ink(sheet: Sheet, sitter: _Sitter) -> Ink:
    sheen = sitter.shading((-1, -1), (0.4, 1), 0.4)
    return graded(sheet.palette.tone(0.72), sheet.palette.tone(0.97), sheen)


def _skin(sheet: Sheet) -> tuple[Lab, Lab]:
    """Light and shadow of the skin: tones of the palette, nobody's in particular."""
    depth = sheet.dice.between("skin", 0.12, 0.55)
    return sheet.palette.tone(depth), sheet.palette.tone(depth + 0.24)
