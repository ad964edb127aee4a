"""Adapters in a real browser: found on the Hub, put into slots, and sent as what was chosen."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.test_page import IMAGE, ask, bodies, choose, drop
from tests.process.playground import Playground
from tests.standins.fal_process import FalProcess
from tests.standins.hub_process import HubProcess
from tests.standins.hub_special import (
    FOR_BASE,
    GATED,
    MATURE,
    NEW_NAME,
    NO_SAFETENSORS,
    OLD_NAME,
    OTHER_FAMILY,
    PIXEL_ART,
    PRIVATE,
    SEVERAL_FILES,
    TRIGGER_IN_HEADER,
)
from tests.standins.hub_weights import lora, weights

PINNED = r"https://huggingface\.co/{}/resolve/[0-9a-f]{{40}}/{}"


def open_finder(page: Page) -> Locator:
    page.get_by_role("tab", name="Adapters").click()
    cards = page.locator('[data-group="turbo"] .adapter-card')
    expect(cards.first).to_be_visible()
    return cards


def card(page: Page, repo: str) -> Locator:
    return page.locator(f'[data-group="turbo"] .adapter-card[data-id="{repo}"]')


def paste(page: Page, reference: str) -> None:
    page.locator(".slot-paste").fill(reference)
    page.locator(".slot-paste").press("Enter")


def slot(page: Page, at: int) -> Locator:
    return page.locator(f"#lora-{at}")


def pinned(page: Page, at: int, repo: str, file: str) -> str:
    """The slot's address, once it is one of this file at a commit."""
    shape = re.compile(PINNED.format(re.escape(repo), re.escape(file)))
    expect(slot(page, at)).to_have_attribute("data-path", shape)
    return str(slot(page, at).get_attribute("data-path"))


def slide(page: Page, at: int, scale: str) -> None:
    slot(page, at).locator(".slot-range").fill(scale)


def sent(page: Page, fal: FalProcess, prompt: str) -> list[dict[str, Any]]:
    """The adapters that the endpoint got with this prompt."""
    ask(page, prompt)
    expect(page.locator(IMAGE).first).to_be_visible()
    expect(page.locator(".receipt-prompt")).to_have_text(prompt)
    (body,) = bodies(fal, prompt)
    loras: list[dict[str, Any]] = body["loras"]
    return loras


# -- finding -------------------------------------------------------------------


def test_search_sort_filter_and_page(page: Page) -> None:
    cards = open_finder(page)
    first = cards.first.get_attribute("data-id")
    count = cards.count()
    page.locator('[data-more="turbo"]').click()
    expect(cards).not_to_have_count(count)
    page.locator(".finder-bar [name=sort]").select_option("newest")
    expect(cards.first).not_to_have_attribute("data-id", str(first))
    page.locator(".finder-text").press_sequentially("pixel art")
    expect(card(page, PIXEL_ART)).to_be_visible()
    page.locator(".finder-text").fill("")
    page.locator(".finder-bar [name=has_pictures]").check()
    expect(cards.locator(".adapter-blank")).to_have_count(0)


def test_mature_adapters_are_hidden_until_asked_for_and_then_blurred(page: Page) -> None:
    open_finder(page)
    page.locator(".finder-bar [name=sort]").select_option("trending")
    expect(card(page, MATURE[0])).to_have_count(0)
    page.locator(".finder-bar [name=include_mature]").check()
    expect(card(page, MATURE[0])).to_be_visible()
    blur = card(page, MATURE[0]).locator("img").evaluate("i => getComputedStyle(i).filter")
    assert blur.startswith("blur(")


def test_adapters_of_the_base_model_are_a_group_of_their_own(page: Page) -> None:
    cards = open_finder(page)
    more = page.locator('[data-more="turbo"]')
    while more.is_visible():
        count = cards.count()
        more.click()
        expect(cards).not_to_have_count(count)
    assert card(page, FOR_BASE[0]).count() == 0
    page.locator('[data-more="base"]').click()
    expect(page.locator(f'[data-group="base"] [data-id="{FOR_BASE[0]}"]')).to_be_visible()
    expect(page.locator('[data-group="base"]')).to_contain_text("Hit and miss on Turbo")


def test_stars_and_what_was_used_come_first(page: Page) -> None:
    open_finder(page)
    card(page, SEVERAL_FILES).locator(".adapter-star").click()
    card(page, PIXEL_ART).locator(".adapter-take").click()
    page.get_by_role("tab", name="Create").click()
    pinned(page, 0, PIXEL_ART, "pixel_art_zit.safetensors")
    page.reload()
    open_finder(page)
    yours = page.locator('[data-group="yours"] .adapter-card')
    expect(yours).to_have_count(2)
    expect(yours.first).to_have_attribute("data-id", SEVERAL_FILES)


# -- adding, choosing, sending -------------------------------------------------


