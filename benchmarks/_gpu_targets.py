"""What was to be reached on an H100, and what a run of `benchmarks.local_gpu` reached."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from benchmarks._contestants import EAGER, Taken

Figures = dict[Hashable, float | Taken]
"""Medians of a run, by what they are of: a scene, or a name."""


def verdicts(figures: Figures) -> list[tuple[str, str, str, str]]:
    """A row for each target; a dash where it wasn't measured."""
    rows = []
    for what, target, figure in _targets(figures):
        met = "–" if figure is None else "met" if figure <= target else "missed"
        rows.append((what, "–" if figure is None else f"{figure:.4g}", f"≤ {target:.4g}", met))
    return rows


def _targets(figures: Figures) -> Iterator[tuple[str, float, float | None]]:
    def whole(size: str, name: str) -> float | None:
        found = figures.get((size, name, 3))
        return found.whole if isinstance(found, Taken) else None

    def denoising(name: str, adapters: int = 3) -> float | None:
        found = figures.get(("large", name, adapters))
        return found.denoising if isinstance(found, Taken) else None

    def single(key: Hashable) -> float | None:
        found = figures.get(key)
        return found if isinstance(found, float) else None

    regular, high = "ours, regular", "ours, high"
    floor = single(("large", "floor"))
    swaps = [single(("swap", where)) for where in ("on the device", "in main memory")]
    large, small = (_ratio(whole(size, regular), whole(size, EAGER)) for size in ("large", "small"))
    yield "1024², 3 adapters: regular of stock eager + PEFT", 0.60, large
    yield "512², 3 adapters: the same", 0.60, small
    yield (
        "time of regular's denoising in floors (70% of the peak)",
        1 / 0.70,
        _ratio(denoising(regular), floor),
    )
    yield (
        "regular with 3 adapters of none",
        1.005,
        _ratio(denoising(regular), denoising(regular, 0)),
    )
    yield "high of regular", 0.62, _ratio(whole("large", high), whole("large", regular))
    yield "swap on the device, s", 0.015, swaps[0]
    yield "swap from main memory, s", 0.060, swaps[1]
    yield "warm-up, s", 90, single("warm-up")
    yield "recompiles in 200 requests", 0, single("recompiles")
    yield "encoding a short prompt of stock", 0.5, single("encoding")
    yield "encoding it again, s", 0.001, single("encoding again")


def _ratio(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one / other
