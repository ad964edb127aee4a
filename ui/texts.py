"""Every text of the page, in English and Chinese.

Static labels are translated in the browser by `gr.I18n`; what the server
renders (live state, receipts, errors) is translated here, by the same keys.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import gradio as gr

from generation.errors import PlaygroundError
from generation.request import GenerationRequest, ImageSize, LoraRef

Language = Literal["en", "zh"]
LANGUAGES: Final[tuple[Language, ...]] = ("en", "zh")
_FOLDER: Final = Path(__file__).parent / "locales"


@cache
def catalogue(language: Language) -> dict[str, str]:
    """All texts of a language by key; the English of fields and errors is their own."""
    written: dict[str, str] = json.loads((_FOLDER / f"{language}.json").read_text("utf-8"))
    return {**_declared(), **written}


def say(language: Language, key: str, **facts: Any) -> str:
    """One text, with `facts` filled in."""
    return catalogue(language)[key].format(**facts)


def explain(language: Language, error: PlaygroundError) -> tuple[str, str]:
    """An error's cause and next step."""
    name, texts = type(error).__name__, catalogue(language)
    cause = texts[f"error.{name}.message"].format(**error.facts)
    return cause, texts[f"error.{name}.hint"].format(**error.facts)


def language_of(accepted: str | None) -> Language:
    """The first language of an Accept-Language header that the page speaks."""
    for part in (accepted or "").split(","):
        name = part.split(";")[0].strip().lower()[:2]
        for language in LANGUAGES:
            if name == language:
                return language
    return "en"


def translations() -> gr.I18n:
    """The catalogue as Gradio wants it; zh-CN is what browsers send."""
    chinese = catalogue("zh")
    return gr.I18n(en=catalogue("en"), **{"zh": chinese, "zh-CN": chinese, "zh-TW": chinese})


def _declared() -> dict[str, str]:
    """English that is written where the thing itself is: fields and errors."""
    texts = {}
    for model in (GenerationRequest, ImageSize, LoraRef):
        for name, field in model.model_fields.items():
            texts[f"field.{name}.title"] = field.title or name
            texts[f"field.{name}.description"] = field.description or ""
    for kind in PlaygroundError.tree():
        texts[f"error.{kind.__name__}.message"] = kind.message
        texts[f"error.{kind.__name__}.hint"] = kind.hint
    return texts
