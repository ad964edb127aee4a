"""What happens on a click. Handlers submit and look up; none of them does the work.

Events that answer at once skip Gradio's queue, which would hold a second
connection open for each of them.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Sequence
from typing import Any, Final

import gradio as gr

from generation.allowance import Terms
from generation.errors import PlaygroundError
from generation.parsing import parse_request
from generation.pricing import estimate_cost, format_usd
from generation.request import GenerationRequest
from jobs import Runner
from ui.adapters_tab import finder
from ui.allowance import allowance_line
from ui.create import ADVANCED, ability
from ui.header import backend_status
from ui.markup import join, tag
from ui.parts import Parts
from ui.recipes import control_values, request_values
from ui.texts import Language, explain, say
from ui.visitor import Visitors, language

PRICED: Final = ("image_size", "width", "height", "num_images", "enable_prompt_expansion")
DIRECT: Final[dict[str, Any]] = {
    "queue": False,
    "show_progress": "hidden",
    "api_visibility": "private",
    "trigger_mode": "multiple",
}


def connect(runner: Runner, visitors: Visitors, i18n: gr.I18n, parts: Parts) -> None:
    """Attach every event of the page."""
    _header(runner, visitors, i18n, parts)
    _generating(runner, visitors, parts)
    if runner.terms.budget is not None:
        _allowance(runner, visitors, parts)
    _price(runner, visitors, parts)
    _seed(runner, visitors, parts)
    _restoring(runner, visitors, parts)


def _header(runner: Runner, visitors: Visitors, i18n: gr.I18n, parts: Parts) -> None:
    def status(backend: str, request: gr.Request) -> str:
        words = backend_status(runner, visitors.owner(request), backend, language(request))
        return join(words, tag("p", runner.history.notice) if runner.history.notice else None)

    def open_page(backend: str, draft: dict[str, Any], request: gr.Request) -> dict[Any, Any]:
        return {
            parts.account: parts.render_account(request),
            parts.gallery: parts.render_toolbar(request),
            parts.finder: finder(language(request), runner.terms),
            parts.status: status(backend, request),
            parts.recipe.notice: _word_from_the_start(runner.history.notice),
            **_fill(parts, _usable_draft(draft, runner.terms)),
        }

    parts.page.load(
        open_page,
        inputs=[parts.backend, parts.draft],
        outputs=[
            parts.account,
            parts.gallery,
            parts.finder,
            parts.status,
            parts.recipe.notice,
            *parts.controls.values(),
        ],
        **DIRECT,
    )
    for changed in (parts.backend.change, parts.account.changed):
        changed(status, inputs=parts.backend, outputs=parts.status, **DIRECT)

    def abilities(backend: str, request: gr.Request) -> dict[Any, Any]:
        """Controls for another backend; their values stay. The slots look after themselves."""
        able = runner.capabilities(backend, visitors.owner(request))
        return {
            parts.controls[n]: gr.update(**ability(n, i18n, able, runner.terms)) for n in ADVANCED
        }

    parts.backend.change(
        abilities, inputs=parts.backend, outputs=[parts.controls[n] for n in ADVANCED], **DIRECT
    )
    parts.account.language(
        lambda **values: values, inputs_kwargs=parts.controls, outputs=parts.draft, **DIRECT
    ).then(None, js="() => window.playground.switchLanguage()", **DIRECT)


def _generating(runner: Runner, visitors: Visitors, parts: Parts) -> None:
    async def submit(request: gr.Request, backend: str, **values: Any) -> tuple[str, Any]:
        try:
            parsed = parse_request(request_values(values))
            owner = visitors.owner(request)
            await asyncio.to_thread(runner.submit, parsed, owner, backend)
        except PlaygroundError as exc:
            return notice(language(request), exc), values
        return "", values

    async def run_example(
        request: gr.Request, event: gr.EventData, backend: str, **values: Any
    ) -> tuple[str, Any, str]:
        prompt = str(event._data["prompt"])
        return *await submit(request, backend, **{**values, "prompt": prompt}), prompt

    asked: dict[str, gr.blocks.Block] = {"backend": parts.backend, **parts.controls}
    outputs = [parts.recipe.notice, parts.draft]
    parts.recipe.generate.click(submit, inputs_kwargs=asked, outputs=outputs, **DIRECT)
    parts.live.example(
        run_example, inputs_kwargs=asked, outputs=[*outputs, parts.controls["prompt"]], **DIRECT
    )


def _allowance(runner: Runner, visitors: Visitors, parts: Parts) -> None:
    """What is left for the visitor, told again whenever it may have changed."""

    def left(backend: str, request: gr.Request) -> str:
        try:
            found = runner.allowance(backend, visitors.owner(request))
        except PlaygroundError:  # said where it matters: at the next click
            return ""
        return allowance_line(found, language(request)) if found else ""

    for trigger in (
        parts.page.load,
        parts.backend.change,
        parts.account.changed,
        parts.live.began,
        parts.live.settled,
        parts.recipe.notice.change,  # a refusal: others may have spent meanwhile
    ):
        trigger(left, inputs=parts.backend, outputs=parts.recipe.allowance, **DIRECT)


def _price(runner: Runner, visitors: Visitors, parts: Parts) -> None:
    def price(request: gr.Request, backend: str, **values: Any) -> Any:
        word = say(language(request), "action.generate")
        try:
            cost = estimate_cost(_sized(values))
        except PlaygroundError:
            return gr.update(value=word)
        billed = runner.capabilities(backend, visitors.owner(request)).billed
        amount = format_usd(cost.total) if billed else say(language(request), "free")
        return gr.update(value=f"{word} · {amount}")

    inputs: dict[str, Any] = {
        "backend": parts.backend,
        **{name: parts.controls[name] for name in PRICED},
    }
    triggers = [component.change for component in inputs.values()]
    gr.on(
        [parts.page.load, *triggers],
        price,
        inputs_kwargs=inputs,
        outputs=parts.recipe.generate,
        **DIRECT,
    )


def _sized(values: dict[str, Any]) -> GenerationRequest:
    """A request with only what its price depends on."""
    size = values["image_size"]
    if size == "custom":
        size = {"width": values["width"], "height": values["height"]}
    return parse_request(
        {
            "prompt": "-",
            "image_size": size,
            "num_images": values["num_images"],
            "enable_prompt_expansion": values["enable_prompt_expansion"],
        }
    ).request


def _seed(runner: Runner, visitors: Visitors, parts: Parts) -> None:
    def keep(seed: str, request: gr.Request) -> str:
        """The last seed that was used; pressed again, back to random."""
        if seed.strip():
            return ""
        last = runner.history.search(visitors.owner(request), limit=1)
        return str(last[0].request.seed) if last else str(secrets.randbelow(2**32))

    seed = parts.controls["seed"]
    parts.recipe.dice.click(lambda: str(secrets.randbelow(2**32)), outputs=seed, **DIRECT)
    parts.recipe.lock.click(keep, inputs=seed, outputs=seed, **DIRECT)


def _restoring(runner: Runner, visitors: Visitors, parts: Parts) -> None:
    def from_job(event: gr.EventData, request: gr.Request) -> dict[Any, Any]:
        try:
            job = runner.view(str(event._data["job"]), visitors.owner(request)).job
        except PlaygroundError as exc:
            return {parts.recipe.notice: notice(language(request), exc)}
        return _restored(parts, runner.terms, job.request, language(request))

    def from_image(event: gr.EventData, request: gr.Request) -> dict[Any, Any]:
        found = json.loads(event._data["found"])
        restored = parse_request(found["request"]).request
        lost = [str(name) for name in found["not_restored"]]
        return _restored(parts, runner.terms, restored, language(request), lost)

    outputs = [*parts.controls.values(), parts.recipe.notice, parts.tabs]
    for trigger in (parts.live.restore, parts.gallery.restore):
        trigger(from_job, outputs=outputs, **DIRECT)
    parts.live.dropped(from_image, outputs=outputs, **DIRECT)


def _restored(
    parts: Parts,
    terms: Terms,
    request: GenerationRequest,
    tongue: Language,
    lost: Sequence[str] = (),
) -> dict[Any, Any]:
    permitted = terms.permitted(request)
    if permitted != request:
        lost = [*lost, "enable_safety_checker"]
    key = "restored.partly" if lost else "restored"
    words = tag("p", say(tongue, key, names=", ".join(lost)), class_="restored")
    return {
        **_fill(parts, control_values(permitted)),
        parts.recipe.notice: words,
        parts.tabs: gr.Tabs(selected="create"),
    }


def _fill(parts: Parts, values: dict[str, Any]) -> dict[Any, Any]:
    return {parts.controls[name]: value for name, value in values.items()}


def _usable_draft(draft: Any, terms: Terms) -> dict[str, Any]:
    """What the browser kept of the last visit, if it is whole and valid."""
    if not isinstance(draft, dict):
        return {}
    try:
        known = {**draft, "prompt": draft.get("prompt") or "-"}
        values = control_values(terms.permitted(parse_request(request_values(known)).request))
    except (PlaygroundError, KeyError, TypeError):
        return {}
    return values | {"prompt": draft.get("prompt") or ""}


def _word_from_the_start(notice: str | None) -> str:
    """What happened while the history was opened, such as a damaged database set aside."""
    return tag("p", notice, class_="notice", role="status") if notice else ""


def notice(tongue: Language, error: PlaygroundError) -> str:
    """An error beside the button, in words."""
    cause, hint = explain(tongue, error)
    return tag("div", tag("strong", cause), " ", hint, class_="notice", role="alert")
