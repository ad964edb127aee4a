"""Chance that can be repeated: every draw has a name, and depends on the recipe alone.

A draw is a point on a bell curve, mixed from three sources: the prompt's words,
the seed, and the adapters. Words are spread over a space of `DIMENSIONS`
directions, as text encoders do, so prompts that share words give related
pictures. An adapter moves every continuous draw along its own direction by its
scale; it never touches a discrete draw, so its scale acts without a jump.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
Adapter = tuple[str, float]
"""Its path and its scale."""

DIMENSIONS: Final = 64
_ADAPTER_REACH: Final = 0.12  # standard deviations that scale 1 moves a draw, typically


def generator(*parts: str | int) -> np.random.Generator:
    """Random numbers that depend on the parts and nothing else."""
    text = "\0".join(map(str, parts)).encode(errors="surrogatepass")
    digest = hashlib.blake2b(text, digest_size=16)
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest.digest(), "big")))


def embed(tokens: Iterable[str]) -> Vector:
    """A text's place among the directions: (DIMENSIONS,), each about ±1."""
    places = [generator("token", token).standard_normal(DIMENSIONS) for token in tokens]
    together: Vector = np.sum(places, axis=0) / math.sqrt(len(places))
    return together


class Dice:
    """Named draws for one image."""

    def __init__(self, text: Vector, seed: int, adapters: Iterable[Adapter] = ()) -> None:
        self._text = text
        self._seed = seed
        self._adapters = sorted(adapters)

    def normals(self, name: str, count: int) -> Vector:
        """Draws from the bell curve: (count,), mean 0, deviation 1 before the adapters."""
        drawn = self._steady(name, count)
        for path, scale in self._adapters:
            if scale:
                shift = generator("adapter", path, name).standard_normal(count)
                drawn = drawn + _ADAPTER_REACH * scale * shift
        return drawn

    def units(self, name: str, count: int) -> Vector:
        """Draws that are even between 0 and 1: (count,)."""
        return _even(self.normals(name, count))

    def steady_units(self, name: str, count: int) -> Vector:
        """Like `units`, out of the adapters' reach: where a small move would be a new picture."""
        return _even(self._steady(name, count))

    def between(self, name: str, low: float, high: float) -> float:
        """One even draw between two bounds."""
        return low + float(self.units(name, 1)[0]) * (high - low)

    def count(self, name: str, low: int, high: int) -> int:
        """One of the whole numbers from low to high."""
        spread = float(_even(self._steady(name, 1))[0])
        return low + min(int(spread * (high - low + 1)), high - low)

    def chance(self, name: str, odds: float) -> bool:
        """Whether something that happens with these odds happens."""
        return bool(_even(self._steady(name, 1))[0] < odds)

    def _steady(self, name: str, count: int) -> Vector:
        """Prompt and seed in equal parts, without the adapters."""
        directions = generator("direction", name).standard_normal((count, DIMENSIONS))
        worded = directions @ self._text / math.sqrt(DIMENSIONS)
        seeded = generator("seed", self._seed, name).standard_normal(count)
        return (worded + seeded) * math.sqrt(0.5)


def _even(normals: Vector) -> Vector:
    return np.array([0.5 * (1 + math.erf(value / math.sqrt(2))) for value in normals])
