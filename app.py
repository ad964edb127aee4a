"""Settings, backends, jobs, page: the wiring of the playground and nothing else."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack

import zerogpu
from backends.registry import available, choose
from generation.errors import PlaygroundError
from history.store import History
from jobs import Runner
from jobs.logs import JobLog, configure
from jobs.metrics import Metrics
from jobs.telling import Listener
from lora_registry.registry import Registry
from settings import ON_SPACE, VERSION, Settings, help_text, read_settings
from ui.health import health_routes
from ui.launch import launch
from ui.owner import owner_routes
from ui.page import Page, Site, build_page
from ui.sessions import Sessions
from ui.sign_in import Client, SignIn
from ui.visitor import Visitors

log = logging.getLogger("playground")

demo: Page | None = None
"""The page once it is built, by the name under which Gradio's reload on a Space looks for it."""


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(
        description="Z-Image Turbo LoRA Playground.",
        epilog=help_text(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args()
    run()


def run() -> None:
    """Serve until interrupted; what is wrong with the settings is said in a sentence."""
    # A host that stops us gets the same clean end as Ctrl+C: posts in flight are awaited.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        serve(read_settings())
    except PlaygroundError as exc:
        sys.exit(str(exc))


def serve(settings: Settings) -> None:
    """Open the data folder, take up unfinished jobs, show the page."""
    global demo
    zerogpu.register()
    configure(settings.log, prompts=settings.log_prompts)
    data_dir, database_url = settings.data_dir, settings.database_url
    with ExitStack() as ends:
        history = ends.enter_context(History.open(data_dir, database_url, app_version=VERSION))
        if history.notice:
            log.warning(history.notice)
        # In public, strangers would read the owner's private adapters by it.
        token = settings.hf_token if settings.mode == "private" else None
        # Nor does what the owner's token once copied lie where a public page looks.
        adapters = "adapters" if settings.mode == "private" else "public-adapters"
        if settings.mode == "public" and settings.fal_key:
            log.info(_announced(settings))
        registry = Registry(data_dir / adapters, token=token, hub=settings.hub)
        ends.callback(registry.close)
        told = listeners(settings, history, ends)
        runner = Runner(history, available(settings), registry, settings.terms(), told)
        sign_in = signing_in(settings)
        visitors = Visitors(settings.mode, Sessions() if sign_in else None)
        runner.start()
        ends.callback(runner.close)
        first = choose(settings.backend, runner.backends)
        runner.backends[first].start()
        has_key = settings.fal_key is not None
        site = Site(runner, registry, visitors, first, has_key, settings.keeps_history)
        demo = build_page(site)
        operating = [
            *health_routes(runner, first, VERSION),
            *owner_routes(runner, settings.owner_token, public=visitors.public),
        ]
        launch(demo, runner, registry, visitors, sign_in, operating=operating)


def listeners(settings: Settings, history: History, ends: ExitStack) -> Sequence[Listener]:
    """Who is told what happens to jobs: the log, and the metrics if they have a port."""
    logged = JobLog(prompts=settings.log_prompts)
    if settings.metrics_port is None:
        return [logged]
    metrics = Metrics(history, settings.terms().budget)
    try:
        ends.callback(metrics.serve(settings.metrics_host, settings.metrics_port))
    except OSError as exc:
        where = f"{settings.metrics_host}:{settings.metrics_port}"
        sys.exit(f"The metrics can't be served on {where}: {exc.strerror or exc}.")
    return [logged, metrics]


def _announced(settings: Settings) -> str:
    """What strangers may spend, said at every start: nobody should find out by the bill."""
    return (
        f"Visitors may spend ${settings.daily_budget} a day on FAL_KEY, all together "
        f"(PLAYGROUND_DAILY_BUDGET), each {settings.visitor_limits} (PLAYGROUND_VISITOR_LIMITS)."
    )


def signing_in(settings: Settings) -> SignIn | None:
    """Where visitors are strangers, and a Space gave us what it takes."""
    name, secret = settings.oauth_client_id, settings.oauth_client_secret
    if settings.mode == "private" or name is None or secret is None:
        return None
    return SignIn(Client(name, secret, settings.oauth_scopes, settings.openid_provider_url))


if __name__ == "__main__":
    main()
elif __name__ == "app" and ON_SPACE:
    run()  # imported by somebody whose own `demo.launch()` would show a page without its look
