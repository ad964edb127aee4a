"""The simulated queue: the targets hold at a small size, and the bound is one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.local.turns import Turns, Wish
from benchmarks._simulation import FirstCome, Gpu, Grouped, Prices, simulate, soonest
from benchmarks._traffic import Arrival, mean_seconds, poisson
from benchmarks.scheduler import DEAR, SCENES, USUAL, Scene, compare, main

OURS = 1
SETS = tuple(map(frozenset, ((), ("a",), ("b",), ("a", "b"))))

arrivals = st.lists(
    st.builds(
        lambda at, files, seconds: Arrival(at, Wish("ann", files, seconds), seconds),
        st.sampled_from((0.0, 0.3, 2.0)),
        st.sampled_from(SETS),
        st.sampled_from((0.1, 0.6)),
    ),
    min_size=1,
    max_size=5,
).map(lambda found: sorted(found, key=lambda job: job.at))


@pytest.mark.parametrize("gpus", [1, 2])
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: f"{scene.name} {scene.load}")
def test_the_targets_hold(scene: Scene, gpus: int) -> None:
    found = compare(scene, gpus, USUAL, seeds=3, jobs=150)
    assert found.work[OURS] >= 0.9
    assert found.p99[OURS] <= 2 * found.p99[0]
    assert found.overtaken[OURS] <= 1
    assert found.longest[OURS] <= 2 * found.longest[0] + 2.4


@pytest.mark.parametrize(("load", "others"), [(0.7, 3), (0.9, 12)])
def test_one_with_many_jobs_does_not_stand_before_the_others(load: float, others: int) -> None:
    (scene,) = (one for one in SCENES if "30" in one.name and one.load == load)
    found = compare(scene, 1, USUAL, seeds=3, jobs=200)
    assert found.before_first[0] > 20 and found.before_first[OURS] <= others
    assert found.middle[OURS] < 0.6 * found.middle[0]


def test_grouping_pays_where_changes_are_dear() -> None:
    """And it isn't the grouping of whoever groups at any price."""
    (scene,) = (scene for scene in SCENES if scene.name == "all at once")
    found = compare(scene, 4, DEAR, seeds=3, jobs=200)
    assert found.work[OURS] > 1.05 * found.work[0]
    assert found.overtaken[OURS] <= 1 < found.overtaken[2]


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(arrivals, st.integers(1, 2))
def test_no_order_of_jobs_beats_the_bound(jobs: Sequence[Arrival], gpus: int) -> None:
    """Neither waiting for a better job nor serving another before it."""
    for wanted in permutations(range(len(jobs))):

        class InOrder(FirstCome):
            left = list(wanted)

            def __len__(self) -> int:
                return sum(1 for key in self.left[:1] if key in self.waiting)

            def next(self, engine: int) -> int:
                return self._take(self.left.pop(0))

        end = simulate(jobs, InOrder, gpus, USUAL).end
        assert soonest(jobs, gpus, USUAL) <= end + 1e-9


def test_the_bound_is_reached_where_it_can_be() -> None:
    one = Wish("ann", frozenset("a"), 0.6)
    jobs = [Arrival(1.0, one, 0.6)] * 3
    end = simulate(jobs, Turns, 1, USUAL).end
    assert soonest(jobs, 1, USUAL) == pytest.approx(1.0 + 0.195 + 1.8)
    assert end == pytest.approx(1.0 + 0.015 + 0.195 + 1.8)


def test_a_change_of_adapters_costs_what_the_design_says() -> None:
    gpu = Gpu(USUAL)
    three = frozenset("abc")
    assert gpu.change(three) == pytest.approx(0.6)
    assert gpu.change(three) == 0
    assert gpu.change(frozenset()) == gpu.change(three) == pytest.approx(0.015)
    for letter in "defghijklmn":  # 11 others on the device
        gpu.change(frozenset(letter))
    assert gpu.change(three) == pytest.approx(0.06)


def test_a_small_memory_forgets_what_was_used_first() -> None:
    gpu = Gpu(Prices(merge=1, from_host=10, from_disk=100, device=1, host=2))
    assert [gpu.change(frozenset(letter)) for letter in "abacab"] == [101, 101, 11, 101, 11, 101]


def test_grouped_takes_the_largest_group_and_stays_with_it() -> None:
    policy = Grouped(1)
    for key, letter in enumerate("abba"):
        policy.join(key, Wish("ann", frozenset(letter), 0.6))
    policy.join(4, Wish("bob", frozenset("b"), 0.6))
    assert [policy.next(0) for _ in range(5)] == [1, 2, 4, 0, 3]


def test_traffic_is_as_heavy_as_it_says() -> None:
    jobs = poisson(30, 40)(Random(1), 2000, 0.5 / mean_seconds())
    assert sum(job.seconds for job in jobs) / jobs[-1].at == pytest.approx(0.5, rel=0.1)
    assert {len(job.wish.files) for job in jobs} == {0, 1, 2, 3}


def test_it_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--seeds", "1", "--jobs", "20", "--gpus", "1"])
    printed = capsys.readouterr().out
    assert printed.count("one sends 30 at a time") == 6
