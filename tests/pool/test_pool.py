"""The pool itself: a Ray cluster on this machine, with replicas that need no GPU."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from backends.local.job import Job
from backends.local.pool.desk import PoolDesk
from backends.local.pool.wire import adapters_key
from generation.errors import AdapterUnavailable, EngineCrashed
from generation.events import Event, Finished, Queued, Running
from generation.lora_file import LoraFile
from tests.local.engine_bench import wanted
from tests.pool.engines import CPU
from tests.pool.harness import Cluster, running_cluster
from tests.pool.routing_bound import Arrival, best_share
from tests.standins.adapters import adapter

NAMES = ("comfyui", "kohya", "lycoris-lokr", "comfyui-dora")
JOBS = 200
VISITORS = 20
SEEDS = 2
SETS_HELD = 6
PATIENCE = 100.0  # seconds


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[Cluster]:
    with running_cluster(folder) as running:
        yield running


@pytest.fixture
def arrivals(caplog: pytest.LogCaptureFixture) -> Callable[[], list[Arrival]]:
    """Of all jobs since the test began, in their order."""
    caplog.set_level(logging.DEBUG, "playground.local")

    def seen() -> list[Arrival]:
        return [found for record in caplog.records if (found := Arrival.of(record))]

    return seen


@asynccontextmanager
async def desk_at(address: str) -> AsyncIterator[PoolDesk]:
    desk = PoolDesk(address)
    yield desk
    await desk.close()


async def heard(desk: PoolDesk, job: Job, owner: str = "me") -> list[Event]:
    async with asyncio.timeout(PATIENCE):
        return [event async for event in desk.stream(job, owner)]


def saying(prompt: str) -> Job:
    return Job(wanted(prompt=prompt))


async def crowd(
    desk: PoolDesk, jobs: Sequence[Job], done: Callable[[int], None] = lambda _: None
) -> list[list[Event]]:
    """All the jobs, by visitors who each wait for one before they ask for the next."""
    left = list(enumerate(jobs))[::-1]
    told: list[list[Event]] = [[] for _ in jobs]

    async def visit(owner: str) -> None:
        while left:
            number, job = left.pop()
            told[number] = await heard(desk, job, owner)
            done(len(jobs) - len(left))

    await asyncio.gather(*(visit(str(number)) for number in range(VISITORS)))
    return told


# -- a crowd -------------------------------------------------------------------


def sets_of_adapters(folder: Path) -> list[tuple[tuple[LoraFile, float], ...]]:
    """Ten different ones, of one or two files."""
    files = []
    for name in NAMES:
        local = folder / f"{name}.safetensors"
        local.write_bytes(adapter(name).data())
        files.append((LoraFile(f"o/{name}", file=local.name, local=local), 0.5))
    pairs = [(one, other) for n, one in enumerate(files) for other in files[n + 1 :]]
    return [*((one,) for one in files), *pairs]


def mixed_jobs(folder: Path) -> list[Job]:
    """The nth set is asked for 1/n as often as the first."""
    dice = random.Random(11)
    sets = sets_of_adapters(folder)
    weights = [1 / rank for rank in range(1, len(sets) + 1)]
    return [
        Job(wanted(num_inference_steps=1, seed=dice.randrange(SEEDS)), loras)
        for loras in dice.choices(sets, weights, k=JOBS)
    ]


def pictures(jobs: Sequence[Job]) -> dict[tuple[str, int | None], bytes | None]:
    """What an engine in this process makes of each."""
    from tests.local.tiny_engine import tiny_engine

    engine, found = tiny_engine(CPU), {}
    for job in jobs:
        key = (adapters_key(job), job.request.seed)
        if key not in found:
            result = engine.run(job, lambda _event: None, lambda: False)
            found[key] = result.images[0].data
    return found


@pytest.mark.timeout(240)  # most of it is torch, imported by four processes at once
async def test_two_hundred_jobs_survive_a_killed_replica_and_keep_to_their_adapters(
    cluster: Cluster, folder: Path, arrivals: Callable[[], list[Arrival]]
) -> None:
    jobs = mixed_jobs(folder)
    address, expected = await asyncio.gather(
        asyncio.to_thread(cluster.deploy, "tiny", "tiny", 2, SETS_HELD),
        asyncio.to_thread(pictures, jobs),
    )

    def kill_one(done: int) -> None:
        if done == JOBS // 2:
            cluster.replicas("tiny")[0].kill()

    async with desk_at(address) as desk:
        told = await crowd(desk, jobs, kill_one)

    for job, events in zip(jobs, told, strict=True):
        last = events[-1]
        assert isinstance(last, Finished)
        assert last.result.images[0].data == expected[adapters_key(job), job.request.seed]
        assert all(lora.applied for lora in last.result.loras)
    reached = arrivals()
    assert len(reached) > JOBS and len({one.replica for one in reached}) >= 2  # some ran twice
    share = [one.held for one in reached].count("yes") / len(reached)
    best = best_share(reached, SETS_HELD)
    assert share >= 0.8 * best, f"{share:.3f} of the jobs found their adapters; at best {best:.3f}"


# -- one job after the other ---------------------------------------------------


@pytest.fixture(scope="module")
def toys(cluster: Cluster) -> str:
    return cluster.deploy("toy", "toy", 2)


async def test_a_hang_up_stops_the_job(toys: str) -> None:
    """Which would otherwise keep a replica busy for half a minute, and the next jobs waiting."""
    async with desk_at(toys) as desk:
        for _ in range(4):
            async with aclosing(desk.stream(saying("wait"), "me")) as told:  # type: ignore[type-var]
                async for event in told:
                    if isinstance(event, Running):
                        break
        async with asyncio.timeout(10):
            for _ in range(4):
                assert isinstance((await heard(desk, saying("hello")))[-1], Finished)


async def test_waiting_jobs_hear_their_place(toys: str) -> None:
    async with desk_at(toys) as desk, asyncio.TaskGroup() as tasks:
        first = [tasks.create_task(heard(desk, saying("wait"))) for _ in range(2)]
        await asyncio.sleep(0.3)
        async with aclosing(desk.stream(saying("hello"), "me")) as told:  # type: ignore[type-var]
            assert [await anext(told), await anext(told)] == [Queued(), Queued(1)]
            for task in first:
                task.cancel()
            assert isinstance([event async for event in told][-1], Finished)


async def test_a_replica_whose_engine_keeps_crashing_is_replaced(
    cluster: Cluster, toys: str
) -> None:
    before = {process.pid for process in cluster.replicas("toy")}
    async with desk_at(toys) as desk:
        for _ in range(2):
            with pytest.raises(EngineCrashed, match="SIGSEGV"):
                await heard(desk, saying("die SIGSEGV"))
        async with asyncio.timeout(PATIENCE):
            while {process.pid for process in cluster.replicas("toy")} & before == before:
                await asyncio.sleep(0.1)
        assert isinstance((await heard(desk, saying("hello")))[-1], Finished)


async def test_adapters_that_a_replica_doesnt_find_are_refused_clearly(
    toys: str, folder: Path, tmp_path: Path
) -> None:
    async def refused(local: Path) -> str:
        with pytest.raises(AdapterUnavailable) as caught:
            await heard(desk, Job(wanted(), ((LoraFile("o/a", file="a", local=local), 1.0),)))
        return str(caught.value)

    (tmp_path / "a.safetensors").touch()
    async with desk_at(toys) as desk:
        assert "doesn't find it" in await refused(folder / "gone.safetensors")
        assert f"isn't below {folder}" in await refused(tmp_path / "a.safetensors")
        assert "isn't below" in await refused(folder / ".." / "a.safetensors")


async def test_a_redeploy_under_load_loses_nothing(cluster: Cluster, toys: str) -> None:
    stop = asyncio.Event()
    ends: list[Any] = []

    async def visit(owner: str) -> None:
        while not stop.is_set():
            ends.append((await heard(desk, saying("hello"), owner))[-1])

    async with desk_at(toys) as desk:
        visitors = [asyncio.create_task(visit(str(number))) for number in range(6)]
        await asyncio.sleep(0.3)
        before, early = {process.pid for process in cluster.replicas("toy")}, len(ends)
        await asyncio.to_thread(cluster.deploy, "toy", "toy", 2)
        during = len(ends) - early
        stop.set()
        await asyncio.gather(*visitors)
    assert {process.pid for process in cluster.replicas("toy")} & before == set()
    assert early > 0 and during > 0
    assert all(isinstance(end, Finished) for end in ends)
