"""GPUs that take no time: a queue's policy against arrivals, and what no queue can beat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from typing import Protocol

from backends.local.recent import Recent
from backends.local.turns import PATIENCE, SPARE, Files, Wish
from benchmarks._common import Spread
from benchmarks._traffic import Arrival


@dataclass(frozen=True, slots=True)
class Prices:
    """Seconds that a change of adapters costs: once, and for each file by where it was.

    `device` and `host` are how many files either memory keeps, those used last.
    """

    merge: float
    from_host: float
    from_disk: float
    device: int = 11
    host: int = 22


class Policy(Protocol):
    """`backends.local.turns.Turns`, or what is compared with it."""

    def __len__(self) -> int: ...
    def join(self, key: int, wish: Wish) -> None: ...
    def next(self, engine: int) -> int: ...
    def done(self, engine: int) -> None: ...


class FirstCome:
    """First come, first served."""

    def __init__(self, engines: int) -> None:
        self.waiting: dict[int, Wish] = {}

    def __len__(self) -> int:
        return len(self.waiting)

    def join(self, key: int, wish: Wish) -> None:
        """At the end."""
        self.waiting[key] = wish

    def next(self, engine: int) -> int:
        """From the front."""
        return self._take(next(iter(self.waiting)))

    def done(self, engine: int) -> None:
        """Of no interest."""

    def _take(self, key: int) -> int:
        del self.waiting[key]
        return key


class Grouped(FirstCome):
    """Whatever the engine has merged, else the set with the most jobs: fair to nobody."""

    def __init__(self, engines: int) -> None:
        super().__init__(engines)
        self._merged: list[Files] = [frozenset()] * engines

    def next(self, engine: int) -> int:
        """The largest group's first."""
        sizes = Counter(wish.files for wish in self.waiting.values())
        merged = self._merged[engine]
        files = merged if merged in sizes else max(sizes, key=lambda one: sizes[one])
        self._merged[engine] = files
        return self._take(next(key for key, wish in self.waiting.items() if wish.files == files))


class Gpu:
    """The adapters of one engine, as `backends.local.adapters` keeps them."""

    def __init__(self, prices: Prices) -> None:
        self._prices = prices
        self._merged: Files = frozenset()
        self._spent = 0.0
        self._device: Recent[str, None] = Recent(prices.device)
        self._host: Recent[str, None] = Recent(prices.host)

    def change(self, files: Files) -> float:
        """Seconds until these, and no others, are merged."""
        if files == self._merged:
            return 0.0
        self._merged = files
        self._spent = self._prices.merge
        for file in sorted(files):
            self._device.get(file, 1, partial(self._move, file))
        return self._spent

    def _move(self, file: str) -> None:
        self._spent += self._prices.from_host
        self._host.get(file, 1, self._read)

    def _read(self) -> None:
        self._spent += self._prices.from_disk - self._prices.from_host


@dataclass(slots=True)
class Story:
    """What became of one job. Places count the jobs that were begun before."""

    joined: int  # begun when it came
    ahead: float  # seconds of work that waited when it came
    first: bool  # its owner had nothing else waiting or running
    place: int = -1
    wait: float = 0.0


@dataclass(slots=True)
class Outcome:
    """One policy's way through one traffic."""

    jobs: Sequence[Arrival]
    stories: list[Story] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    end: float = 0.0

    @property
    def waits(self) -> Spread:
        """Seconds from arriving to being begun."""
        return Spread(tuple(story.wait for story in self.stories))

    @property
    def overtaken(self) -> float:
        """The work that passed a job, as a share of what rule 1 of `Turns` lets pass: the most."""
        longest = max(job.wish.seconds for job in self.jobs)
        shares = []
        for key, story in enumerate(self.stories):
            between = self.order[story.joined : story.place]
            passed = sum(self.jobs[other].wish.seconds for other in between if other > key)
            shares.append(passed / (SPARE + PATIENCE * story.ahead + longest))
        return max(shares)

    @property
    def before_first(self) -> Spread:
        """For each job that was its owner's only one: how many of one other owner's jobs were
        begun while it waited, at most."""
        found = []
        for key, story in enumerate(self.stories):
            between = self.order[story.joined : story.place]
            owners = Counter(self.jobs[other].wish.owner for other in between)
            del owners[self.jobs[key].wish.owner]
            found.append(max(owners.values(), default=0) if story.first else 0)
        return Spread(tuple(map(float, found)))


def simulate(
    jobs: Sequence[Arrival], make: Callable[[int], Policy], gpus: int, prices: Prices
) -> Outcome:
    """Run all jobs, in the order of their arrival times; nobody is refused or gives up."""
    policy, engines = make(gpus), [Gpu(prices) for _ in range(gpus)]
    told, idle = Outcome(jobs), list(range(gpus))
    running: list[tuple[float, int, int]] = []
    coming = list(reversed(range(len(jobs))))
    while coming or running:
        if coming and (not running or jobs[coming[-1]].at <= running[0][0]):
            key = coming.pop()
            now = jobs[key].at
            told.stories.append(_story(told, [key for *_, key in running]))
            policy.join(key, jobs[key].wish)
        else:
            now, engine, _ = heappop(running)
            policy.done(engine)
            idle = sorted([*idle, engine])
        while idle and len(policy):
            engine = idle.pop(0)
            key = policy.next(engine)
            told.stories[key].place = len(told.order)
            told.stories[key].wait = now - jobs[key].at
            told.order.append(key)
            until = now + engines[engine].change(jobs[key].wish.files) + jobs[key].seconds
            heappush(running, (until, engine, key))
            told.end = max(told.end, until)
    return told


def _story(told: Outcome, running: Sequence[int]) -> Story:
    key = len(told.stories)
    waiting = [other for other, story in enumerate(told.stories) if story.place < 0]
    ahead = sum(told.jobs[other].wish.seconds for other in waiting)
    owners = {told.jobs[other].wish.owner for other in (*waiting, *running)}
    return Story(len(told.order), ahead, told.jobs[key].wish.owner not in owners)


def soonest(jobs: Sequence[Arrival], gpus: int, prices: Prices) -> float:
    """A time before which no order of these jobs can end, whatever it knows of the future.

    Take the jobs that come from some moment on. The GPUs share at least their own seconds,
    one merge for every set of adapters among them, but for those that are merged already, of
    which there is one for each GPU, and one reading of every file that no job before them
    uses. No schedule does without any of this, and none begins it before that moment. The
    bound is the latest of all moments. It leaves out what a full cache forgets, so with large
    catalogues and dear readings it can't be reached.
    """
    first = {file: n for n, job in reversed(list(enumerate(jobs))) for file in job.wish.files}
    readings = Counter(first.values())
    work, sets, latest = 0.0, set[Files](), 0.0
    for number, job in reversed(list(enumerate(jobs))):
        sets.add(job.wish.files)
        work += job.seconds + readings[number] * prices.from_disk
        merges = max(0, len(sets) - gpus) * prices.merge
        latest = max(latest, job.at + (work + merges) / gpus)
    return latest
