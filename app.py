"""Settings, backends, jobs, page, launch: the wiring of the playground and nothing else."""

from __future__ import annotations

import argparse
import os
import sys
from urllib.parse import urlsplit

# Gradio reads these when it is imported; it rebuilds a data frame after every event
# unless its interval is long.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "100000")

import gradio as gr  # noqa: E402

from backends.registry import available, choose  # noqa: E402
from generation.errors import PlaygroundError  # noqa: E402
from history.store import History  # noqa: E402
from jobs import Runner  # noqa: E402
from settings import Settings, help_text  # noqa: E402
from ui.page import Site, build_page  # noqa: E402
from ui.routes import routes  # noqa: E402
from ui.safety import middleware  # noqa: E402
from ui.texts import translations  # noqa: E402
from ui.theme import STYLE, head, theme  # noqa: E402
from ui.visitor import Visitors  # noqa: E402


def main() -> None:
    """Parse the command line and serve until interrupted."""
    parser = argparse.ArgumentParser(
        description="Z-Image Turbo LoRA Playground.",
        epilog=help_text(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args()
    try:
        serve(Settings())
    except PlaygroundError as exc:
        sys.exit(str(exc))


def serve(settings: Settings) -> None:
    """Open the data folder, take up unfinished jobs, show the page."""
    history = History.open(settings.data_dir, settings.database_url)
    runner = Runner(history, available(settings))
    visitors = Visitors(settings.mode)
    runner.start()
    try:
        site = Site(
            runner,
            visitors,
            backend=choose(settings, runner.backends),
            server_key=settings.fal_key is not None,
        )
        launch(build_page(site), settings, runner, visitors)
    finally:
        runner.close()
        history.close()


def launch(page: gr.Blocks, settings: Settings, runner: Runner, visitors: Visitors) -> None:
    """Gradio's launch with everything that it leaves open closed."""
    page.queue(default_concurrency_limit=None)
    page.launch(
        theme=theme(),
        css_paths=STYLE,
        head=head(),
        i18n=translations(),
        footer_links=["api"],
        max_threads=1000,
        max_file_size="64mb",
        run_history=False,
        enable_monitoring=False,
        show_error=False,
        ssr_mode=False,
        strict_cors=True,
        share=False,
        app_kwargs={
            "routes": routes(runner, visitors),
            "middleware": middleware(known_hosts(), public=visitors.public),
        },
    )


def known_hosts() -> frozenset[str]:
    """The names under which this page may be asked for; addresses always may."""
    root = urlsplit(os.environ.get("GRADIO_ROOT_PATH", "")).hostname
    named = (os.environ.get("GRADIO_SERVER_NAME"), os.environ.get("SPACE_HOST"), root)
    return frozenset({"localhost", *filter(None, named)})


if __name__ == "__main__":
    main()
