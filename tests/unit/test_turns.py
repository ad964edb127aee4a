"""Whose job is next: the three rules of `turns.py`, whatever comes and in whatever order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from backends.local.turns import LEAD, PATIENCE, SPARE, Files, Turns, Wish

SIZES = (0.1, 0.6, 2.4)
SETS: tuple[Files, ...] = tuple(map(frozenset, ((), ("a",), ("b",), ("a", "b"), ("c",))))
OWNERS = ("ann", "bob", "cy", "di")
ROUNDING = 1e-9

steady = settings(deadline=None, derandomize=True, database=None)

wishes = st.builds(Wish, st.sampled_from(OWNERS), st.sampled_from(SETS), st.sampled_from(SIZES))
Happening = Wish | int | None
"""A job comes, one of those that wait is given up, or the engine longest at work has done."""

happenings = st.lists(wishes | st.integers(0, 9) | st.none(), max_size=60)


@dataclass
class Play:
    """Turns on engines that always have something to do. `begun` are keys in their order."""

    turns: Turns[int]
    engines: int = 1
    begun: list[int] = field(default_factory=list)
    wishes: list[Wish] = field(default_factory=list)
    working: dict[int, int] = field(default_factory=dict)
    ahead: dict[int, float] = field(default_factory=dict)

    @staticmethod
    def on(engines: int = 1) -> Play:
        return Play(Turns(engines), engines)

    def come(self, *wishes: Wish) -> list[int]:
        keys = []
        for wish in wishes:
            keys.append(len(self.wishes))
            self.ahead[keys[-1]] = sum(self.wishes[key].seconds for key in self.turns)
            self.wishes.append(wish)
            self.turns.join(keys[-1], wish)
            self._go_on()
        return keys

    def end(self, times: int = 1) -> None:
        for _ in range(times):
            if self.working:
                engine = next(iter(self.working))
                del self.working[engine]
                self.turns.done(engine)
            self._go_on()

    def end_all(self) -> None:
        while self.working:
            self.end()

    def play(self, happenings: Sequence[Happening]) -> Play:
        for happening in happenings:
            if isinstance(happening, Wish):
                self.come(happening)
            elif happening is None:
                self.end()
            elif waiting := list(self.turns):
                self.turns.leave(waiting[happening % len(waiting)])
        return self

    def _go_on(self) -> None:
        for engine in range(self.engines):
            if engine not in self.working and len(self.turns):
                self.working[engine] = self.turns.next(engine)
                self.begun.append(self.working[engine])


# -- 1: bounded ----------------------------------------------------------------


@steady
@given(happenings, st.integers(1, 3))
def test_nobody_is_passed_by_more_than_is_promised(
    happenings: list[Happening], engines: int
) -> None:
    game = Play.on(engines).play(happenings)
    given_up = set(range(len(game.wishes))) - {*game.begun, *game.turns}
    game.end_all()
    assert sorted([*game.begun, *given_up]) == list(range(len(game.wishes)))
    for place, key in enumerate(game.begun):
        passed = [game.wishes[other] for other in game.begun[:place] if other > key]
        promised = SPARE + PATIENCE * game.ahead[key] + max(SIZES)
        assert sum(wish.seconds for wish in passed) <= promised + ROUNDING


@steady
@given(
    st.lists(wishes, max_size=20),
    st.sampled_from(SIZES),
    st.sampled_from(SETS),
    st.booleans(),
)
def test_a_stream_of_newcomers_starves_nobody(
    before: list[Wish], size: float, files: Files, same: bool
) -> None:
    """Each with the adapters that are merged, each another visitor or all of them one."""
    game = Play.on()
    game.come(*before, Wish("ann", frozenset("z"), 0.6))
    mine = len(before)
    wait = sum(wish.seconds for wish in before)
    for number in range(1000):
        if mine in game.begun:
            break
        game.come(Wish("newcomer" if same else f"newcomer {number}", files, size))
        game.end()
    begun = [game.wishes[key].seconds for key in game.begun[: game.begun.index(mine)]]
    assert sum(begun) <= (1 + PATIENCE) * wait + SPARE + max(SIZES) + ROUNDING


# -- 2: fair -------------------------------------------------------------------


@steady
@given(
    st.lists(st.sampled_from(SETS), min_size=1, max_size=30),
    st.integers(0, 30),
    st.sampled_from(SETS),
    st.sampled_from(SIZES),
)
def test_a_first_job_is_next_however_many_another_has(
    sets: list[Files], served: int, files: Files, size: float
) -> None:
    """At most one of the other's may be begun before it: one that was passed too often."""
    game = Play.on()
    game.come(*(Wish("greedy", one, 0.6) for one in sets))
    game.end(served)
    before = len(game.begun)
    (first,) = game.come(Wish("newcomer", files, size))
    game.end_all()
    assert game.begun.index(first) - before <= 1


