"""What a family of composition gets: chance, colours, and the sheet's size in units."""

from __future__ import annotations

from dataclasses import dataclass

from backends.demo.canvas import Layer
from backends.demo.color import Lab
from backends.demo.dice import Dice
from backends.demo.inks import along, down, flat, graded, ramp, stippled
from backends.demo.palette import Palette
from backends.demo.shapes import disc, everywhere


@dataclass(frozen=True, slots=True)
class Sheet:
    """Paper to draw on: `width` by `height` units."""

    dice: Dice
    palette: Palette
    width: float
    height: float

    def x(self, name: str, low: float, high: float) -> float:
        """A drawn place across the sheet, between two fractions of its width."""
        return self.width * self.dice.between(name, low, high)

    def y(self, name: str, low: float, high: float) -> float:
        """A drawn place down the sheet, between two fractions of its height."""
        return self.height * self.dice.between(name, low, high)

    def ground(self, first: Lab, second: Lab, grain: float = 0.3) -> Layer:
        """The whole sheet, graded from its top left to its bottom right."""
        corner = stippled(along(0, 0, self.width, self.height), grain)
        return Layer(everywhere(), graded(first, second, corner))

    def sky(self, horizon: float) -> list[Layer]:
        """The air, from the top of the sheet to `horizon` (units); stars at night."""
        colors = tuple(self.palette.air(nearness) for nearness in (0.0, 0.45, 0.8, 1.0))
        air = Layer(everywhere(), ramp(colors, down(0, horizon)))
        return [air, *self.stars(horizon)] if self.palette.dark else [air]

    def stars(self, bottom: float) -> list[Layer]:
        """Small lights above `bottom` (units), few of them bright."""
        count = int(110 * self.width * bottom)
        places = self.dice.steady_units("stars", 3 * count).reshape(3, count).T.tolist()
        white = flat(self.palette.tones[0])
        return [
            Layer(disc(x * self.width, y * bottom, 0.0012 + 0.0026 * z**4), white, 0.3 + 0.6 * z**4)
            for x, y, z in places
        ]

    def sun(self, x: float, y: float, radius: float) -> list[Layer]:
        """What lights the scene: a disc with a wide, sprayed halo."""
        halo, ink = radius * 3.2, flat(self.palette.light)
        return [
            Layer(disc(x, y, halo * 0.55), ink, 0.35, softness=halo, grain=0.35),
            Layer(disc(x, y, radius), ink),
        ]
