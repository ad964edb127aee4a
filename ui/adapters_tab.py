"""The Adapters tab: the live Hub as a grid of cards, each one click from its slot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import gradio as gr

from generation.allowance import Terms
from generation.errors import NotAllowedHere
from lora_registry.cards import Card
from lora_registry.registry import Registry
from lora_registry.search import SORTS, Page, Query
from ui.markup import Html, join, tag
from ui.texts import Language, explain, say
from ui.visitor import language

ASSETS: Final = Path(__file__).parent / "assets"
PAGE: Final = 36
MAX_YOURS: Final = 60
MAX_TEXT: Final = 200
LICENCES: Final = ("apache-2.0", "mit", "cc-by-4.0", "cc-by-nc-4.0", "openrail", "other")
SIZES: Final = {"100 MB": 100 * 10**6, "300 MB": 300 * 10**6, "1 GB": 10**9}
SWITCHES: Final = ("has_trigger", "has_pictures", "not_gated", "include_mature")


def adapter_grid(registry: Registry, terms: Terms) -> gr.HTML:
    """The grid; its script asks for pages when it is seen and when a filter changes."""

    async def find_adapters(asked: dict[str, Any], request: gr.Request) -> dict[str, Any]:
        query, tongue = query_of(asked), language(request)
        try:
            terms.check_search(query.include_mature)
        except NotAllowedHere as exc:
            return {"html": "", "count": 0, "more": False, "note": " ".join(explain(tongue, exc))}
        return page_html(await registry.search(query), tongue)

    async def your_adapters(asked: dict[str, Any], request: gr.Request) -> dict[str, Any]:
        ids = [str(each)[:MAX_TEXT] for each in list(asked.get("ids", ()))[:MAX_YOURS]]
        tongue = language(request)
        return {"html": join(*(card(each, tongue) for each in await registry.cards(ids)))}

    return gr.HTML(
        "",
        elem_id="finder",
        apply_default_css=False,
        js_on_load=(ASSETS / "adapters.js").read_text("utf-8"),
        server_functions=[find_adapters, your_adapters],
    )


def query_of(asked: dict[str, Any]) -> Query:
    """A query out of what the page's script sent; what it doesn't know is left at its default."""
    sort, size = str(asked.get("sort")), str(asked.get("size"))
    return Query(
        text=str(asked.get("text", ""))[:MAX_TEXT],
        author=str(asked.get("author", ""))[:MAX_TEXT],
        sort=sort if sort in SORTS else "likes",
        license=str(asked.get("license", ""))[:MAX_TEXT],
        max_bytes=SIZES.get(size),
        base="base" if asked.get("base") == "base" else "turbo",
        offset=max(0, int(asked.get("offset", 0))),
        limit=PAGE,
        **{name: bool(asked.get(name)) for name in SWITCHES},
    )


def page_html(page: Page, tongue: Language) -> dict[str, Any]:
    """Cards, whether there are more, and what is wrong with this answer, if anything is."""
    cards = join(*(card(each, tongue) for each in page.cards))
    empty = None if page.cards else tag("p", say(tongue, "finder.none"), class_="finder-none")
    return {
        "html": cards or empty or "",
        "count": len(page.cards),
        "more": page.more,
        "note": _note(page, tongue),
    }


def _note(page: Page, tongue: Language) -> str:
    if page.problem is None:
        return ""
    cause, hint = explain(tongue, page.problem)
    if page.starters:
        return f"{cause} {say(tongue, 'finder.starters')}"
    return f"{cause} {say(tongue, 'finder.stale', age=_age(page.age, tongue))} {hint}"


def _age(seconds: float, tongue: Language) -> str:
    if seconds < 5400:
        return say(tongue, "age.minutes", number=max(1, round(seconds / 60)))
    if seconds < 48 * 3600:
        return say(tongue, "age.hours", number=round(seconds / 3600))
    return say(tongue, "age.days", number=round(seconds / 86400))


# -- the tools above the grid --------------------------------------------------


def finder(tongue: Language, terms: Terms) -> str:
    """Search, sort and filters, and where the cards go."""
    return join(
        tag("div", *_tools(tongue, terms), class_="finder-bar", role="search"),
        tag("p", class_="finder-note", role="status", hidden=True),
        _group(tongue, "yours", hidden=True),
        _group(tongue, "turbo"),
        _more(tongue, "turbo"),
        _group(tongue, "base", hidden=True),
        _more(tongue, "base"),
    )


def _tools(tongue: Language, terms: Terms) -> list[Html]:
    search = say(tongue, "finder.search")
    return [
        tag("input", type="search", class_="finder-text", placeholder=search, aria_label=search),
        _choice(tongue, "sort", SORTS),
        _choice(tongue, "license", ("", *LICENCES)),
        _choice(tongue, "size", ("", *SIZES)),
        *(_switch(tongue, name, terms) for name in SWITCHES),
        tag("button", class_="finder-author", type="button", hidden=True,
            title=say(tongue, "finder.anyone")),
    ]  # fmt: skip


def _choice(tongue: Language, name: str, values: Sequence[str]) -> Html:
    options = [tag("option", _option(tongue, name, value), value=value) for value in values]
    return tag("select", *options, name=name, aria_label=say(tongue, f"finder.{name}"))


def _option(tongue: Language, name: str, value: str) -> str:
    if name == "sort":
        return say(tongue, f"sort.{value}")
    if name == "size" and value:
        return say(tongue, "finder.below", size=value)
    return value or say(tongue, f"finder.{name}")


def _switch(tongue: Language, name: str, terms: Terms) -> Html:
    off = name == "include_mature" and not terms.mature
    box = tag("input", type="checkbox", name=name, disabled=off)
    label = say(tongue, "not_allowed.include_mature" if off else f"finder.{name}")
    return tag("label", box, label, class_="finder-switch")


def _group(tongue: Language, name: str, *, hidden: bool = False) -> Html:
    return tag(
        "section",
        tag("h3", say(tongue, f"finder.{name}")),
        tag("p", say(tongue, "finder.base.note"), class_="note") if name == "base" else None,
        tag("div", class_="adapter-cards", role="list"),
        class_="finder-group",
        data_group=name,
        hidden=hidden,
    )


def _more(tongue: Language, name: str) -> Html:
    word = "finder.more" if name == "turbo" else "finder.more.base"
    return tag("button", say(tongue, word), type="button", class_="finder-more", data_more=name,
               hidden=True)  # fmt: skip


# -- a card --------------------------------------------------------------------


def card(found: Card, tongue: Language) -> Html:
    """One adapter: its picture is the button that takes it."""
    return tag(
        "article",
        tag("button", _picture(found), type="button", class_="adapter-take", data_take=found.id,
            aria_label=say(tongue, "finder.take", name=found.id)),
        tag("button", "★", type="button", class_="adapter-star", data_star=found.id,
            aria_pressed="false", aria_label=say(tongue, "action.favourite")),
        tag("div", found.name, class_="adapter-name", title=found.id),
        tag("div", _byline(found, tongue), class_="adapter-by"),
        tag("div", _numbers(found, tongue), class_="adapter-numbers"),
        _words(found),
        class_="adapter-card",
        role="listitem",
        data_id=found.id,
    )  # fmt: skip


def _picture(found: Card) -> Html:
    if found.picture is None:
        return tag("span", found.name[:2], class_="adapter-blank")
    return tag("img", src=found.picture, alt="", loading="lazy", decoding="async",
               referrerpolicy="no-referrer", data_mature=found.mature)  # fmt: skip


def _byline(found: Card, tongue: Language) -> Html:
    marks = [say(tongue, f"card.{mark}") for mark in ("gated", "private") if getattr(found, mark)]
    author = tag("button", found.author, type="button", class_="adapter-author",
                 data_author=found.author)  # fmt: skip
    return join(author, *(f" · {mark}" for mark in (found.license, *marks) if mark))


def _numbers(found: Card, tongue: Language) -> str:
    files = len(found.files)
    parts = [
        f"♥ {_compact(found.likes)}" if found.likes else "",
        f"↓ {_compact(found.downloads)}" if found.downloads else "",
        say(tongue, "card.files", number=files) if files > 1 else "",
        (found.updated or "")[:10],
    ]
    return " · ".join(part for part in parts if part)


def _compact(number: int) -> str:
    """1834 as 1.8k: a card is narrow."""
    for size, letter in ((10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.1f}".removesuffix(".0") + letter
    return str(number)


def _words(found: Card) -> Html | None:
    if not found.trigger_words:
        return None
    words = ", ".join(word.text for word in found.trigger_words[:3])
    return tag("div", words, class_="adapter-words", title=words)
