"""The whole page on the local backend: a tiny pipeline of the real classes, on the processor."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import PATIENCE, arrive
from tests.browser.test_page import IMAGE, ask, choose, drop, set_number, unfold_advanced
from tests.process.playground import Playground, playground
from tests.standins.adapters import adapter
from tests.standins.tiny_pipeline import save_tiny_classifier, save_tiny_pipeline

FITS = "comfyui-fused"


@pytest.fixture(scope="module")
def local_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playground]:
    folder = tmp_path_factory.mktemp("local")
    settings = {
        "PLAYGROUND_BACKEND": "local",
        "PLAYGROUND_LOCAL_DEVICE": "cpu",
        "PLAYGROUND_LOCAL_MODEL": str(save_tiny_pipeline(folder / "model")),
        "PLAYGROUND_LOCAL_SAFETY": str(save_tiny_classifier(folder / "safety")),
        "OMP_NUM_THREADS": "1",
    }
    with playground(folder, settings) as running:
        yield running


@pytest.fixture
def local(browser: Browser, local_site: Playground) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    arrive(page, local_site)
    choose(page, "image-size", "square")
    yield page
    context.close()


def made(page: Page, prompt: str) -> None:
    shown = page.locator("#live .job")
    before = shown.get_attribute("data-job") if shown.count() else ""
    ask(page, prompt)
    expect(shown).not_to_have_attribute("data-job", str(before))
    expect(page.locator(".receipt-prompt")).to_have_text(prompt)
    expect(page.locator(IMAGE).first).to_be_visible()


def picture(page: Page) -> bytes:
    source = page.locator(IMAGE).first.get_attribute("src")
    return page.request.get(f"{page.url}{source}").body()


def test_parameters_mean_the_same_here(local: Page) -> None:
    """Two steps as WebP; image two of a batch is what its own seed makes alone."""
    expect(local.locator("#generate")).to_contain_text("free")
    local.locator("#seed input").fill("41")
    choose(local, "num-images", "2")
    unfold_advanced(local)
    set_number(local, "num-inference-steps", "2")
    choose(local, "output-format", "webp")
    made(local, "Two of a kind")
    second = local.locator(IMAGE).nth(1).evaluate(PIXELS)
    choose(local, "num-images", "1")
    local.locator("#seed input").fill("42")
    made(local, "Two of a kind")
    expect(local.locator(".receipt code").first).to_have_text("42")
    assert local.locator(IMAGE).first.evaluate(PIXELS) == second
    assert picture(local)[8:12] == b"WEBP"


def test_the_same_seed_gives_the_same_image(local: Page) -> None:
    local.locator("#seed input").fill("7")
    images = []
    for prompt in ("Once", "In between", "Once"):
        made(local, prompt)
        images.append(local.locator(IMAGE).first.evaluate(PIXELS))
    assert images[0] == images[2] != images[1]


PIXELS = """async (image) => {
    await image.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    canvas.getContext("2d").drawImage(image, 0, 0);
    return canvas.toDataURL();
}"""


def test_an_adapter_is_applied_whole_and_changes_the_image(local: Page) -> None:
    local.locator("#seed input").fill("7")
    made(local, "With and without")
    without = local.locator(IMAGE).first.evaluate(PIXELS)
    drop(local, adapter(FITS).data(), "ink.safetensors")
    expect(local.locator("#lora-0 .fit")).to_have_text("Fits")
    made(local, "With and without")
    expect(local.locator(".receipt")).to_contain_text("Adapter applied")
    expect(local.locator(".receipt")).to_contain_text("ink.safetensors × 1")
    assert local.locator(IMAGE).first.evaluate(PIXELS) != without
    local.locator("#lora-0 .slot-on").uncheck()
    made(local, "With and without")
    expect(local.locator(".receipt")).not_to_contain_text("Adapter applied")
    assert local.locator(IMAGE).first.evaluate(PIXELS) == without


def test_expansion_and_safety_are_in_the_receipt(local: Page) -> None:
    unfold_advanced(local)
    local.locator("#enable-prompt-expansion input").check()
    made(local, "A fox")
    expect(local.locator(".receipt")).to_contain_text("expansion")
    expect(local.locator(".receipt")).to_contain_text("safety")


def test_it_is_watched_and_stopped_within_a_step(local: Page) -> None:
    choose(local, "image-size", "square_hd")
    choose(local, "num-images", "4")
    ask(local, "Take your time")
    expect(local.locator(".status-word")).to_have_text(re.compile(r"Step \d of 8"))
    expect(local.locator(".tile img").first).to_be_visible()
    expect(local.locator(".elapsed")).to_have_text(re.compile(r"^[\d.]+ s · about \d+ s left$"))
    local.locator('#live [data-action="stop"]').click()
    expect(local.locator("#live .ending")).to_contain_text("Stopped")


def test_history_gives_the_recipe_back(local: Page, tmp_path: Path) -> None:
    local.locator("#seed input").fill("99")
    made(local, "To be found again")
    local.locator("#seed input").fill("")
    local.get_by_role("tab", name="History").click()
    card = local.locator("#gallery .card", has_text="To be found again").first
    card.locator('[data-action="restore"]').click()
    expect(local.locator("#seed input")).to_have_value("99")


def test_the_pages_process_never_loads_torch(local: Page, local_site: Playground) -> None:
    """Whose faults would be the page's, and whose work would take its interpreter."""
    made(local, "Elsewhere")
    libraries = Path(f"/proc/{local_site.process.pid}/maps").read_text("utf-8")
    assert ".so" in libraries and "torch" not in libraries
