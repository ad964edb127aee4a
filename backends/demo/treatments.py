"""What an adapter does to a picture: one treatment and one grade, both by its path.

A treatment says how a point would look at full strength. Its scale goes from
there (large) through no change (0) to the opposite (negative), continuously.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Final

import numpy as np

from backends.demo.canvas import Grid
from backends.demo.color import Plane
from backends.demo.dice import Adapter, generator

Treatment = Callable[[Plane, Grid], Plane]
"""From (3, rows, columns) of OKLab to how it would look, treated."""


def treat(lab: Plane, grid: Grid, adapters: Iterable[Adapter]) -> None:
    """Apply adapters (path, scale) in place. Their order doesn't matter; scale 0 does nothing."""
    for path, scale in sorted(adapters):
        if scale:
            amount = _amount(scale)
            for treatment in _treatments(path):
                lab += amount * (treatment(lab, grid) - lab)


def _amount(scale: float) -> float:
    """Nearly 1 at scale 4; shorter the opposite way, or colours would leave the screen's range."""
    reach = 1.0 if scale > 0 else -0.55
    return reach * (1 - math.exp(-0.7 * abs(scale)))


def _treatments(path: str) -> list[Treatment]:
    chance = generator("treatment", path)
    named = [make for word, make in _BY_WORD.items() if word in path.lower()]
    makers = named or list(_BY_WORD.values())
    return [_grade(chance), makers[chance.integers(len(makers))](chance)]


def _grade(chance: np.random.Generator) -> Treatment:
    """Hues turned, colours fuller or paler."""
    turn, chroma = chance.uniform(0.3, 0.65), chance.uniform(0.7, 1.25)
    sign = 1 if chance.random() < 0.5 else -1
    cosine, sine = chroma * math.cos(turn), chroma * math.sin(turn) * sign

    def treatment(lab: Plane, _grid: Grid) -> Plane:
        graded = lab.copy()
        graded[1] = cosine * lab[1] - sine * lab[2]
        graded[2] = sine * lab[1] + cosine * lab[2]
        return graded

    return treatment


def _screen(chance: np.random.Generator) -> Treatment:
    """Printed in dots, larger where it is darker."""
    angle, pitch = chance.uniform(0.2, 1.2), 1 / chance.uniform(70, 110)

    def treatment(lab: Plane, grid: Grid) -> Plane:
        dots = _line(grid, angle, pitch) + _line(grid, angle + math.pi / 2, pitch)
        return _inked(lab, grid, 0.5 + 0.25 * dots, pitch)

    return treatment


def _hatch(chance: np.random.Generator) -> Treatment:
    """Engraved in lines, wider where it is darker."""
    angle, pitch = chance.uniform(-0.9, 0.9), 1 / chance.uniform(80, 120)

    def treatment(lab: Plane, grid: Grid) -> Plane:
        return _inked(lab, grid, 0.5 + 0.5 * _line(grid, angle, pitch), pitch)

    return treatment


def _poster(chance: np.random.Generator) -> Treatment:
    """Few flat tones, fuller colour."""
    levels = float(chance.integers(4, 7))

    def treatment(lab: Plane, _grid: Grid) -> Plane:
        flat = 1.3 * lab
        flat[0] = (np.floor(lab[0] * levels) + 0.5) / levels
        return flat

    return treatment


def _leak(chance: np.random.Generator) -> Treatment:
    """Light that fell on the film from one corner."""
    left, top = chance.integers(2, size=2).tolist()
    hue, reach = chance.uniform(-0.3, 1.4), chance.uniform(0.7, 1.1)
    light = np.array([0.95, 0.13 * math.cos(hue), 0.13 * math.sin(hue)], np.float32)

    def treatment(lab: Plane, grid: Grid) -> Plane:
        # The corners of the sheet, not of the band: x and y are in its units.
        x, y = (grid.x - left * grid.width) / reach, (grid.y - top * grid.height) / reach
        glow: Plane = np.exp(-(x * x + y * y) * 1.4)
        return lab + glow * (light.reshape(3, 1, 1) - lab)

    return treatment


def _weave(chance: np.random.Generator) -> Treatment:
    """Painted on a coarse cloth."""
    pitch = 1 / chance.uniform(90, 140)

    def treatment(lab: Plane, grid: Grid) -> Plane:
        threads = _line(grid, 0.0, pitch) * _line(grid, math.pi / 2, pitch)
        woven = lab.copy()
        woven[0] += (0.2 * _visible(grid, pitch)) * threads + 0.02
        return woven

    return treatment


def _duotone(chance: np.random.Generator) -> Treatment:
    """Two inks: one for the shadows, one for the lights."""
    hue = chance.uniform(0, math.tau)
    dark = 0.10 * np.array([math.cos(hue), math.sin(hue)], np.float32)
    bright = 0.07 * np.array([math.cos(hue + 2.4), math.sin(hue + 2.4)], np.float32)

    def treatment(lab: Plane, _grid: Grid) -> Plane:
        toned = lab.copy()
        for axis in (0, 1):
            toned[axis + 1] = dark[axis] + (bright[axis] - dark[axis]) * lab[0]
        return toned

    return treatment


_BY_WORD: Final[dict[str, Callable[[np.random.Generator], Treatment]]] = {
    "print": _screen, "manga": _screen, "anime": _screen, "comic": _screen, "pixel": _screen,
    "ink": _hatch, "sketch": _hatch, "draw": _hatch, "line": _hatch, "wood": _hatch,
    "flat": _poster, "vector": _poster, "cartoon": _poster, "toon": _poster,
    "film": _leak, "photo": _leak, "light": _leak, "real": _leak, "cine": _leak,
    "paint": _weave, "oil": _weave, "water": _weave, "cloth": _weave,
    "mono": _duotone, "noir": _duotone, "retro": _duotone, "vintage": _duotone,
}  # fmt: skip


def _line(grid: Grid, angle: float, pitch: float) -> Plane:
    """Waves of one pitch (units), ±1."""
    kx, ky = math.tau / pitch * math.cos(angle), math.tau / pitch * math.sin(angle)
    return np.cos(grid.x * kx + grid.y * ky)


def _inked(lab: Plane, grid: Grid, height: Plane, pitch: float) -> Plane:
    """Ink wherever the picture is darker than a screen's `height`, 0 to 1."""
    paper = np.clip((lab[0] - 0.1 - 0.8 * height) * 5 + 0.5, 0, 1)
    inked = 1.15 * lab
    inked[0] = lab[0] + (_visible(grid, pitch)) * (0.34 * paper - 0.22)
    return inked


def _visible(grid: Grid, pitch: float) -> float:
    """Fades a screen out before its pitch comes near the pixels and turns into moiré."""
    return min(1.0, max(0.0, pitch / grid.px / 3 - 0.7)) * (0.25 + 0.75 * grid.detail)