def test_what_is_chosen_is_what_is_sent(page: Page, fal: FalProcess) -> None:
    open_finder(page)
    card(page, PIXEL_ART).locator(".adapter-take").click()
    take = card(page, SEVERAL_FILES).locator(".adapter-take")
    take.focus()
    page.keyboard.press("Enter")
    page.get_by_role("tab", name="Create").click()
    first = pinned(page, 0, PIXEL_ART, "pixel_art_zit.safetensors")
    expect(slot(page, 0)).to_contain_text("rank 32")
    expect(slot(page, 0).locator(".fit")).to_have_text("Fits")

    expect(slot(page, 1).locator("option")).to_have_count(3)
    file = "film_grain_000001250.safetensors"
    option = slot(page, 1).locator("option", has_text=file).get_attribute("value")
    slot(page, 1).locator("select").select_option(option)
    second = pinned(page, 1, SEVERAL_FILES, file)

    slide(page, 0, "0.65")
    slide(page, 1, "1.8")
    slot(page, 0).locator(".slot-on").uncheck()
    assert sent(page, fal, "One is off") == [{"path": second, "scale": 1.8}]
    slot(page, 0).locator(".slot-on").check()
    slot(page, 1).locator('[data-act="up"]').click()
    assert sent(page, fal, "Both, the second first") == [
        {"path": second, "scale": 1.8},
        {"path": first, "scale": 0.65},
    ]
    expect(page.locator(".receipt")).to_contain_text(file)
    slot(page, 1).locator(".slot-range").dblclick()
    expect(slot(page, 1).locator(".slot-number")).to_have_value("1")
    slot(page, 0).locator('[data-act="remove"]').click()
    assert sent(page, fal, "The first alone") == [{"path": first, "scale": 1.0}]


def test_arrows_walk_over_the_cards(page: Page) -> None:
    open_finder(page)
    takes = page.locator('[data-group="turbo"] .adapter-take')
    takes.first.focus()
    page.keyboard.press("ArrowRight")
    expect(takes.nth(1)).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    expect(takes.nth(1)).to_be_focused()


def test_the_scale_of_an_adapter_is_remembered(page: Page) -> None:
    paste(page, PIXEL_ART)
    pinned(page, 0, PIXEL_ART, "pixel_art_zit.safetensors")
    slide(page, 0, "0.4")
    slot(page, 0).locator('[data-act="remove"]').click()
    paste(page, PIXEL_ART)
    expect(slot(page, 0).locator(".slot-number")).to_have_value("0.4")


def test_a_twin_is_merged_and_a_fourth_refused(page: Page) -> None:
    for repo in (PIXEL_ART, TRIGGER_IN_HEADER, SEVERAL_FILES):
        paste(page, repo)
        expect(page.locator(f'.slot[data-path*="{repo}/resolve"]')).to_be_visible()
    slot(page, 2).locator('[data-act="remove"]').click()
    paste(page, f"https://huggingface.co/{PIXEL_ART}/blob/main/pixel_art_zit.safetensors")
    expect(page.locator(".note-toast")).to_contain_text("in a slot already")
    expect(page.locator(".slot")).to_have_count(2)
    paste(page, SEVERAL_FILES)
    open_finder(page)
    card(page, "nordlicht/film-grain-zit").locator(".adapter-take").click()
    expect(page.locator(".note-toast").last).to_contain_text("Three adapters at most")


# -- pasting and dropping ------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    [
        "{repo}",
        "{repo}/{file}",
        "https://huggingface.co/{repo}",
        "https://huggingface.co/{repo}/tree/main",
        "https://huggingface.co/{repo}/blob/main/{file}",
        "https://huggingface.co/{repo}/resolve/main/{file}?download=true",
        "hf.co/{repo}",
    ],
)
def test_every_form_of_a_reference_is_understood(page: Page, form: str) -> None:
    file = "pixel_art_zit.safetensors"
    paste(page, form.format(repo=PIXEL_ART, file=file))
    pinned(page, 0, PIXEL_ART, file)


def test_an_address_elsewhere_is_kept_as_it_is(page: Page, fal: FalProcess) -> None:
    address = "https://files.invalid/styles/ink.safetensors"
    paste(page, address)
    expect(slot(page, 0)).to_have_attribute("data-path", address)
    assert sent(page, fal, "From elsewhere") == [{"path": address, "scale": 1.0}]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("../../etc/passwd", "path on a computer"),
        ("javascript:alert(1)", "only https:"),
        ("someone/style/epoch-9.ckpt", "may run code"),
        ("nobody/nothing-here", "was not found, or it is private"),
        (NO_SAFETENSORS, "no safetensors file"),
        (GATED, "asks you to accept terms"),
    ],
)
def test_what_is_wrong_is_said_while_it_is_typed(page: Page, typed: str, said: str) -> None:
    page.locator(".slot-paste").press_sequentially(typed)
    expect(page.locator(".slot-found")).to_contain_text(said)
    page.locator(".slot-paste").press("Enter")
    expect(page.locator(".slot")).to_have_count(0)


