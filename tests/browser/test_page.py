"""What a person does on the page, in a real browser."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import PATIENCE, arrive
from tests.process.playground import Playground, playground
from tests.standins import fal_faults as faults
from tests.standins.fal_process import FalProcess
from tests.standins.hub_special import NEW_NAME, PIXEL_ART, TRIGGER_IN_HEADER

expect.set_options(timeout=PATIENCE)

IMAGE = "#live .picture img"


def ask(page: Page, prompt: str) -> None:
    """Type a prompt, as a person does, and generate."""
    page.locator("#prompt textarea").fill("")
    page.locator("#prompt textarea").press_sequentially(prompt, delay=1)
    page.locator("#generate").click()


def bodies(fal: FalProcess, prompt: str) -> list[dict[str, Any]]:
    """What the stand-in was sent for a prompt."""
    return [body for body in fal.ledger().submitted_bodies() if body.get("prompt") == prompt]


def choose(page: Page, group: str, value: str) -> None:
    page.locator(f'#{group} input[value="{value}"]').check(force=True)


def set_number(page: Page, control: str, value: str) -> None:
    number = page.locator(f"#{control} input[type=number]")
    number.fill(value)
    number.press("Tab")


def add_adapter(page: Page, at: int, repo: str) -> str:
    """Its address, once it is pinned."""
    page.locator(".slot-paste").fill(repo)
    page.locator(".slot-paste").press("Enter")
    slot = page.locator(f"#lora-{at}")
    expect(slot).to_have_attribute("data-path", re.compile(f"{repo}/resolve/[0-9a-f]{{40}}/"))
    return str(slot.get_attribute("data-path"))


def unfold_advanced(page: Page) -> None:
    """Gradio mounts folded controls late and sets them once more: nobody is as fast as a script."""
    page.locator("#advanced button.label-wrap").click()
    page.locator("#sync-mode input").wait_for()
    page.evaluate("new Promise((done) => requestIdleCallback(done))")


def drop(page: Page, data: bytes, name: str) -> None:
    """Let a file fall on the page."""
    transfer = page.evaluate_handle(
        """([data, name]) => {
            const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name));
            return transfer;
        }""",
        [base64.b64encode(data).decode(), name],
    )
    page.dispatch_event("#light-table", "drop", {"dataTransfer": transfer})


def test_typing_a_prompt_makes_an_image(page: Page, fal: FalProcess) -> None:
    ask(page, "A red kite over dunes")
    expect(page.locator("#live .status")).to_be_visible()
    expect(page.locator(IMAGE)).to_be_visible()
    assert page.locator(IMAGE).evaluate("image => image.naturalWidth") == 1024
    expect(page.locator(".receipt")).to_contain_text("$0.0067")
    expect(page.locator("#spent")).to_have_text("$0.0067")
    assert len(bodies(fal, "A red kite over dunes")) == 1


def test_every_control_reaches_the_endpoint(page: Page, fal: FalProcess) -> None:
    choose(page, "image-size", "custom")
    page.locator("#width input").fill("640")
    page.locator("#height input").fill("384")
    choose(page, "num-images", "3")
    page.locator("#seed input").fill("15860307465884635512")
    paths = []
    chosen = ((PIXEL_ART, "0.35"), (TRIGGER_IN_HEADER, "2"), (NEW_NAME, "4"))
    for slot, (repo, scale) in enumerate(chosen):
        paths.append(add_adapter(page, slot, repo))
        set_number(page, f"lora-{slot}", scale)
    page.locator("#lora-2 .slot-on").uncheck()
    unfold_advanced(page)
    set_number(page, "num-inference-steps", "3")
    choose(page, "acceleration", "high")
    choose(page, "output-format", "webp")
    page.locator("#enable-prompt-expansion input").check()
    page.locator("#enable-safety-checker input").uncheck()
    page.locator("#sync-mode input").check()
    ask(page, "Every control, 雪 and 🙂")
    expect(page.locator(IMAGE)).to_have_count(3)
    assert bodies(fal, "Every control, 雪 and 🙂") == [
        {
            "prompt": "Every control, 雪 and 🙂",
            "image_size": {"width": 640, "height": 384},
            "num_inference_steps": 3,
            "seed": 15860307465884635512,
            "sync_mode": True,
            "num_images": 3,
            "enable_safety_checker": False,
            "output_format": "webp",
            "acceleration": "high",
            "enable_prompt_expansion": True,
            "loras": [{"path": paths[0], "scale": 0.35}, {"path": paths[1], "scale": 2.0}],
        }
    ]


def test_the_button_says_what_a_click_costs(page: Page) -> None:
    expect(page.locator("#generate")).to_have_text("Generate · $0.0067")
    choose(page, "num-images", "4")
    expect(page.locator("#generate")).to_have_text("Generate · $0.0267")
    choose(page, "image-size", "square")
    expect(page.locator("#generate")).to_have_text("Generate · $0.0089")
    choose(page, "backend", "demo")
    expect(page.locator("#generate")).to_have_text("Generate · free")


def test_stop_cancels_once(page: Page, fal: FalProcess) -> None:
    fal.hold()
    ask(page, "To be stopped")
    page.locator('[data-action="stop"]').click()
    expect(page.locator(".ending")).to_contain_text("Stopped")
    cancelled = [request for request in fal.ledger().cancels() if request.method == "PUT"]
    assert len(cancelled) == 1


def test_keys_generate_and_stop(page: Page, fal: FalProcess) -> None:
    fal.hold()
    page.locator("#prompt textarea").press_sequentially("By keyboard alone")
    page.keyboard.press("Control+Enter")
    expect(page.locator('[data-action="stop"]')).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".ending")).to_contain_text("Stopped")


def test_a_closed_tab_loses_nothing(page: Page, site: Playground, fal: FalProcess) -> None:
    fal.hold()
    ask(page, "Made while nobody looked")
    expect(page.locator(".status-word")).to_be_visible()
    context = page.context
    page.close()
    fal.release()
    again = context.new_page()
    arrive(again, site)
    expect(again.locator(IMAGE)).to_be_visible()
    expect(again.locator(".receipt-prompt")).to_have_text("Made while nobody looked")
    assert len(bodies(fal, "Made while nobody looked")) == 1


def test_several_jobs_at_once(page: Page, fal: FalProcess) -> None:
    fal.hold()
    for number in range(3):
        ask(page, f"Several at once, {number}")
        expect(page.locator(".strip .thumb")).to_have_count(number + 1)
    fal.release()
    expect(page.locator(".strip .thumb img")).to_have_count(3)
    expect(page.locator(".receipt-prompt")).to_have_text("Several at once, 2")


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_a_downloaded_file_restores_its_settings(page: Page, tmp_path: Path, kind: str) -> None:
    page.locator("#seed input").fill("77")
    adapter = add_adapter(page, 0, PIXEL_ART)
    choose(page, "image-size", "portrait_16_9")
    unfold_advanced(page)
    choose(page, "output-format", kind)
    ask(page, f"A recipe in a {kind} 📷")
    with page.expect_download() as download:
        page.locator(".actions a[download]").click()
    saved = tmp_path / download.value.suggested_filename
    download.value.save_as(saved)

    page.reload()
    page.locator("#live .job").wait_for()
    page.locator("#prompt textarea").fill("something else")
    page.locator("#seed input").fill("")
    choose(page, "image-size", "square")
    drop(page, saved.read_bytes(), saved.name)
    expect(page.locator("#prompt textarea")).to_have_value(f"A recipe in a {kind} 📷")
    expect(page.locator("#seed input")).to_have_value("77")
    expect(page.locator("#lora-0")).to_have_attribute("data-path", adapter)
    expect(page.locator('#image-size input[value="portrait_16_9"]')).to_be_checked()
    expect(page.locator("#notice")).to_contain_text("Settings restored.")


def test_an_image_without_a_recipe_says_so(page: Page) -> None:
    drop(page, b"not an image at all", "letter.txt")
    expect(page.locator(".note-toast")).to_contain_text("not a PNG, JPEG or WebP")


def test_language_and_theme_switch_and_stay(page: Page) -> None:
    page.locator("#prompt textarea").fill("kept over the switch")
    page.locator("#language").click()
    expect(page.locator("#generate")).to_contain_text("生成")
    expect(page.locator('[role="tab"]').first).to_have_text("创作")
    expect(page.locator("#prompt")).to_contain_text("提示词")
    expect(page.locator("#prompt textarea")).to_have_value("kept over the switch")

    dark = page.evaluate("document.body.classList.contains('dark')")
    page.locator("#theme").click()
    assert page.evaluate("document.body.classList.contains('dark')") is not dark
    page.reload()
    expect(page.locator("#generate")).to_contain_text("生成")
    page.wait_for_function(f"document.body.classList.contains('dark') === {json.dumps(not dark)}")


def test_bad_input_is_refused_in_place(page: Page, fal: FalProcess) -> None:
    before = len(fal.ledger().posts())
    page.locator("#generate").click()
    expect(page.locator("#notice")).to_contain_text("prompt: is empty")
    choose(page, "image-size", "custom")
    page.locator("#width input").fill("4000")
    page.locator("#height input").fill("4000")
    ask(page, "Too large a size")
    expect(page.locator("#notice")).to_contain_text("more than 4 megapixels")
    assert len(fal.ledger().posts()) == before


def test_a_rejected_key_asks_for_another(page: Page, fal: FalProcess) -> None:
    fal.inject(faults.rejected_key())
    ask(page, "With a bad key")
    expect(page.locator(".ending")).to_contain_text("The key was rejected.")
    page.locator('.ending [data-action="key"]').click()
    page.locator("#key").fill("another-id:another-secret")
    page.locator("#use-key").click()
    expect(page.locator("#open-key")).to_have_text("Your key")
    page.locator('.ending [data-action="retry"]').click()
    expect(page.locator(IMAGE)).to_be_visible()
    assert fal.ledger().posts()[-1].mentions("Key another-id:another-secret")
    assert "another-secret" not in page.content()


def test_a_backend_that_is_not_ready_says_why(
    browser: Browser, fal: FalProcess, tmp_path: Path
) -> None:
    with playground(tmp_path, fal.environment, {"PLAYGROUND_BACKEND": "hosted"}) as keyless:
        page = browser.new_context().new_page()
        arrive(page, keyless)
        expect(page.locator("#backend-status")).to_contain_text("needs a fal key")
        ask(page, "Without a key")
        expect(page.locator("#notice")).to_contain_text("needs a fal key")
        page.locator("#backend-status .open-key").click()
        page.locator("#key").fill("visitor-id:visitor-secret")
        page.keyboard.press("Enter")
        expect(page.locator("#backend-status")).to_contain_text("billed by fal")
        page.locator("#generate").click()
        expect(page.locator(IMAGE)).to_be_visible()
        page.context.close()
    assert fal.ledger().posts()[-1].mentions("Key visitor-id:visitor-secret")


def test_an_unknown_outcome_is_never_resubmitted(page: Page, fal: FalProcess) -> None:
    fal.inject(faults.reset_after_accept("submit"))
    ask(page, "Lost in transit")
    expect(page.locator('.ending[data-kind="unknown"]')).to_contain_text("may be billed")
    expect(page.locator('.ending [data-action="retry"]')).to_contain_text("may be charged twice")
    assert len(bodies(fal, "Lost in transit")) == 1


def test_a_flagged_image_is_filtered_not_failed(page: Page) -> None:
    ask(page, "FLAGME please")
    expect(page.locator(".filtered")).to_contain_text("Filtered")


def test_history_searches_restores_and_forgives(page: Page) -> None:
    for word in ("Zebra", "Yak"):
        ask(page, f"A {word} in the rain")
        expect(page.locator(".receipt-prompt")).to_have_text(f"A {word} in the rain")
    page.get_by_role("tab", name="History").click()
    cards = page.locator("#gallery .card:visible")
    expect(cards).to_have_count(2)
    page.locator(".history-search").press_sequentially("zebra")
    expect(cards).to_have_count(1)
    cards.locator('[data-action="favourite"]').click()
    page.locator(".history-search").fill("")
    page.locator(".history-favourites").click()
    expect(cards).to_have_count(1)
    page.locator(".history-favourites").click()
    expect(cards).to_have_count(2)
    cards.first.locator('[data-action="delete"]').click()
    expect(cards).to_have_count(1)
    page.locator(".history-undo").click()
    expect(cards).to_have_count(2)
    cards.last.locator('[data-action="restore"]').click()
    expect(page.locator("#prompt textarea")).to_have_value("A Zebra in the rain")


def test_an_example_runs_with_one_click(page: Page) -> None:
    page.locator(".example").first.click()
    expect(page.locator(IMAGE)).to_be_visible()
    expect(page.locator("#prompt textarea")).to_have_value(
        page.locator(".receipt-prompt").inner_text()
    )


@pytest.mark.parametrize("width", [1440, 820, 390])
def test_nothing_overflows_and_nothing_comes_from_elsewhere(
    browser: Browser, site: Playground, width: int
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900})
    page = context.new_page()
    hosts: set[str] = set()
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    arrive(page, site)
    choose(page, "backend", "demo")
    ask(page, "A narrow page")
    expect(page.locator(IMAGE)).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert hosts == {site.url.split("/")[2]}
    context.close()
