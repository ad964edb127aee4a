"""Searching: what is found, filtered, paged, remembered and shared."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from generation.errors import HubUnreachable
from lora_registry.search import DEPTHS, FRESH, MAX_LISTINGS, SORTS, Page, Query
from tests.faults.hub_desk import Desk
from tests.standins import hub_faults as faults
from tests.standins import hub_special as known
from tests.standins.hub import HubStandIn
from tests.standins.hub_repos import BASE, READER_TOKEN, TURBO, Repo, RepoFile
from tests.standins.hub_weights import lora, weights


def repo(number: int, **changes: Any) -> Repo:
    card = {"base_model": TURBO, "license": "mit", "instance_prompt": f"trig{number}"}
    files = (weights("a.safetensors", lora(4)),)
    made = Repo(f"maker/style-{number:04d}", files, card, likes=10_000 - number)
    return replace(made, **changes)


@pytest.fixture
def hub() -> Iterator[HubStandIn]:
    with HubStandIn() as running:
        yield running


@pytest.fixture
def desk(hub: HubStandIn, tmp_path: Path) -> Iterator[Desk]:
    opened = Desk(tmp_path / "adapters", hub)
    yield opened
    hub.release()
    opened.close()


def many(desk: Desk, count: int, **changes: Any) -> None:
    for each in desk.hub.repos():
        desk.hub.remove_repo(each.id)
    for number in range(count):
        desk.hub.add_repo(repo(number, **changes))


def ids(page: Page) -> list[str]:
    return [card.id for card in page.cards]


# -- what is asked -------------------------------------------------------------


def test_a_cold_page_is_one_call_and_a_warm_one_none(desk: Desk) -> None:
    first = desk.search()
    assert len(desk.seen()) == 1
    assert desk.search() == first and desk.search(offset=24, has_trigger=True).problem is None
    assert len(desk.seen()) == 1


@pytest.mark.parametrize(
    ("sort", "value", "sent"),
    [
        ("likes", lambda card: card.likes, "likes"),
        ("downloads", lambda card: card.downloads, "downloads"),
        ("trending", None, "trendingScore"),
        ("newest", lambda card: card.created, "createdAt"),
        ("updated", lambda card: card.updated, "lastModified"),
    ],
)
def test_the_order_is_the_hubs(desk: Desk, sort: str, value: Any, sent: str) -> None:
    page = desk.search(sort=sort)
    assert sort in SORTS and f"sort={sent}" in desk.seen("list")[0].query
    if value is not None:
        values = [value(card) for card in page.cards]
        assert values == sorted(values, reverse=True)


def test_text_and_author_are_searched_on_the_hub(desk: Desk) -> None:
    found = desk.search(text="  film   grain ", author="nordlicht")
    assert ids(found) == [known.SEVERAL_FILES]
    assert "search=film+grain" in desk.seen("list")[0].query.replace("%20", "+")
    assert desk.search(text="nothing has this name").cards == ()


def test_adapters_of_the_base_model_are_a_group_of_their_own(desk: Desk) -> None:
    turbo, base = desk.search(limit=200), desk.search(base="base", limit=200)
    assert set(known.FOR_BASE) <= set(ids(base)) and not set(known.FOR_BASE) & set(ids(turbo))
    assert {card.base for card in base.cards} == {"base"}
    assert {card.base for card in turbo.cards} == {"turbo"}


@pytest.mark.parametrize(
    "text", ["<script>", "a" * 5000, "x\x00\ud800y", "' OR 1=1", "%2e%2e/", "深"]
)
def test_any_text_can_be_searched_for(desk: Desk, text: str) -> None:
    assert desk.search(text=text, author=text).problem is None


def test_an_unknown_order_is_the_first_one(desk: Desk) -> None:
    assert ids(desk.search(sort="beauty")) == ids(desk.search(sort="likes"))


# -- what is shown -------------------------------------------------------------


def test_mature_ones_are_hidden_unless_asked_for(desk: Desk) -> None:
    hidden = {*ids(desk.search(sort="trending", limit=200))}
    shown = desk.search(sort="trending", limit=200, include_mature=True)
    assert not set(known.MATURE) & hidden
    assert set(ids(shown)[:3]) == set(known.MATURE)
    assert all(card.mature for card in shown.cards if card.id in known.MATURE)


def test_filters_hold_for_every_card(desk: Desk) -> None:
    everything = desk.search(limit=200).cards
    for query, holds in (
        ({"has_trigger": True}, lambda card: card.trigger_words),
        ({"has_pictures": True}, lambda card: card.picture),
        ({"not_gated": True}, lambda card: not card.gated),
        ({"license": "MIT"}, lambda card: card.license == "mit"),
    ):
        found = desk.search(limit=200, **query).cards
        assert 0 < len(found) < len(everything)
        assert [card for card in everything if holds(card)] == list(found)


def test_the_size_filter_asks_for_sizes(desk: Desk) -> None:
    small = desk.search(max_bytes=20_000_000, limit=200)
    assert 0 < len(small.cards) < len(desk.search(limit=200).cards)
    assert all(card.storage and card.storage <= 20_000_000 for card in small.cards)


def test_a_hub_that_lists_no_sizes_is_asked_without(desk: Desk) -> None:
    desk.hub.inject(faults.answer("list", 400, b'{"error": "expand"}'))
    page = desk.search(max_bytes=1)
    assert page.problem is None and len(desk.seen("list")) == 2
    assert "usedStorage" not in desk.seen("list")[1].query


def test_pages_give_every_card_once(desk: Desk) -> None:
    many(desk, 60)
    pages = [desk.search(offset=offset) for offset in (0, 24, 48)]
    found = [name for page in pages for name in ids(page)]
    assert found == [f"maker/style-{n:04d}" for n in range(60)]
    assert [page.more for page in pages] == [True, True, False]
    assert len(desk.seen()) == 1


def test_deeper_pages_fetch_deeper(desk: Desk) -> None:
    many(desk, 250)
    assert len(desk.search(offset=192).cards) == 24
    assert [request.query.rpartition("limit=")[2] for request in desk.seen("list")] == [
        str(DEPTHS[0]),
        str(DEPTHS[1]),
    ]
    assert desk.search(offset=240).more is False
    assert len(desk.seen("list")) == 2


@pytest.mark.parametrize(("limit", "shown"), [(-3, 1), (0, 1), (1, 1), (10**9, 200)])
def test_a_page_has_a_sensible_size(desk: Desk, limit: int, shown: int) -> None:
    many(desk, 210)
    assert len(desk.search(limit=limit, offset=-5).cards) == shown


def test_filters_that_eat_a_page_fetch_deeper_and_stop_somewhere(desk: Desk) -> None:
    many(desk, 1200)
    page = desk.search(license="apache-2.0")
    assert page.cards == () and not page.more
    assert len(desk.seen("list")) == len(DEPTHS)


def test_a_hub_that_pages_by_itself_is_followed(hub: HubStandIn, tmp_path: Path) -> None:
    with HubStandIn((repo(n) for n in range(70)), page_size=20) as paging:
        desk = Desk(tmp_path / "paged", paging)
        assert len(desk.search(limit=100).cards) == 70
        assert len(desk.seen("list")) == 4
        desk.close()


def test_a_next_page_on_another_host_isnt_asked(tmp_path: Path) -> None:
    with HubStandIn(repo(n) for n in range(3)) as paging, HubStandIn(()) as other:
        away = (("Link", f'<{other.url}/api/models?cursor=x>; rel="next"'),)
        paging.inject(faults.with_headers("list", away))
        desk = Desk(tmp_path / "away", paging, READER_TOKEN)
        assert isinstance(desk.search().problem, HubUnreachable)
        assert other.ledger.requests() == []
        desk.close()


# -- what is remembered --------------------------------------------------------


def on_disk(desk: Desk) -> list[Path]:
    return sorted((desk.folder / "cache" / "searches").glob("*"))


def restarted(desk: Desk) -> Desk:
    return Desk(desk.folder, desk.hub)


def test_a_restart_remembers(desk: Desk) -> None:
    before = desk.search()
    again = restarted(desk)
    assert again.search() == before
    assert len(desk.seen()) == 1
    again.close()


def change(path: Path, **changes: Any) -> None:
    entry = json.loads(path.read_text())
    entry["value"] |= changes
    path.write_text(json.dumps(entry))


def test_an_old_copy_answers_while_a_new_one_is_fetched(desk: Desk) -> None:
    desk.search()
    (kept,) = on_disk(desk)
    change(kept, fetched=json.loads(kept.read_text())["value"]["fetched"] - FRESH - 5)
    desk.hub.add_repo(repo(1, likes=10**6))
    desk.hub.inject(faults.slow("list", 0.6))
    again = restarted(desk)

    async def watch() -> tuple[Page, Page]:
        old = await again.registry.search(Query())
        await asyncio.sleep(1.0)
        return old, await again.registry.search(Query())

    old, new = asyncio.run(watch())
    assert old.age > FRESH and old.problem is None and ids(old)[0] != "maker/style-0001"
    assert new.age == 0 and ids(new)[0] == "maker/style-0001"
    assert len(desk.seen("list")) == 2
    again.close()


def test_a_clock_set_back_makes_a_copy_old_not_eternal(desk: Desk) -> None:
    desk.search()
    (kept,) = on_disk(desk)
    change(kept, fetched=json.loads(kept.read_text())["value"]["fetched"] + 10**9)
    again = restarted(desk)
    assert again.search().problem is None
    assert len(desk.seen("list")) == 2
    again.close()


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b"null", b'{"version": 1}', b'{"version": 0, "value": {}}', b"\xff\xfe",
     b"[" * 100_000],
)  # fmt: skip
def test_a_damaged_copy_counts_as_none(desk: Desk, damage: bytes) -> None:
    before = desk.search()
    (kept,) = on_disk(desk)
    kept.write_bytes(damage)
    again = restarted(desk)
    assert again.search() == before and len(desk.seen("list")) == 2
    again.close()


@pytest.mark.parametrize(
    "changes", [{"cards": 3}, {"cards": [{"id": 1}]}, {"fetched": "x"}, {"depth": None}]
)
def test_a_copy_of_another_shape_counts_as_none(desk: Desk, changes: dict[str, Any]) -> None:
    before = desk.search()
    change(on_disk(desk)[0], **changes)
    again = restarted(desk)
    assert again.search() == before and len(desk.seen("list")) == 2
    again.close()


def test_a_disk_that_takes_nothing_costs_only_the_copy(hub: HubStandIn, tmp_path: Path) -> None:
    blocked = tmp_path / "adapters"
    blocked.write_text("a file where the folder should be")
    desk = Desk(blocked, hub)
    assert len(desk.search().cards) == 24 and desk.search().problem is None
    assert len(desk.seen("list")) == 1
    desk.close()


def test_what_is_remembered_is_bounded_and_whole(hub: HubStandIn, tmp_path: Path) -> None:
    with HubStandIn((repo(1),)) as small:
        desk = Desk(tmp_path / "bounded", small)
        for number in range(MAX_LISTINGS + 30):
            desk.search(text=f"style {number}")
        files = on_disk(desk)
        assert MAX_LISTINGS * 0.8 <= len(files) <= MAX_LISTINGS
        assert all(path.suffix == ".json" and json.loads(path.read_text()) for path in files)
        desk.close()


# -- what is shared ------------------------------------------------------------


def test_visitors_who_ask_the_same_make_one_call(desk: Desk) -> None:
    desk.hub.inject(faults.slow("list", 0.3))
    pages = desk.together(lambda: desk.registry.search(Query()), 12)
    assert all(page == pages[0] for page in pages) and len(pages[0].cards) == 24
    assert len(desk.seen("list")) == 1


def test_one_who_leaves_takes_nothing_from_the_others(desk: Desk) -> None:
    desk.hub.inject(faults.slow("list", 0.4))

    async def two() -> Page:
        first = asyncio.create_task(desk.registry.search(Query()))
        second = asyncio.create_task(desk.registry.search(Query()))
        await asyncio.sleep(0.1)
        first.cancel()
        return await second

    assert len(asyncio.run(two()).cards) == 24
    assert len(desk.seen("list")) == 1


def test_the_loop_is_free_while_the_hub_is_slow(desk: Desk) -> None:
    desk.hub.inject(faults.slow("list", 0.5))

    async def count() -> int:
        search = asyncio.create_task(desk.registry.search(Query()))
        turns = 0
        while not search.done():
            await asyncio.sleep(0.01)
            turns += 1
        return turns

    assert asyncio.run(count()) > 20


def test_what_the_token_alone_sees_stays_out_of_the_shared_list(
    hub: HubStandIn, tmp_path: Path
) -> None:
    desk = Desk(tmp_path / "adapters", hub, READER_TOKEN)
    assert known.PRIVATE not in ids(desk.search(limit=200))
    kept = b"".join(path.read_bytes() for path in on_disk(desk))
    assert known.PRIVATE.encode() not in kept and READER_TOKEN.encode() not in kept
    assert [request.authorized for request in desk.seen("list")] == [True]
    desk.close()


# -- favourites and those used last --------------------------------------------


def test_cards_by_id_keep_their_order(desk: Desk) -> None:
    wanted = (known.GATED, known.PIXEL_ART, "gone/away", "no id", known.PIXEL_ART)
    cards = desk.cards(*wanted)
    assert [card.id for card in cards] == [known.GATED, known.PIXEL_ART, "gone/away"]
    assert cards[1].likes == 1834 and cards[2].likes == 0
    assert desk.cards(known.PIXEL_ART) == (cards[1],)
    assert len([r for r in desk.seen("info") if known.PIXEL_ART in r.path]) == 1


def test_cards_by_id_are_there_without_the_hub(desk: Desk) -> None:
    before = desk.cards(known.PIXEL_ART)
    desk.hub.inject(faults.reset("*", times=None))
    again = restarted(desk)
    assert again.cards(known.PIXEL_ART) == before
    assert [card.name for card in again.cards(known.GATED)] == ["portrait-glow"]
    again.close()


def test_a_private_card_isnt_kept(hub: HubStandIn, tmp_path: Path) -> None:
    desk = Desk(tmp_path / "adapters", hub, READER_TOKEN)
    (card,) = desk.cards(known.PRIVATE)
    assert card.private
    everything = [path for path in desk.folder.rglob("*") if path.is_file()]
    assert not any(b"UNRLSD" in path.read_bytes() for path in everything)
    desk.close()


def test_a_search_holds_no_file_open(desk: Desk) -> None:
    desk.search()
    before = len(os.listdir("/proc/self/fd"))
    for number in range(20):
        desk.search(text=f"x{number}")
    assert len(os.listdir("/proc/self/fd")) <= before + 8


def test_a_card_of_the_other_model_says_so(desk: Desk) -> None:
    both = RepoFile("a.safetensors", weights("a", lora(4)).body, weights("a", lora(4)).length)
    desk.hub.add_repo(Repo("maker/both", (both,), {"base_model": [BASE, TURBO]}))
    (found,) = desk.search(text="both", author="maker").cards
    assert found.base == "turbo" and found.base_models == (BASE, TURBO)
