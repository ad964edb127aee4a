"""The three adapter slots of Create.

The component's value is JSON text, a list of `{"path", "scale", "on"}`: one list is
the truth, the page and the request are both made from it, so no value can end up
in another's row. What an adapter is comes from the registry, rendered here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import gradio as gr

from generation.errors import AdapterError, PlaygroundError
from generation.lora_file import pinned_address
from jobs import Runner
from lora_registry.cards import WeightFile
from lora_registry.inspection import Inspection
from lora_registry.registry import Registry
from lora_registry.verdicts import Fit, Verdict
from ui.markup import Html, join, tag
from ui.texts import Language, explain, say
from ui.visitor import Visitors, language

ASSETS: Final = Path(__file__).parent / "assets"
STEP: Final = 0.05
MAX_REFERENCE: Final = 2000  # characters, the limit of an adapter's path
GOOD: Final = (Fit.FITS,)
BAD: Final = (Fit.OTHER_FAMILY, Fit.NOT_AN_ADAPTER)
ON_HUB: Final = "https://huggingface.co"


def adapter_slots(registry: Registry, runner: Runner, visitors: Visitors) -> gr.HTML:
    """The component; its script holds the list and asks what each reference is."""

    def slot_frame(asked: dict[str, str], request: gr.Request) -> dict[str, Any]:
        able = runner.capabilities(asked["backend"], visitors.owner(request))
        return frame(language(request), able.lora_scale)

    return gr.HTML(
        "[]",
        html_template='<div class="slots"></div><div class="slot-add"></div>',
        elem_id="adapters",
        apply_default_css=False,
        js_on_load=(ASSETS / "slots.js").read_text("utf-8"),
        server_functions=[slot_frame, _look_at(registry, visitors)],
    )


def _look_at(registry: Registry, visitors: Visitors) -> Callable[..., Any]:
    async def look_at(asked: dict[str, str], request: gr.Request) -> dict[str, Any]:
        tongue, reference = language(request), str(asked["reference"])[:MAX_REFERENCE]
        try:
            found = await registry.inspect(reference, visitors.owner(request))
        except PlaygroundError as exc:
            cause, hint = explain(tongue, exc)
            return {"cause": cause, "hint": hint}
        return {
            "reference": found.reference,
            "key": f"{found.repo}/{found.file}" if found.repo else found.reference,
            "name": found.name,
            "html": about(found, str(asked["backend"]), tongue),
        }

    return look_at


def frame(tongue: Language, scale: tuple[float, float]) -> dict[str, Any]:
    """An empty slot, the line that adds one, and what the script says by itself."""
    low, high = scale
    words = ("full", "twice", "uploading")
    return {
        "slot": _controls(tongue, low, high),
        "add": _adding(tongue),
        "low": low,
        "high": high,
        "out_of_range": say(tongue, "slot.out_of_range", low=f"{low:g}", high=f"{high:g}"),
        **{word: catalogue_text(tongue, word) for word in words},
    }


def catalogue_text(tongue: Language, word: str) -> str:
    """A text whose placeholders the script fills."""
    return say(tongue, f"slot.{word}", name="{name}", percent="{percent}")


def _controls(tongue: Language, low: float, high: float) -> Html:
    scale = say(tongue, "field.scale.title")
    bounds: dict[str, Any] = {"min": low, "max": high, "step": STEP}
    moves = [
        tag("button", sign, type="button", data_act=act, title=say(tongue, f"slot.{act}"),
            aria_label=say(tongue, f"slot.{act}"))
        for act, sign in (("up", "↑"), ("down", "↓"), ("remove", "×"))
    ]  # fmt: skip
    return tag(
        "article",
        tag("div", class_="slot-about"),
        tag(
            "div",
            tag("input", type="checkbox", class_="slot-on", role="switch",
                title=say(tongue, "slot.on"), aria_label=say(tongue, "slot.on")),
            tag("input", type="range", class_="slot-range", **bounds, aria_label=scale,
                title=say(tongue, "slot.reset")),
            tag("input", type="number", class_="slot-number", step=STEP, aria_label=scale),
            tag("span", *moves, class_="slot-moves"),
            class_="slot-controls",
        ),
        tag("p", class_="slot-range-note", role="status", hidden=True),
        class_="slot",
    )  # fmt: skip


def _adding(tongue: Language) -> Html:
    return join(
        tag(
            "div",
            tag("input", type="text", class_="slot-paste", autocomplete="off", spellcheck="false",
                placeholder=say(tongue, "adapter.placeholder"),
                aria_label=say(tongue, "slot.paste")),
            tag("button", say(tongue, "slot.browse"), type="button", data_act="browse"),
            tag("label", say(tongue, "slot.file"), tag("input", type="file",
                accept=".safetensors", class_="slot-file"), class_="slot-file-label"),
            class_="slot-add-row",
        ),
        tag("p", class_="slot-found", role="status"),
    )  # fmt: skip


# -- what an adapter is --------------------------------------------------------


def about(found: Inspection, backend: str, tongue: Language) -> Html:
    """Picture, name, file, verdict and trigger words of one adapter."""
    return join(
        _picture(found),
        tag(
            "div",
            tag("div", _name(found), class_="slot-name"),
            _files(found, tongue),
            _verdict(found, backend, tongue),
            _moved(found, tongue),
            _problem(found.problem, tongue),
            _triggers(found, tongue),
            class_="slot-facts",
        ),
    )


def _picture(found: Inspection) -> Html:
    card = found.card
    if card is None or card.picture is None:
        return tag("span", class_="slot-picture")
    return tag("img", class_="slot-picture", src=card.picture, alt="", loading="lazy",
               referrerpolicy="no-referrer", data_mature=card.mature)  # fmt: skip


def _name(found: Inspection) -> Html:
    if found.repo is None:
        return tag("strong", found.name)
    link = tag("a", found.name, href=f"{ON_HUB}/{found.repo}", target="_blank", rel="noopener")
    return tag("strong", link, title=found.repo)


def _files(found: Inspection, tongue: Language) -> Html | None:
    if len(found.files) < 2 or found.repo is None or found.sha is None:
        return None
    repo, sha = found.repo, found.sha
    options = [
        tag("option", _file_label(file), value=pinned_address(repo, sha, file.name),
            selected=file.name == found.file)
        for file in found.files
    ]  # fmt: skip
    return tag("select", *options, class_="slot-select", aria_label=say(tongue, "slot.which"))


def _file_label(file: WeightFile) -> str:
    size = f"{file.size / 1e6:,.0f} MB" if file.size else ""
    parts = [file.name, size, (file.date or "")[:10]]
    return " · ".join(part for part in parts if part)


def _verdict(found: Inspection, backend: str, tongue: Language) -> Html:
    verdict = found.fit[backend]
    words = say(tongue, f"fit.{verdict.fit.name}")
    facts = _anatomy(found)
    summary = tag("summary", tag("span", words, class_="fit", data_fit=_grade(verdict)), facts)
    left_out = ", ".join(verdict.left_out[:12])
    return tag(
        "details",
        summary,
        tag("p", verdict.reason) if verdict.reason else None,
        tag("p", left_out, class_="slot-left-out") if left_out else None,
        class_="slot-verdict",
    )


def _grade(verdict: Verdict) -> str:
    if verdict.fit in GOOD:
        return "good"
    return "bad" if verdict.fit in BAD else "unsure"


def _anatomy(found: Inspection) -> str:
    made = found.anatomy
    if made is None:
        return ""
    rank = f" · rank {made.rank}" if made.rank else ""
    return f" · {made.kind}{rank} · {len(made.modules)} modules · {made.dtype}"


def _moved(found: Inspection, tongue: Language) -> Html | None:
    if found.moved_to is None:
        return None
    return tag("p", say(tongue, "slot.moved", name=found.moved_to), class_="note")


def _problem(problem: AdapterError | None, tongue: Language) -> Html | None:
    if problem is None:
        return None
    cause, hint = explain(tongue, problem)
    return tag("p", f"{cause} {hint}", class_="slot-problem")


def _triggers(found: Inspection, tongue: Language) -> Html | None:
    if not found.trigger_words:
        return None
    chips = [
        tag("button", word.text, type="button", class_="chip", data_trigger=word.text,
            aria_pressed="false", title=say(tongue, f"trigger.{word.source}"))
        for word in found.trigger_words
    ]  # fmt: skip
    return tag("div", *chips, class_="slot-chips", role="group",
               aria_label=say(tongue, "slot.triggers"))  # fmt: skip
