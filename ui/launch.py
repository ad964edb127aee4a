"""Gradio's launch, with everything that it leaves open closed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import gradio as gr
from starlette.middleware import Middleware
from starlette.routing import Route

from jobs import Runner
from lora_registry.registry import Registry
from ui.apart import Apart
from ui.early import EarlyScript
from ui.entrance import entrance
from ui.routes import routes
from ui.safety import middleware
from ui.sign_in import SignIn
from ui.texts import translations
from ui.theme import ASSETS, STYLES, theme
from ui.visitor import Visitors

MAX_THREADS: Final = 1000  # also caps Gradio's async handlers, which here only wait
MAX_WAITING: Final = 10_000  # events; not said, Gradio allows a single one on ZeroGPU


def launch(
    page: gr.Blocks,
    runner: Runner,
    registry: Registry,
    visitors: Visitors,
    sign_in: SignIn | None = None,
    *,
    operating: Sequence[Route] = (),
) -> None:
    """Serve the page until the process is interrupted; `operating` are routes for its keeper."""
    doors = entrance(sign_in, runner, registry, visitors, public_address()) if sign_in else []
    page.queue(default_concurrency_limit=None, max_size=MAX_WAITING)
    page.launch(
        theme=theme(),
        css_paths=STYLES,
        favicon_path=ASSETS / "favicon.png",
        i18n=translations(),
        footer_links=["api"],
        max_threads=MAX_THREADS,
        max_file_size="64mb",
        run_history=False,
        enable_monitoring=False,
        show_error=False,
        ssr_mode=False,
        strict_cors=True,
        share=False,
        pwa=False,
        app_kwargs={
            "routes": [*routes(runner, registry, visitors), *doors, *operating],
            "middleware": [
                *middleware(known_hosts(), public=visitors.public),
                *([Middleware(Apart, visitors=visitors)] if visitors.public else []),
                Middleware(EarlyScript),
            ],
        },
    )


def known_hosts() -> frozenset[str]:
    """The names under which this page may be asked for; bare addresses always may."""
    root = urlsplit(os.environ.get("GRADIO_ROOT_PATH", "")).hostname
    spaces = os.environ.get("SPACE_HOST", "").split(",")  # with a domain of its own there are two
    named = (os.environ.get("GRADIO_SERVER_NAME"), root, *map(str.strip, spaces))
    return frozenset({"localhost", *filter(None, named)})


def public_address() -> str | None:
    """Where visitors see this page, if we are told: a Space's own host, not a domain laid over it,
    is what the Hub sends people back to."""
    space = os.environ.get("SPACE_HOST", "").split(",")[0].strip()
    if space:
        return f"https://{space}"
    root = os.environ.get("GRADIO_ROOT_PATH", "").rstrip("/")
    return root if urlsplit(root).netloc else None