def test_a_first_job_is_the_very_next_with_one_set_of_adapters() -> None:
    game = Play.on()
    game.come(*(Wish("greedy", frozenset("g"), 0.6) for _ in range(30)))
    for name in ("first", "second", "third"):
        (key,) = game.come(Wish(name, frozenset(name), 0.6))
        game.end()
        assert game.begun[-1] == key


@steady
@given(
    st.integers(1, 20),
    st.lists(st.sampled_from(SETS), min_size=40, max_size=40),
    st.sampled_from(SIZES),
)
def test_two_who_both_wait_get_as_much(each: int, sets: list[Files], size: float) -> None:
    """Who came as early: a long line that was there before has rule 1 on its side."""
    owners = ["ann", "bob"] * each
    game = Play.on()
    game.come(*(Wish(owner, files, size) for owner, files in zip(owners, sets, strict=False)))
    game.end_all()
    begun = [game.wishes[key].owner for key in game.begun]
    for until in range(len(begun)):
        counts = Counter(begun[:until])
        if max(counts.values(), default=0) < each:  # both have some left
            assert abs(counts["ann"] - counts["bob"]) * size <= 2 * LEAD + 2 * size + ROUNDING


def test_a_small_job_costs_its_owner_less_than_a_large_one() -> None:
    game = Play.on()
    game.come(Wish("other", frozenset(), 0.1))
    large = [Wish("large", frozenset("l"), 2.4)] * 5
    game.come(*large, *([Wish("small", frozenset("s"), 0.6)] * 20))
    game.end(25)
    begun = [game.wishes[key].owner for key in game.begun]
    last = len(begun) - begun[::-1].index("small")
    assert begun[:last].count("large") in (4, 5)
    assert begun[:13].count("small") >= 7


def test_who_took_more_than_a_share_pays_it_back() -> None:
    """Without a line of jobs, too: a fresh visitor's first job comes before theirs."""
    game = Play.on(engines=2)
    game.come(*(Wish("ann", frozenset("a"), 2.4) for _ in range(2)))
    game.come(*(Wish("bob", frozenset("b"), 0.6) for _ in range(8)))
    game.end(2)
    back, fresh = game.come(Wish("ann", frozenset("a"), 0.6), Wish("cy", frozenset("c"), 0.6))
    game.end_all()
    assert game.begun.index(fresh) < game.begun.index(back)


def test_giving_up_costs_nothing() -> None:
    game = Play.on()
    game.come(Wish("other", frozenset(), 0.6))
    for key in game.come(*([Wish("ann", frozenset("a"), 2.4)] * 20)):
        game.turns.leave(key)
    bobs, anns = game.come(Wish("bob", frozenset("a"), 0.6), Wish("ann", frozenset("a"), 0.6))
    game.come(*([Wish("bob", frozenset("a"), 0.6)] * 5))
    game.end(2)
    assert game.begun[-2:] == [bobs, anns]


