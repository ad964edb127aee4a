"""Who asks for what, and when: made-up traffic for the simulated queue of `scheduler.py`."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final

from backends.local.job import estimated_seconds
from backends.local.turns import Files, Wish
from generation.request import GenerationRequest

SHARES: Final = {"square_hd": 0.7, "landscape_4_3": 0.2, "square": 0.1}
FOUR: Final = 0.1  # of the jobs ask for four images


@dataclass(frozen=True, slots=True)
class Arrival:
    """A job at a time in seconds; it takes `seconds`, which its wish only estimates."""

    at: float
    wish: Wish
    seconds: float


Traffic = Callable[[random.Random, int, float], list[Arrival]]
"""With so many jobs, so many a second on average."""


def poisson(visitors: int, adapters: int) -> Traffic:
    """Each job by itself, from any visitor; adapters by Zipf's law."""

    def made(dice: random.Random, jobs: int, rate: float) -> list[Arrival]:
        times = _times(dice, rate)
        return [
            _arrival(dice, next(times), _visitor(dice, visitors), _adapters(dice, adapters))
            for _ in range(jobs)
        ]

    return made


def batches(visitors: int, adapters: int, size: int, kinds: int) -> Traffic:
    """Many jobs at once from one visitor, in turns over so many sets of adapters."""

    def made(dice: random.Random, jobs: int, rate: float) -> list[Arrival]:
        found: list[Arrival] = []
        times = _times(dice, rate / size)
        while len(found) < jobs:
            at, owner = next(times), _visitor(dice, visitors)
            sets = [_adapters(dice, adapters) for _ in range(kinds)]
            found += [_arrival(dice, at, owner, sets[n % kinds]) for n in range(size)]
        return found

    return made


def greedy(visitors: int, adapters: int, size: int) -> Traffic:
    """Half of all jobs are one visitor's, who sends so many at a time, and as soon as they could
    be done."""

    def made(dice: random.Random, jobs: int, rate: float) -> list[Arrival]:
        others = poisson(visitors, adapters)(dice, jobs // 2, rate / 2)
        mine = frozenset({"greedy's"})
        return sorted(
            [
                *others,
                *(
                    _arrival(dice, number // size * size / (rate / 2), "greedy", mine)
                    for number in range(jobs // 2)
                ),
            ],
            key=lambda arrival: arrival.at,
        )

    return made


def crowd(visitors: int, adapters: int) -> Traffic:
    """Everyone within one second, whatever the rate."""

    def made(dice: random.Random, jobs: int, rate: float) -> list[Arrival]:
        return poisson(visitors, adapters)(dice, jobs, float(jobs))

    return made


@cache
def mean_seconds() -> float:
    """Of a job, without changes of adapters."""
    one = sum(share * _seconds(size, 1) for size, share in SHARES.items())
    four = sum(share * _seconds(size, 4) for size, share in SHARES.items())
    return (1 - FOUR) * one + FOUR * four


@cache
def _seconds(size: str, images: int) -> float:
    asked = {"prompt": "a fox", "image_size": size, "num_images": images}
    return estimated_seconds(GenerationRequest.model_validate(asked))


def _arrival(dice: random.Random, at: float, owner: str, files: Files) -> Arrival:
    (size,) = dice.choices(list(SHARES), list(SHARES.values()))
    seconds = _seconds(size, 4 if dice.random() < FOUR else 1)
    return Arrival(at, Wish(owner, files, seconds), seconds * dice.uniform(0.9, 1.1))


def _times(dice: random.Random, rate: float) -> Iterator[float]:
    now = 0.0
    while True:
        now += dice.expovariate(rate)
        yield now


def _visitor(dice: random.Random, visitors: int) -> str:
    return f"visitor {dice.randrange(visitors)}"


def _adapters(dice: random.Random, count: int) -> Files:
    """None for a fifth of the jobs, one for half of them, two or three for the rest."""
    (wanted,) = dice.choices(range(4), (0.2, 0.5, 0.2, 0.1))
    popularity = [1 / place for place in range(1, count + 1)]
    return frozenset(f"adapter {n}" for n in dice.choices(range(count), popularity, k=wanted))
