"""The page: its parts, side by side. What happens on a click is in `ui/wiring.py`."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr
from gradio.data_classes import BlocksConfigDict

from jobs import Runner
from lora_registry.registry import Registry
from ui import wiring
from ui.adapters_tab import adapter_grid
from ui.api import add_endpoints
from ui.create import build_recipe
from ui.header import account
from ui.history_tab import history_gallery
from ui.live import live_stage
from ui.parts import Parts
from ui.slots import adapter_slots
from ui.texts import translations
from ui.visitor import Visitors

DRAFT = "z-image-playground-draft"


@dataclass(frozen=True)
class Site:
    """Where the page runs: whose jobs, and which backend at first."""

    runner: Runner
    registry: Registry
    visitors: Visitors
    backend: str
    server_key: bool
    keeps_history: bool = True


class Page(gr.Blocks):
    """Blocks whose Gradio API may carry adapters, `{"path": …}`, in its answers.

    gradio_client downloads any dictionary with a path, unless the server speaks
    sse_v2.1: then only what is marked as a file. The messages are the same.
    """

    def get_config_file(self) -> BlocksConfigDict:
        """Gradio's configuration, with the older name of the same protocol."""
        config = super().get_config_file()
        config["protocol"] = "sse_v2.1"
        return config


def build_page(site: Site) -> Page:
    """The whole page, ready to launch."""
    i18n = translations()
    with Page(
        title="Z-Image Turbo LoRA Playground",
        analytics_enabled=False,
        delete_cache=(3600, 24 * 3600),
        fill_width=True,
    ) as page:
        with gr.Row(elem_id="header"):
            gr.HTML("<h1>Z-Image Turbo <span>LoRA Playground</span></h1>", elem_id="brand")
            backend = _backend_switch(site, i18n)
            bar, render_account = account(site.runner, site.visitors, site.server_key)
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab(i18n("tab.create"), id="create"), gr.Row(elem_id="workbench"):
                with gr.Column(elem_id="recipe", scale=0, min_width=360):
                    status = gr.HTML("", elem_id="backend-status", apply_default_css=False)
                    recipe = build_recipe(
                        i18n,
                        site.runner.capabilities(site.backend, owner=""),
                        lambda: adapter_slots(site.registry, site.runner, site.visitors),
                        site.runner.terms,
                    )
                with gr.Column(elem_id="light-table", scale=1, min_width=320):
                    live = live_stage(site.runner, site.visitors)
            with gr.Tab(i18n("tab.adapters"), id="adapters"):
                finder = adapter_grid(site.registry, site.runner.terms)
            with gr.Tab(i18n("tab.history"), id="history"):
                gallery, render_toolbar = history_gallery(
                    site.runner, site.visitors, site.keeps_history
                )
        draft = gr.BrowserState({}, storage_key=DRAFT, secret=DRAFT)  # nothing secret is in it
        wiring.connect(
            site.runner,
            site.visitors,
            i18n,
            Parts(
                page,
                backend,
                bar,
                render_account,
                status,
                recipe,
                live,
                gallery,
                render_toolbar,
                finder,
                tabs,
                draft,
            ),
        )
        add_endpoints(site.runner, site.registry, site.visitors, site.backend)
    assert isinstance(page, Page)
    return page


def _backend_switch(site: Site, i18n: gr.I18n) -> gr.Radio:
    names = {"hosted": "fal", "local": "Local GPU", "demo": "Demo"}
    return gr.Radio(
        [(names[name], name) for name in site.runner.backends],
        value=site.backend,
        label=i18n("backend"),
        elem_id="backend",
    )
