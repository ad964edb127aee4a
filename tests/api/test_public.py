"""A public page on the owner's key: what strangers may take is held by every endpoint."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.browser import Browser, Said
from tests.process.playground import KEY, ROOT, Playground, clean_environment, playground
from tests.standins.fal_process import FalProcess

SMALL = {"width": 64, "height": 64}
PUBLIC = {
    "FAL_KEY": KEY,
    "PLAYGROUND_MODE": "public",
    "PLAYGROUND_DAILY_BUDGET": "0.40",
    "PLAYGROUND_VISITOR_LIMITS": "3/minute, 5/hour",
}


@pytest.fixture(scope="module")
def public(fal: FalProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playground]:
    folder = tmp_path_factory.mktemp("public")
    with playground(folder, fal.environment, PUBLIC) as running:
        yield running
    assert "Traceback" not in running.log()


@pytest.fixture
def visitor(public: Playground) -> Iterator[Browser]:
    with Browser(public) as browser:
        yield browser


def generate(browser: Browser, **values: Any) -> Any:
    return browser.call("generate", **{"prompt": "a fox", "image_size": SMALL, **values})


def click(browser: Browser, **changes: Any) -> str:
    """The line beside the button after a click on Generate, with the controls as they are."""
    (number,) = browser.events("generate", "click")
    (handler,) = [d for d in browser._config["dependencies"] if d["id"] == number]
    shown = {c["id"]: c["props"] for c in browser._config["components"]}
    by_name = {shown[each].get("elem_id"): each for each in handler["inputs"]}
    values = {each: shown[each].get("value") for each in handler["inputs"]}
    values |= {by_name[name]: value for name, value in changes.items()}
    answer = browser.fire(number, list(values.values())).raise_for_status()
    return str(answer.json()["data"][0])


def left(browser: Browser) -> str:
    """The line of what is left, as the page asks for it."""
    target = [browser.component("allowance")]
    number, *_ = [d["id"] for d in browser._config["dependencies"] if d["outputs"] == target]
    return str(browser.fire(number, ["hosted"]).raise_for_status().json()["data"][0])


def command(page: Playground, action: str) -> str:
    """The owner's command beside the running page."""
    done = subprocess.run(
        [sys.executable, "-m", "deploy.spending", action],
        cwd=ROOT, env=clean_environment(page.directory, PUBLIC), capture_output=True, text=True,
        timeout=60, check=True,
    )  # fmt: skip
    return done.stdout


def test_the_owner_is_told_at_the_start_what_strangers_may_spend(public: Playground) -> None:
    assert "Visitors may spend $0.40 a day on FAL_KEY" in public.log()


# -- images --------------------------------------------------------------------


def test_the_api_refuses_in_plain_words(visitor: Browser, fal: FalProcess) -> None:
    before = len(fal.ledger().posts())
    generate(visitor, num_images=3)
    with pytest.raises(
        Said, match="make 3 images in 1 min here; .*Possible again in (1 min|[0-9]+ s), or now"
    ):
        generate(visitor)
    with pytest.raises(Said, match="num_images: must be at most 3 here"):
        generate(visitor, num_images=4)
    assert len(visitor.history()) == len(fal.ledger().posts()) - before == 1


def test_the_page_refuses_in_plain_words_and_says_what_is_left(visitor: Browser) -> None:
    assert "5 of 5 images left this hour · $0." in left(visitor)
    assert click(visitor, prompt="a fox", **{"num-images": 3}) == ""
    assert "2 of 5 images left this hour · $0." in left(visitor)
    assert "this would be more" in click(visitor, prompt="a fox")
    (row,) = visitor.history()
    assert "this would be more" in visitor.act("vary", row["id"])["cause"]
    assert len(visitor.history()) == 1


def test_a_key_of_ones_own_goes_on(visitor: Browser) -> None:
    generate(visitor, num_images=3)
    visitor.serve("account", "set_key", {"key": KEY})
    assert left(visitor) == ""
    generate(visitor, num_images=4)
    visitor.serve("account", "set_key", {"key": ""})
    assert "2 of 5 images left" in left(visitor)
    with pytest.raises(Said, match="this would be more"):
        generate(visitor)


