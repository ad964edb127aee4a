"""Whose job is next: fair between visitors, few changes of adapters, nobody forgotten.

A policy, without threads and without a clock: time is the work of the jobs, in estimated
seconds of a GPU. Three rules, each within the ones before it.

1. **Bounded.** A job is passed by later ones until their work is `PATIENCE` of what waited
   when it came, and `SPARE` seconds more; then by none. So one engine begins it, whatever else
   comes, after at most 1 + `PATIENCE` times the wait that first come, first served would have
   given it, `SPARE` seconds and one job. A newcomer is held up by that, too: rule 2 is within.
2. **Fair.** The next job is the one that would have begun first if all visitors with work in
   the line had shared the engines evenly all the time: weighted fair queueing, by virtual
   start times (Goyal, Vin and Cheng, 1996, as in Linux's CFS; for language models the virtual
   token counter of Sheng et al., 2024). A visitor who had nothing in the line starts `LEAD`
   earlier, so a first job is next after whatever runs, however many another visitor has.
   Nobody saves anything up by waiting, and who took more than a share of late pays it back.
3. **Thrifty.** Among the jobs that are due within `LEAD`, one whose adapters are merged
   already is first, then one with the fewest files that aren't on the engine.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Final, Generic, TypeVar

PATIENCE: Final = 0.8  # not 1: taking turns costs changes of adapters, and they wait for those
SPARE: Final = 1.8  # seconds of work; an image of 1024 × 1024 pixels is 0.6
LEAD: Final = 1.2  # seconds of work
RECENT: Final = 8  # sets of adapters that an engine is taken to hold; it keeps 2 GiB of factors

Files = frozenset[str]
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Wish:
    """What counts of a job: its owner, its adapters' files, and its estimated seconds (> 0)."""

    owner: str
    files: Files
    seconds: float


class Turns(Generic[K]):
    """Jobs that wait for one of some engines, each by a key of the caller's.

    An engine works on one job at a time: `next` gives it one, `done` ends that.
    """

    def __init__(self, engines: int = 1) -> None:
        self._waiting: dict[K, Wish] = {}  # in the order in which they came
        self._patience: dict[K, float] = {}  # seconds of later work that may still pass
        self._running: dict[int, Wish] = {}
        self._recent: list[tuple[Files, ...]] = [(frozenset(),)] * engines  # the first is merged
        self._virtual = 0.0  # the time at which all visitors would be, had they shared evenly
        self._account: dict[str, float] = {}  # by owner: the virtual time up to which they had work
        self._fresh: set[str] = set()  # owners whose first job hasn't begun

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[K]:
        """In the order in which they came; may change meanwhile."""
        return iter(tuple(self._waiting))

    def __contains__(self, key: object) -> bool:
        return key in self._waiting

    def held_by(self, owner: str) -> int:
        """How many of the waiting jobs are this owner's."""
        return sum(wish.owner == owner for wish in self._waiting.values())

    def join(self, key: K, wish: Wish) -> None:
        """A job comes."""
        if wish.owner not in self._owners():
            self._fresh.add(wish.owner)
            self._account[wish.owner] = max(self._virtual, self._account.get(wish.owner, 0.0))
        self._patience[key] = SPARE + PATIENCE * _work(self._waiting.values())
        self._waiting[key] = wish

    def leave(self, key: K) -> None:
        """A waiting job goes, at no cost to its owner."""
        del self._waiting[key], self._patience[key]

    def next(self, engine: int = 0) -> K:
        """Begin the job whose turn it is on an idle engine. One must wait."""
        key = self._choose(engine)
        wish = self._waiting[key]
        for older in self._before(key):
            self._patience[older] -= wish.seconds
        self.leave(key)
        self._running[engine] = wish
        self._account[wish.owner] += wish.seconds
        self._fresh.discard(wish.owner)
        others = [files for files in self._recent[engine] if files != wish.files]
        self._recent[engine] = (wish.files, *others)[:RECENT]
        return key

    def done(self, engine: int = 0) -> None:
        """An engine's job has ended, in whatever way."""
        self._virtual += self._running[engine].seconds / len(self._owners())
        del self._running[engine]
        self._forget()

    def order(self) -> list[K]:
        """The waiting jobs in the order in which they would begin if no other came."""
        future, found = self._copy(), []
        engines = range(len(self._recent))
        free = [(self._running[e].seconds if e in self._running else 0.0, e) for e in engines]
        heapify(free)
        while future._waiting:
            now, engine = heappop(free)
            if engine in future._running:
                future.done(engine)
            found.append(future.next(engine))
            heappush(free, (now + future._running[engine].seconds, engine))
        return found

    def _forget(self) -> None:
        """Who has nothing in the line and owes nothing; everything, once the line is empty."""
        owners = self._owners()
        if not owners:
            self._virtual = 0.0
        self._fresh &= owners
        self._account = {
            owner: until
            for owner, until in self._account.items()
            if owner in owners or (owners and until > self._virtual)
        }

    def _choose(self, engine: int) -> K:
        """What rule 3 says of what rule 2 leaves of what rule 1 leaves; of equals the oldest."""
        start = self._starts()
        able = self._able()
        first = min(start[key] for key in able)
        due = [key for key in able if start[key] < first + LEAD]
        merged, here = self._recent[engine][0], frozenset().union(*self._recent[engine])

        def effort(key: K) -> int:
            files = self._waiting[key].files
            return 0 if files == merged else 1 + len(files - here)

        return min(due, key=lambda key: (effort(key), start[key]))

    def _able(self) -> list[K]:
        """The jobs that pass none whose patience is over."""
        found = []
        for key in self._waiting:
            found.append(key)
            if self._patience[key] <= 0:
                break
        return found

    def _starts(self) -> dict[K, float]:
        """When each would begin, in virtual time."""
        starts: dict[K, float] = {}
        mine: dict[str, float] = defaultdict(float)
        for key, wish in self._waiting.items():
            first = wish.owner in self._fresh and wish.owner not in mine
            starts[key] = self._account[wish.owner] + mine[wish.owner] - LEAD * first
            mine[wish.owner] += wish.seconds
        return starts

    def _before(self, key: K) -> list[K]:
        keys = list(self._waiting)
        return keys[: keys.index(key)]

    def _owners(self) -> set[str]:
        """Who has work in the line, waiting or begun."""
        return {wish.owner for wish in (*self._waiting.values(), *self._running.values())}

    def _copy(self) -> Turns[K]:
        copy: Turns[K] = Turns()
        copy._waiting, copy._patience = dict(self._waiting), dict(self._patience)
        copy._running, copy._recent = dict(self._running), list(self._recent)
        copy._virtual, copy._account = self._virtual, dict(self._account)
        copy._fresh = set(self._fresh)
        return copy


def _work(wishes: Iterable[Wish]) -> float:
    return sum(wish.seconds for wish in wishes)