def test_a_renamed_repository_is_followed(page: Page) -> None:
    paste(page, OLD_NAME)
    pinned(page, 0, NEW_NAME, "ink.safetensors")
    expect(slot(page, 0)).to_contain_text(NEW_NAME)


def test_another_family_is_said_before_it_costs(page: Page, fal: FalProcess) -> None:
    paste(page, OTHER_FAMILY)
    expect(slot(page, 0).locator(".fit")).to_have_text("Another family")
    ask(page, "Would be refused")
    expect(page.locator("#live .ending")).to_contain_text("FLUX")
    assert bodies(fal, "Would be refused") == []


def test_a_dropped_file_goes_to_fals_storage_for_a_short_while(page: Page, fal: FalProcess) -> None:
    before = len(fal.ledger().uploads())
    file = weights("mine.safetensors", lora(4))
    drop(page, file.read(0, file.length), file.name)
    expect(slot(page, 0)).to_contain_text("mine")
    expect(slot(page, 0)).to_contain_text("rank 4")
    for prompt in ("With a file of mine", "And once more"):
        (row,) = sent(page, fal, prompt)
        assert row["path"].startswith("https://")
    expect(page.locator(".receipt")).to_contain_text("mine.safetensors")
    assert len(fal.ledger().uploads()) == before + 1


def test_a_file_that_is_no_adapter_is_refused(page: Page) -> None:
    drop(page, b"<!DOCTYPE html><html></html>" * 10, "page.safetensors")
    expect(page.locator(".note-toast")).to_contain_text("can't be used")
    expect(page.locator(".slot")).to_have_count(0)


# -- trigger words -------------------------------------------------------------


def test_a_trigger_goes_in_at_the_cursor_and_only_it_comes_out_again(page: Page) -> None:
    prompt = page.locator("#prompt textarea")
    prompt.press_sequentially("a castle at dusk")
    prompt.evaluate("field => field.setSelectionRange(8, 8)")
    paste(page, PIXEL_ART)
    chip = slot(page, 0).locator(".chip", has_text="pixel art")
    expect(chip).to_have_attribute("aria-pressed", "false")
    chip.click()
    expect(prompt).to_have_value("a castle, pixel art, at dusk")
    expect(chip).to_have_attribute("aria-pressed", "true")
    chip.click()
    expect(prompt).to_have_value("a castle at dusk")
    prompt.fill("")
    prompt.press_sequentially("Pixel Art of a boat")
    expect(chip).to_have_attribute("aria-pressed", "true")
    chip.click()
    expect(prompt).to_have_value("Pixel Art of a boat")


# -- keeping -------------------------------------------------------------------


def test_slots_come_back_with_a_result_and_with_the_draft(page: Page, fal: FalProcess) -> None:
    paste(page, PIXEL_ART)
    first = pinned(page, 0, PIXEL_ART, "pixel_art_zit.safetensors")
    slide(page, 0, "1.35")
    assert sent(page, fal, "To come back to") == [{"path": first, "scale": 1.35}]
    slot(page, 0).locator('[data-act="remove"]').click()
    page.locator('#live [data-action="restore"]').click()
    expect(slot(page, 0)).to_have_attribute("data-path", first)
    expect(slot(page, 0).locator(".slot-number")).to_have_value("1.35")
    page.reload()
    expect(slot(page, 0)).to_have_attribute("data-path", first)
    expect(slot(page, 0).locator(".slot-number")).to_have_value("1.35")


def test_another_backend_keeps_the_scales_and_says_its_range(page: Page) -> None:
    choose(page, "backend", "demo")
    paste(page, PIXEL_ART)
    pinned(page, 0, PIXEL_ART, "pixel_art_zit.safetensors")
    slide(page, 0, "-1.5")
    choose(page, "backend", "hosted")
    expect(slot(page, 0)).to_contain_text("This backend takes 0 to 4.")
    expect(slot(page, 0).locator(".slot-number")).to_have_value("-1.5")
    choose(page, "backend", "demo")
    expect(slot(page, 0).locator(".slot-range-note")).to_be_hidden()
    expect(slot(page, 0).locator(".slot-number")).to_have_value("-1.5")


def test_the_hub_is_asked_without_a_token_for_pictures(
    page: Page, hub: HubProcess, tmp_path: Path
) -> None:
    open_finder(page)
    assert PRIVATE not in json.dumps(
        page.eval_on_selector_all(".adapter-card", "all => all.map(c => c.dataset.id)")
    )


def test_the_grid_comes_even_if_its_tab_is_opened_before_the_page_is_ready(
    browser: Browser, site: Playground
) -> None:
    page = browser.new_context().new_page()
    page.route(re.compile("run/predict|queue/join"), lambda _route: None)
    page.goto(site.url)
    page.get_by_role("tab", name="Adapters").click()
    expect(page.locator("#finder")).to_be_visible()
    expect(page.locator(".finder-text")).to_have_count(0)
    page.unroute_all()  # and what was held goes on
    expect(page.locator('[data-group="turbo"] .adapter-card').first).to_be_visible()
    page.context.close()
