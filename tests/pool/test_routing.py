"""Which replica the router takes: its choice alone, without a cluster."""

from __future__ import annotations

from collections import Counter
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve._private.request_router.common import ReplicaQueueLengthCache

from backends.local.pool import routing
from backends.local.pool.routing import RECENT, AffinityRouter

NAMES = ("a", "b", "c", "d")


class Bench:
    """A router with replicas that hold some sets of adapters each."""

    def __init__(self, **held: set[str]) -> None:
        self.replicas = [
            SimpleNamespace(replica_id=name, multiplexed_model_ids=sets)
            for name, sets in held.items()
        ]
        self.cache = ReplicaQueueLengthCache()
        self.router: Any = AffinityRouter.__new__(AffinityRouter)
        self.router._replica_queue_len_cache = self.cache
        self.router.initialize_state()
        self._numbers = count()

    async def sent(self, key: str = "", times: int = 1) -> list[str]:
        """Where so many jobs go, one after the other, none of which has arrived yet."""
        return [(await self.asked(str(next(self._numbers)), key))[0] for _ in range(times)]

    async def asked(self, job: str, key: str = "") -> list[str]:
        ranks = await self.router.choose_replicas(self.replicas, request(job, key))
        return [replica.replica_id for (replica,) in ranks]

    async def loaded(self, **jobs: int) -> None:
        """Each replica has so many."""
        for name, times in jobs.items():
            for number in range(times):
                job = request(f"{name}{number}")
                self.router.on_request_routed(job, name, None)


def request(job: str, key: str = "") -> Any:
    metadata = SimpleNamespace(internal_request_id=job, multiplexed_model_id=key)
    return SimpleNamespace(metadata=metadata)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The router's, in the test's hand."""
    held = SimpleNamespace(now=100.0)
    monkeypatch.setattr(routing, "time", SimpleNamespace(monotonic=lambda: held.now))
    return held


async def test_a_crowd_spreads_evenly_before_any_of_it_has_arrived() -> None:
    bench = Bench(**{name: set() for name in NAMES})
    assert Counter(await bench.sent(times=12)) == dict.fromkeys(NAMES, 3)


async def test_a_holder_is_worth_waiting_twice_as_long_and_one_job() -> None:
    for load, best in ((0, "a"), (1, "a"), (5, "a"), (6, "b")):
        bench = Bench(a={"k"}, b=set())
        await bench.loaded(a=load, b=0 if load < 2 else 2)
        assert await bench.sent("k") == [best], load


async def test_a_set_that_nobody_holds_goes_where_the_fewest_are_and_stays_there() -> None:
    bench = Bench(a={"x", "y"}, b={"z"}, c={"x", "z"})
    assert await bench.sent("k", 2) == ["b", "b"]
    assert (await bench.sent("k"))[0] != "b", "not beyond the bound"


async def test_a_popular_set_spreads() -> None:
    bench = Bench(a={"k"}, b=set(), c=set())
    assert set(await bench.sent("k", 9)) == {"a", "b", "c"}


async def test_the_jobs_of_other_proxies_count() -> None:
    bench = Bench(a=set(), b=set())
    bench.cache.update("a", 3)
    assert await bench.sent(times=3) == ["b", "b", "b"]


async def test_a_job_that_ended_makes_room() -> None:
    bench = Bench(a=set(), b=set())
    await bench.loaded(a=2, b=1)
    for job in ("a0", "a1"):
        bench.router.on_request_completed("a", job)
    assert await bench.sent() == ["a"]


async def test_a_job_is_counted_once_and_where_it_went_at_last() -> None:
    bench = Bench(a=set(), b=set())
    for _ in range(3):
        await bench.asked("x")
    bench.router.on_request_routed(request("x"), "b", None)
    assert await bench.sent() == ["a"]
    assert set(await bench.sent(times=2)) == {"a", "b"}


async def test_a_job_that_never_arrived_is_forgotten(clock: SimpleNamespace) -> None:
    bench = Bench(a=set(), b=set())
    await bench.loaded(b=1)
    assert await bench.sent() == ["a"]
    clock.now += RECENT + 0.1
    await bench.asked("later")
    assert bench.router._sent.count("a") == 1, "the later one alone"


async def test_where_a_set_went_counts_until_the_replica_says_itself(
    clock: SimpleNamespace,
) -> None:
    bench = Bench(a=set(), b={"x"})
    assert await bench.sent("k") == ["a"]
    clock.now += RECENT + 0.1
    bench.replicas[0].multiplexed_model_ids = {"other", "sets"}
    await bench.loaded(a=1)
    assert await bench.sent("k") == ["b"]
