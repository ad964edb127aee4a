"""Families of composition, by the name that `prompt` gives them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from backends.demo.canvas import Layer
from backends.demo.families.arches import arches
from backends.demo.families.botany import botany
from backends.demo.families.celestial import celestial
from backends.demo.families.city import city
from backends.demo.families.land import dunes, ridges
from backends.demo.families.portrait import portrait
from backends.demo.families.printed import orbits, tiles
from backends.demo.families.relief import flow, strata
from backends.demo.families.sea import sea
from backends.demo.sheet import Sheet

Family = Callable[[Sheet], list[Layer]]

FAMILIES: Final[dict[str, Family]] = {
    family.__name__: family
    for family in (
        ridges,
        dunes,
        sea,
        city,
        arches,
        portrait,
        botany,
        celestial,
        flow,
        strata,
        orbits,
        tiles,
    )
}
