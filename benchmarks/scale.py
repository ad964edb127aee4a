"""A pool of GPUs that only take their time: what Ray Serve costs, and how the pool grows.

    python -m benchmarks.scale [--rounds 3] [--jobs 20] [--hops 30]

A GPU is an engine that sleeps for one second, tells of eight steps with a preview
each, and gives an image of a megabyte; everything around it is the playground's
own. Throughput: so many jobs for each replica, asked for at once by visitors who
have a fifth of them each; 1.0 is the sum of what the replicas do alone. Hop: one
job at a time, from the asking to its last event, through the pool and through the
line in this process, in turns; the difference is what Ray and HTTP add. Affinity:
jobs with twelve sets of adapters, popular as 1/n, on two replicas that hold six
each; the share that found theirs held, against what no routing could surpass.

Each figure is the median (lowest–highest). Takes about six minutes on two cores.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import tempfile
import time
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Final

from backends.local.desk import Desk, EngineDesk
from backends.local.job import Job
from backends.local.pool.desk import PoolDesk
from benchmarks._common import Spread, print_table
from generation.events import Finished
from generation.lora_file import LoraFile
from generation.request import GenerationRequest
from tests.pool.engines import Sleeper
from tests.pool.harness import Cluster, running_cluster
from tests.pool.routing_bound import Arrival, best_share

REPLICAS: Final = (1, 2, 4)
SECONDS: Final = 1.0
VISITORS: Final = 5  # for each replica
SETS, HELD, CLICKS = 12, 6, 300
TARGETS: Final = (
    "targets: throughput ≥ 0.95 × linear, hop ≤ 30 ms median, held ≥ 0.8 × the best possible"
)


async def timed(desk: Desk, job: Job, owner: str) -> float:
    """Seconds from asking to the last event."""
    began = time.perf_counter()
    async with aclosing(desk.stream(job, owner)) as events:  # type: ignore[type-var]
        async for event in events:
            last = event
    assert isinstance(last, Finished)
    return time.perf_counter() - began


def plain(seed: int) -> Job:
    return Job(GenerationRequest(prompt="a fox", seed=seed))


async def throughput(address: str, replicas: int, jobs: int) -> float:
    """Of `jobs` for each replica, asked for at once: as a share of what they would do alone."""
    desk = PoolDesk(address)
    visitors = VISITORS * replicas
    asked = [(plain(number), str(number % visitors)) for number in range(jobs * replicas)]
    began = time.perf_counter()
    await asyncio.gather(*(timed(desk, job, owner) for job, owner in asked))
    took = time.perf_counter() - began
    await desk.close()
    return jobs * SECONDS / took


async def hops(address: str, count: int) -> list[float]:
    """Milliseconds that a job takes longer through the pool than in this process."""
    pool, here = PoolDesk(address), EngineDesk(Sleeper(0.1))
    found = []
    for number in range(count + 3):
        there = await timed(pool, plain(number), "me")
        found.append((there - await timed(here, plain(number), "me")) * 1000)
    await pool.close()
    await here.close()
    return found[3:]


async def affinity(address: str, folder: Path, seed: int) -> float:
    """The share of jobs that found their adapters, over the best possible one."""
    dice = random.Random(seed)
    files = [folder / f"{seed}-{number}.safetensors" for number in range(SETS)]
    for file in files:
        file.touch()
    weights = [1 / rank for rank in range(1, SETS + 1)]
    jobs = [
        Job(GenerationRequest(prompt="a fox"), ((LoraFile("o/a", local=file), 1.0),))
        for file in dice.choices(files, weights, k=CLICKS)
    ]
    desk, seen = PoolDesk(address), _Arrivals()
    left = [(job, str(number)) for number, job in enumerate(jobs)]

    async def visit() -> None:
        while left:
            await timed(desk, *left.pop())

    await asyncio.gather(*(visit() for _ in range(VISITORS * 2)))
    await desk.close()
    reached = seen.taken()
    return [one.held for one in reached].count("yes") / len(reached) / best_share(reached, HELD)


class _Arrivals(logging.Handler):
    """What a desk says of each job that reached a replica."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self._found: list[Arrival] = []
        self._log = logging.getLogger("playground.local")
        self._log.setLevel(logging.DEBUG)
        self._log.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        if arrival := Arrival.of(record):
            self._found.append(arrival)

    def taken(self) -> Sequence[Arrival]:
        """All of them; no more come."""
        self._log.removeHandler(self)
        return self._found


def measure(cluster: Cluster, folder: Path, rounds: int, jobs: int, count: int) -> None:
    """Everything, printed as it is there."""
    rows = []
    for replicas in REPLICAS:
        address = cluster.deploy("second", "second", replicas)
        asyncio.run(throughput(address, replicas, 2))  # the proxy's first connections
        shares = [asyncio.run(throughput(address, replicas, jobs)) for _ in range(rounds)]
        rows.append((f"throughput, {replicas} replicas, × linear", Spread(tuple(shares)).show(3)))
        print(*rows[-1], flush=True)
    address = cluster.deploy("tenth", "tenth", 2, HELD)
    added = Spread(tuple(asyncio.run(hops(address, count))))
    rows.append(("hop, ms", f"{added.show(1)}, 95 %: {added.percentile(95):.1f}"))
    print(*rows[-1], flush=True)
    held = [asyncio.run(affinity(address, folder, seed)) for seed in range(rounds)]
    rows.append(("adapters found held, × the best possible", Spread(tuple(held)).show(3)))
    print()
    print_table(("pool", "median (range)"), rows)
    print(TARGETS)


def main() -> None:
    """Start the cluster, measure, end it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--hops", type=int, default=30)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running_cluster(Path(folder)) as cluster:
        measure(cluster, Path(folder), asked.rounds, asked.jobs, asked.hops)


if __name__ == "__main__":
    main()
