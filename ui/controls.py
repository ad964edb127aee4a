"""Gradio controls out of the request's fields.

What a control is follows from the field's type and bounds; where it stands is
decided in `ui/create.py`.
"""

from __future__ import annotations

from typing import Any, Final, Literal, get_args, get_origin

import gradio as gr
from gradio.components import Component
from pydantic.fields import FieldInfo

from generation.parsing import bounds
from generation.request import GenerationRequest

JS_SAFE: Final = 2**53  # above this a browser rounds numbers, so they are text
FEW: Final = 5  # so many values are quicker to pick side by side than on a slider


def control(name: str, i18n: gr.I18n, **options: Any) -> Component:
    """The control of one field of GenerationRequest.

    Raises:
        TypeError: the field's type has no control of its own and wants one made by hand.
    """
    field = GenerationRequest.model_fields[name]
    common = {
        "label": i18n(f"field.{name}.title"),
        "info": i18n(f"field.{name}.description"),
        "elem_id": name.replace("_", "-"),
        **options,
    }
    return _component(field, common)


def _component(field: FieldInfo, common: dict[str, Any]) -> Component:
    limits, kind = bounds(field), field.annotation
    if kind is bool:
        return gr.Checkbox(value=field.default, **common)
    if get_origin(kind) is Literal:
        return gr.Radio(choices=list(get_args(kind)), value=field.default, **common)
    if kind is int and limits["le"] - limits["ge"] < FEW:
        choices = list(range(limits["ge"], limits["le"] + 1))
        return gr.Radio(choices=choices, value=field.default, **common)
    if kind is int:
        options: dict[str, Any] = {"step": 1, "buttons": []}
        return gr.Slider(limits["ge"], limits["le"], field.default, **options, **common)
    if kind is str or limits.get("le", 0) >= JS_SAFE:
        text = "" if field.is_required() else field.default or ""
        return gr.Textbox(value=text, **common)
    raise TypeError(f"no control for a field of type {kind!r}; make one by hand")
