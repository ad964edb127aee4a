"""The slots survive everything: no value on the wrong row, on the page or in the request."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from playwright.sync_api import Page, expect

from generation.request import MAX_LORAS
from tests.browser.test_page import IMAGE, ask, bodies, choose
from tests.standins.fal_process import FalProcess
from tests.standins.hub_special import (
    NEW_NAME,
    PIXEL_ART,
    SEVERAL_FILES,
    TRIGGER_IN_HEADER,
    TRIGGER_IN_PROSE,
)

REPOS = (PIXEL_ART, SEVERAL_FILES, TRIGGER_IN_HEADER, TRIGGER_IN_PROSE, NEW_NAME)
READ = """() => [...document.querySelectorAll("#adapters .slot")].map((slot) => ({
    path: slot.dataset.path,
    scale: Number(slot.querySelector(".slot-number").value),
    range: slot.querySelector(".slot-range").valueAsNumber,
    on: slot.querySelector(".slot-on").checked,
    shown: slot.querySelector(".slot-name a")?.href ?? "",
}))"""
SLOTS, SCALES = st.integers(0, MAX_LORAS - 1), st.integers(0, 80).map(lambda n: n / 20)
STEPS = st.one_of(
    st.tuples(st.just("add"), st.sampled_from(REPOS)),
    st.tuples(st.sampled_from(["remove", "up", "down", "switch"]), SLOTS),
    st.tuples(st.just("slide"), SLOTS, SCALES),
    st.tuples(st.just("type"), SLOTS, SCALES),
    st.tuples(st.just("backend"), st.sampled_from(["hosted", "demo"])),
)
NUMBERS = count()


@dataclass(frozen=True)
class Row:
    repo: str
    scale: float = 1.0
    on: bool = True


@dataclass
class Model:
    """What the slots should hold, by the rules alone."""

    rows: list[Row] = field(default_factory=list)
    remembered: dict[str, float] = field(default_factory=dict)

    def add(self, repo: str) -> None:
        if len(self.rows) < MAX_LORAS and repo not in [row.repo for row in self.rows]:
            self.rows.append(Row(repo, self.remembered.get(repo, 1.0)))

    def swap(self, one: int, other: int) -> None:
        if 0 <= min(one, other) and max(one, other) < len(self.rows):
            self.rows[one], self.rows[other] = self.rows[other], self.rows[one]

    def rescale(self, at: int, scale: float) -> None:
        self.rows[at] = replace(self.rows[at], scale=scale)
        self.remembered[self.rows[at].repo] = scale


def do(page: Page, model: Model, step: tuple[Any, ...]) -> None:
    """One thing that a person does, to the page and to the model."""
    kind, *given_ = step
    if kind == "add":
        _add(page, model, given_[0])
    elif kind == "backend":
        choose(page, "backend", given_[0])
    elif given_[0] < len(model.rows):
        _on_a_row(page, model, kind, *given_)


def _add(page: Page, model: Model, repo: str) -> None:
    if len(model.rows) == MAX_LORAS:
        expect(page.locator(".slot-add")).to_be_hidden()
        return
    page.locator(".slot-paste").fill(repo)
    page.locator(".slot-paste").press("Enter")
    model.add(repo)


def _on_a_row(page: Page, model: Model, kind: str, at: int, scale: float = 0.0) -> None:
    slot = page.locator(f"#lora-{at}")
    if kind == "remove":
        slot.locator('[data-act="remove"]').click()
        del model.rows[at]
    elif kind in ("up", "down"):
        slot.locator(f'[data-act="{kind}"]').click(force=True)
        model.swap(at, at - 1 if kind == "up" else at + 1)
    elif kind == "switch":
        slot.locator(".slot-on").click()
        model.rows[at] = replace(model.rows[at], on=not model.rows[at].on)
    else:
        box = slot.locator(".slot-range" if kind == "slide" else ".slot-number")
        box.fill(f"{scale:g}")
        model.rescale(at, scale)


def check(page: Page, model: Model) -> None:
    """Each row shows its own adapter, pinned, with its own scale and switch."""
    page.wait_for_function(
        """(repos) => {
            const slots = [...document.querySelectorAll("#adapters .slot")];
            return slots.length === repos.length && slots.every((slot, at) =>
                slot.id === `lora-${at}` && slot.dataset.path.includes(`${repos[at]}/resolve/`));
        }""",
        arg=[row.repo for row in model.rows],
    )
    for shown, row in zip(page.evaluate(READ), model.rows, strict=True):
        assert (shown["scale"], shown["range"], shown["on"]) == (row.scale, row.scale, row.on)
        assert shown["shown"].endswith(row.repo)


@settings(
    max_examples=12, deadline=None, derandomize=True, database=None,
    phases=[Phase.generate], suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(steps=st.lists(STEPS, min_size=6, max_size=14))
def test_no_value_is_ever_on_the_wrong_row(
    page: Page, fal: FalProcess, steps: list[tuple[Any, ...]]
) -> None:
    while page.locator(".slot").count():
        page.locator('#lora-0 [data-act="remove"]').click()
    page.evaluate("localStorage.clear()")
    model = Model()
    for step in steps:
        do(page, model, step)
        check(page, model)
    choose(page, "backend", "hosted")
    prompt = f"Whatever was done before, {next(NUMBERS)}"
    ask(page, prompt)
    expect(page.locator(".receipt-prompt")).to_have_text(prompt)
    expect(page.locator(IMAGE).first).to_be_visible()
    (body,) = bodies(fal, prompt)
    asked = [(lora["path"].split("/")[3:5], lora["scale"]) for lora in body["loras"]]
    assert asked == [(row.repo.split("/"), row.scale) for row in model.rows if row.on]
