"""The local engine's queue on simulated GPUs: work done, waiting and fairness.

    python -m benchmarks.scheduler [--seeds 5] [--jobs 300] [--gpus 1,2,4]

No GPU, no engine and no clock: the policy itself (`backends/local/turns.py`) against made-up
arrivals (`_traffic.py`). A job takes what its request takes an H100 by its arithmetic (0.6 s
for 1024 × 1024 pixels and 8 steps), ± 10 % that no policy knows of. A change of adapters
takes 15 ms, and for each of its files 15 ms from main memory or 0.2 s from disk: 15 ms,
60 ms and 0.6 s for three, the design's figures. The engine keeps the 11 files used last on the
GPU and 22 in main memory (190 MB each, as in `adapters.py`). Afterwards once more with all of
that five times as dear: no target, as the bound leaves out readings that nobody can avoid then.

Columns are *first come, first served / ours / grouped*. *Grouped* serves whatever is merged
already, then the largest group, and is fair to nobody. *Work done* is the throughput, against
a bound that no schedule can beat, not even one that knows the future (`_simulation.soonest`;
target: ≥ 0.9). *Wait* is from arriving to being begun; *p99* is to be at most twice that of
first come, first served. *Overtaken* is the most work that passed a job, as a share of what
the policy promises (≤ 1: nobody starves). *Others first*: a visitor with nothing in the line
sends a job; how many jobs of one other visitor are begun before it (99th percentile).
Each figure is the median over the seeds.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from backends.local.turns import Turns
from benchmarks._common import print_table
from benchmarks._simulation import (
    FirstCome,
    Grouped,
    Outcome,
    Policy,
    Prices,
    simulate,
    soonest,
)
from benchmarks._traffic import Traffic, batches, crowd, greedy, mean_seconds, poisson

POLICIES: Final[tuple[Callable[[int], Policy], ...]] = (FirstCome, Turns, Grouped)
USUAL: Final = Prices(merge=0.015, from_host=0.015, from_disk=0.195)
DEAR: Final = Prices(merge=0.075, from_host=0.075, from_disk=0.975)


@dataclass(frozen=True, slots=True)
class Scene:
    """Traffic, and the share of the GPUs' time that its jobs need on average."""

    name: str
    load: float
    traffic: Traffic


SCENES: Final = (
    Scene("few", 0.3, poisson(30, 40)),
    Scene("many", 0.9, poisson(30, 40)),
    Scene("too many", 1.3, poisson(30, 40)),
    Scene("one job each", 1.3, poisson(1000, 60)),
    Scene("batches of 12", 0.9, batches(30, 40, 12, 1)),
    Scene("grids, 3 sets in turns", 0.9, batches(30, 40, 12, 3)),
    Scene("one sends 30 at a time", 0.7, greedy(30, 40, 30)),
    Scene("one sends 30 at a time", 0.9, greedy(30, 40, 30)),
    Scene("one sends 30 at a time", 1.3, greedy(30, 40, 30)),
    Scene("all at once", 1.0, crowd(60, 40)),
)


@dataclass(frozen=True, slots=True)
class Figures:
    """Medians over the seeds, each by policy."""

    work: tuple[float, ...]
    middle: tuple[float, ...]
    p99: tuple[float, ...]
    longest: tuple[float, ...]
    overtaken: tuple[float, ...]
    before_first: tuple[float, ...]


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=300, help="in each run")
    parser.add_argument("--gpus", default="1,2,4")
    options = parser.parse_args(arguments)
    for title, prices in (("Adapters at the design's cost", USUAL), ("Five times as dear", DEAR)):
        print(f"{title}; first come / ours / grouped")
        rows = [
            _row(scene, gpus, compare(scene, gpus, prices, options.seeds, options.jobs))
            for scene in SCENES
            for gpus in map(int, options.gpus.split(","))
        ]
        head = (
            "arrivals", "load", "GPUs", "work done", "median wait s", "p99 wait s", "× first come",
            "longest wait s", "overtaken", "others first",
        )  # fmt: skip
        print_table(head, rows)


def compare(scene: Scene, gpus: int, prices: Prices, seeds: int, jobs: int) -> Figures:
    """All policies on the same arrivals."""
    runs = [_run(scene, gpus, prices, seed, jobs) for seed in range(seeds)]

    def medians(figure: Callable[[Outcome], float]) -> tuple[float, ...]:
        by_policy = zip(*([figure(one) for one in outcomes] for outcomes, _ in runs), strict=True)
        return tuple(median(values) for values in by_policy)

    best = {id(one): end for outcomes, end in runs for one in outcomes}
    return Figures(
        work=medians(lambda one: best[id(one)] / one.end),
        middle=medians(lambda one: one.waits.median),
        p99=medians(lambda one: one.waits.percentile(99)),
        longest=medians(lambda one: max(one.waits.values)),
        overtaken=medians(lambda one: one.overtaken),
        before_first=medians(lambda one: one.before_first.percentile(99)),
    )


def _run(
    scene: Scene, gpus: int, prices: Prices, seed: int, jobs: int
) -> tuple[list[Outcome], float]:
    dice = random.Random(seed)
    arrivals = scene.traffic(dice, jobs, scene.load * gpus / mean_seconds())
    outcomes = [simulate(arrivals, policy, gpus, prices) for policy in POLICIES]
    return outcomes, soonest(arrivals, gpus, prices)


def _row(scene: Scene, gpus: int, found: Figures) -> tuple[object, ...]:
    def three(values: Sequence[float], digits: int) -> str:
        return " / ".join(f"{value:.{digits}f}" for value in values)

    return (
        scene.name,
        scene.load,
        gpus,
        three(found.work, 2),
        three(found.middle, 1),
        three(found.p99, 1),
        f"{found.p99[1] / found.p99[0]:.2f}",
        three(found.longest, 1),
        three(found.overtaken, 2),
        three(found.before_first, 0),
    )


if __name__ == "__main__":
    main()
