"""What was really done, and how to do it again in code."""

from __future__ import annotations

import re
from typing import Final

from generation.pricing import format_usd
from generation.request import GenerationRequest
from generation.result import AppliedLora, Receipt
from generation.snippets import SNIPPETS
from ui.markup import Html, tag
from ui.texts import Language, say

_ON_HUB: Final = re.compile(r"https://huggingface\.co/([^/]+/[^/]+)/resolve/")


def receipt(made: Receipt, request: GenerationRequest, language: Language) -> Html:
    """The receipt as a list of terms; warnings first, since they change how the rest reads."""
    size = made.image_size
    facts = [
        ("receipt.seed", tag("code", made.seed, data_copy=made.seed)),
        ("receipt.cost", _cost(made, language)),
        ("receipt.size", f"{size['width']} × {size['height']} px"),
        ("receipt.steps", str(made.num_inference_steps)),
        ("receipt.acceleration", made.acceleration),
        ("receipt.backend", say(language, f"backend.{made.backend}")),
        ("receipt.time", _timings(made.timings)),
        ("receipt.request_id", tag("code", made.request_id) if made.request_id else None),
    ]
    terms = [_term(say(language, key), value) for key, value in facts if value]
    adapters = [_adapter(lora, language) for lora in made.loras]
    return tag(
        "section",
        tag("p", request.prompt, class_="receipt-prompt"),
        _expanded(made, language),
        *(tag("p", warning, class_="warning") for warning in made.warnings),
        tag("dl", *terms, *adapters),
        _ignored(made, language),
        class_="receipt",
        aria_label=say(language, "receipt.title"),
    )


def code_panel(request: GenerationRequest, language: Language) -> Html:
    """The request in four languages, folded."""
    blocks = [
        tag(
            "div",
            tag("h4", name),
            tag("button", say(language, "action.copy"), type="button", class_="copy"),
            tag("pre", tag("code", write(request))),
            class_="snippet",
        )
        for name, write in SNIPPETS.items()
    ]
    title = tag("summary", say(language, "code.title"))
    return tag("details", title, *blocks, class_="code")


def _term(name: str, value: str) -> Html:
    return tag("div", tag("dt", name), tag("dd", value))


def _cost(made: Receipt, language: Language) -> str:
    if not made.cost_usd:
        return say(language, "receipt.free")
    amount = format_usd(made.cost_usd)
    return say(language, "receipt.estimate", amount=amount) if made.cost_is_estimate else amount


def _timings(timings: dict[str, float]) -> str:
    return " · ".join(f"{stage} {seconds:.2f} s" for stage, seconds in timings.items())


def _adapter(lora: AppliedLora, language: Language) -> Html:
    words = {True: "receipt.applied", False: "receipt.not_applied", None: "receipt.sent"}
    key = words[lora.applied]
    shown = tag("span", f"{_adapter_name(lora)} × {lora.scale:g}", title=lora.path)
    return _term(say(language, key), shown)


def _adapter_name(lora: AppliedLora) -> str:
    """Who made it and which file it is; the whole address is in the title."""
    if lora.file is None:
        return lora.path
    repo = _ON_HUB.match(lora.path)
    return f"{repo[1]} · {lora.file}" if repo else lora.file


def _expanded(made: Receipt, language: Language) -> Html | None:
    if made.expanded_prompt is None:
        return None
    title = tag("summary", say(language, "receipt.expanded"))
    return tag("details", title, tag("p", made.expanded_prompt))


def _ignored(made: Receipt, language: Language) -> Html | None:
    if not made.ignored:
        return None
    names = ", ".join(say(language, f"field.{name}.title") for name in made.ignored)
    return tag("p", say(language, "receipt.ignored", fields=names), class_="note")