@steady
@given(happenings, happenings)
def test_an_empty_line_has_forgotten_who_had_what(
    earlier: list[Happening], later: list[Happening]
) -> None:
    """Adapters stay on the engine, so there are none here."""
    plain = [[_without_files(one) for one in each] for each in (earlier, later)]
    game = Play.on().play(plain[0])
    game.end_all()
    keys, begun = len(game.wishes), len(game.begun)
    game.play(plain[1])
    assert [key - keys for key in game.begun[begun:]] == Play.on().play(plain[1]).begun


def _without_files(happening: Happening) -> Happening:
    return replace(happening, files=frozenset()) if isinstance(happening, Wish) else happening


# -- 3: thrifty ----------------------------------------------------------------


@steady
@given(st.lists(st.sampled_from(SETS[1:]), min_size=1, max_size=20))
def test_equal_claims_change_adapters_once_a_set(sets: list[Files]) -> None:
    """Of visitors with one small job each, nobody's patience is in the way."""
    game = Play.on()
    game.come(Wish("other", frozenset("x"), 0.6))
    game.come(*(Wish(f"visitor {n}", files, 0.1) for n, files in enumerate(sets)))
    game.end_all()
    begun = [game.wishes[key].files for key in game.begun]
    changes = sum(one != other for one, other in zip(begun, begun[1:], strict=False))
    assert changes == len(set(sets))


def test_files_on_the_engine_come_before_files_on_disk() -> None:
    game = Play.on()
    game.come(Wish("one", frozenset("ab"), 0.1), Wish("two", frozenset("c"), 0.1))
    game.end(2)
    game.come(Wish("three", frozenset("x"), 0.1))
    far, near = game.come(Wish("four", frozenset("z"), 0.1), Wish("five", frozenset("a"), 0.1))
    game.end_all()
    assert game.begun[-2:] == [near, far]


def test_each_engine_gets_jobs_of_its_own_adapters() -> None:
    game = Play.on(engines=2)
    game.come(Wish("one", frozenset("a"), 0.1), Wish("two", frozenset("b"), 0.1))
    keys = game.come(Wish("three", frozenset("b"), 0.1), Wish("four", frozenset("a"), 0.1))
    game.end()  # engine 0 is the first that ends
    assert game.working[0] == keys[1]
    game.end()
    assert game.working[1] == keys[0]


# -- what is told, and that it is no matter of chance --------------------------


@steady
@given(happenings, st.integers(1, 3))
def test_the_order_names_every_waiting_job_once_and_changes_nothing(
    happenings: list[Happening], engines: int
) -> None:
    game, quiet = Play.on(engines), Play.on(engines)
    for happening in happenings:
        assert sorted(game.turns.order()) == sorted(game.turns)
        game.play([happening])
        quiet.play([happening])
    assert game.begun == quiet.begun


@steady
@given(happenings)
def test_the_order_is_what_happens_if_nobody_else_comes(happenings: list[Happening]) -> None:
    game = Play.on().play(happenings)
    told = game.turns.order()
    before = len(game.begun)
    game.end_all()
    assert game.begun[before:] == told


@steady
@given(happenings, st.permutations(OWNERS), st.permutations("abc"))
def test_names_make_no_difference(
    happenings: list[Happening], owners: list[str], letters: list[str]
) -> None:
    owner: Callable[[str], str] = dict(zip(OWNERS, owners, strict=True)).__getitem__
    letter: Callable[[str], str] = dict(zip("abc", letters, strict=True)).__getitem__
    renamed = [
        Wish(owner(one.owner), frozenset(map(letter, one.files)), one.seconds)
        if isinstance(one, Wish)
        else one
        for one in happenings
    ]
    assert Play.on().play(happenings).begun == Play.on().play(renamed).begun


@steady
@given(happenings)
def test_what_is_over_takes_no_memory(happenings: list[Happening]) -> None:
    game = Play.on().play(happenings)
    game.end_all()
    assert len(game.turns) == 0 and game.turns._account == {} and game.turns._patience == {}
    assert game.turns._fresh == set()