def test_the_demo_is_for_everybody(visitor: Browser) -> None:
    for _ in range(2):
        generate(visitor, num_images=4, backend="demo")


# -- dollars -------------------------------------------------------------------


def test_the_budget_is_everybodys(public: Playground, visitor: Browser) -> None:
    """Three at once of the largest: no reservation of $0.1275 fits where less is left."""
    largest = {"image_size": {"width": 2048, "height": 2048}, "num_images": 3}
    for _ in range(5):
        with Browser(public) as other:
            try:
                generate(other, **largest)
            except Said as refused:
                assert "budget of this page is spent" in str(refused)
                assert "resets at 00:00 UTC" in str(refused)
                break
    else:
        raise AssertionError("$0.40 paid for five times $0.107")
    assert "budget of this page is spent" in click(
        visitor,
        prompt="a fox",
        width=2048,
        height=2048,
        **{"image-size": "custom", "num-images": 3},
    )
    assert visitor.history() == []


def test_the_switch_stops_the_next_click_of_a_running_page(
    public: Playground, visitor: Browser
) -> None:
    assert "Spending is stopped." in command(public, "stop")
    try:
        with pytest.raises(Said, match="has stopped spending"):
            generate(visitor)
        assert "has stopped spending" in click(visitor, prompt="a fox")
        assert "the owner has stopped spending for now" in left(visitor)
    finally:
        assert "Spending is allowed." in command(public, "resume")
    assert "left today" in left(visitor)


# -- what is the owner's to allow ----------------------------------------------


def test_the_safety_checker_stays_on(visitor: Browser, fal: FalProcess) -> None:
    before = len(fal.ledger().posts())
    refused = "enable_safety_checker can't be false on this page"
    for backend in ("hosted", "demo"):
        with pytest.raises(Said, match=refused):
            generate(visitor, enable_safety_checker=False, backend=backend)
    assert refused.split(" can't")[0] in click(
        visitor, prompt="a fox", **{"enable-safety-checker": False}
    )
    assert len(fal.ledger().posts()) == before and visitor.history() == []


def test_mature_adapters_are_not_searched(visitor: Browser) -> None:
    with pytest.raises(Said, match="include_mature can't be true on this page"):
        visitor.call("search_loras", include_mature=True)
    found = visitor.serve("finder", "find_adapters", {"include_mature": True}).json()
    assert found["html"] == "" and found["note"].startswith("include_mature can't be true")


def test_what_is_not_allowed_is_off_with_the_reason(visitor: Browser) -> None:
    shown = {c["props"].get("elem_id"): c["props"] for c in visitor._config["components"]}
    assert shown["enable-safety-checker"]["interactive"] is False
    assert "not_allowed.enable_safety_checker" in json.dumps(shown["enable-safety-checker"]["info"])
    (load,) = [
        d["id"]
        for d in visitor._config["dependencies"]
        if visitor.component("finder") in d["outputs"]
    ]
    page = visitor.fire(load, ["hosted", {}]).text
    (box,) = [part for part in page.split("<label") if "include_mature" in part]
    assert "disabled" in box and "not on this page" in box


def test_a_recipe_with_the_checker_off_comes_back_with_it_on(visitor: Browser) -> None:
    found = {"request": {"prompt": "a fox", "enable_safety_checker": False}, "not_restored": []}
    (handler,) = visitor.events("live", "dropped")
    data = visitor.fire(handler, [], {"found": json.dumps(found)}).json()["data"]
    (dependency,) = [d for d in visitor._config["dependencies"] if d["id"] == handler]
    filled = dict(zip(dependency["outputs"], data, strict=True))
    assert filled[visitor.component("enable-safety-checker")] is True
    assert "enable_safety_checker" in str(filled[visitor.component("notice")])


def test_on_a_private_page_nothing_of_it_is_said(page: Playground) -> None:
    with Browser(page) as owner:
        target = [owner.component("allowance")]
        assert [d for d in owner._config["dependencies"] if d["outputs"] == target] == []
        shown = {c["props"].get("elem_id"): c["props"] for c in owner._config["components"]}
        assert shown["enable-safety-checker"]["interactive"] is True
