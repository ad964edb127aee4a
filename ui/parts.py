"""The components of the page that events connect."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr
from gradio.components import Component

from ui.create import Recipe
from ui.header import Render


@dataclass(frozen=True)
class Parts:
    """Laid out in `ui/page.py`, connected in `ui/wiring.py`."""

    page: gr.Blocks
    backend: gr.Radio
    account: gr.HTML
    render_account: Render
    status: gr.HTML
    recipe: Recipe
    live: gr.HTML
    gallery: gr.HTML
    render_toolbar: Render
    finder: gr.HTML
    tabs: gr.Tabs
    draft: gr.BrowserState

    @property
    def controls(self) -> dict[str, Component]:
        """The request's controls by name."""
        return self.recipe.controls
