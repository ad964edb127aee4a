"""The left side of Create: every field of the request, arranged by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import gradio as gr
from gradio.components import Component

from backends.base import Capabilities
from generation.allowance import PRIVATE, Terms
from generation.request import MAX_PROMPT, PRESET_PIXELS, ImageSizePreset
from ui.controls import control
from ui.markup import tag

ASSETS: Final = Path(__file__).parent / "assets"
ADVANCED: Final = (
    "num_inference_steps",
    "acceleration",
    "output_format",
    "enable_prompt_expansion",
    "enable_safety_checker",
    "sync_mode",
)
CUSTOM: Final = ("W × H", "custom")


@dataclass(frozen=True)
class Recipe:
    """The controls by name, and the buttons beside them.

    Names are the request's fields, but for what the page splits: `image_size`
    is a preset or "custom" with `width` and `height`; `loras` is the value of
    the slots, see `ui/slots.py`.
    """

    controls: dict[str, Component]
    generate: gr.Button
    allowance: gr.HTML
    notice: gr.HTML
    dice: gr.Button
    lock: gr.Button


def build_recipe(
    i18n: gr.I18n, able: Capabilities, slots: Callable[[], gr.HTML], terms: Terms = PRIVATE
) -> Recipe:
    """Lay out the controls inside the column that is being built, for a backend.

    `slots` makes the adapters' component where it stands.
    """
    controls: dict[str, Component] = {}
    controls["prompt"] = control(
        "prompt",
        i18n,
        lines=5,
        max_lines=12,
        info=None,
        placeholder=i18n("prompt.placeholder"),
        autofocus=True,
    )
    gr.HTML(
        str(tag("output", data_limit=MAX_PROMPT)),
        elem_id="counter",
        js_on_load=(ASSETS / "counter.js").read_text("utf-8"),
    )
    gr.HTML(str(i18n("field.loras.title")), elem_id="adapters-title")
    controls["loras"] = slots()
    _sizes(controls, i18n)
    controls["num_images"] = control("num_images", i18n, info=None)
    with gr.Row(elem_id="seed-row"):
        controls["seed"] = control(
            "seed", i18n, info=None, max_lines=1, min_width=80, placeholder=i18n("seed.random")
        )
        dice = gr.Button(i18n("seed.dice"), elem_id="dice", size="sm", min_width=0, scale=0)
        lock = gr.Button(i18n("seed.keep"), elem_id="lock", size="sm", min_width=0, scale=0)
    with gr.Accordion(i18n("advanced"), open=False, elem_id="advanced"):
        for name in ADVANCED:
            controls[name] = control(name, i18n, **ability(name, i18n, able, terms))
    with gr.Column(elem_id="go"):
        notice = gr.HTML("", elem_id="notice")
        generate = gr.Button(i18n("action.generate"), variant="primary", elem_id="generate")
        public = terms.budget is not None
        allowance = gr.HTML("", elem_id="allowance", apply_default_css=False, visible=public)
    return Recipe(controls, generate, allowance, notice, dice, lock)


def ability(name: str, i18n: gr.I18n, able: Capabilities, terms: Terms = PRIVATE) -> dict[str, Any]:
    """What a backend can't do, or the owner doesn't allow, stays on the page, off, with the
    reason; what a backend does in a way of its own has a note."""
    if name == "enable_safety_checker" and not terms.unchecked:
        return {"interactive": False, "info": str(i18n("not_allowed.enable_safety_checker"))}
    on = name in able.fields
    note = able.notes.get(name)
    key = f"note.{name}.{note}" if note else f"field.{name}.description"
    return {"interactive": on, "info": str(i18n(key if on else "unable"))}


def _sizes(controls: dict[str, Component], i18n: gr.I18n) -> None:
    """Six ratios as pictures (drawn by the style sheet), and a size of one's own."""
    choices = [(_size_label(preset), preset) for preset in get_args(ImageSizePreset)]
    controls["image_size"] = gr.Radio(
        [*choices, CUSTOM],
        value="landscape_4_3",
        label=i18n("field.image_size.title"),
        elem_id="image-size",
    )
    with gr.Row(elem_id="custom-size"):
        for name in ("width", "height"):
            controls[name] = gr.Number(
                1024, label=i18n(f"field.{name}.title"), minimum=1, precision=0, step=16,
                elem_id=name,
            )  # fmt: skip


def _size_label(preset: ImageSizePreset) -> str:
    width, height = PRESET_PIXELS[preset]
    return f"{width} × {height}"
