"""The right side of Create: a component that listens to the runner by itself.

Its script asks `changes` and waits there, so one message goes out per change
of a job, and a lost connection is simply asked again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import gradio as gr

from generation.errors import PlaygroundError
from generation.parsing import Parsed
from generation.pricing import format_usd
from jobs import JobView, Runner
from ui import stage
from ui.markup import join, tag
from ui.texts import Language, explain
from ui.visitor import Visitors, language

ASSETS: Final = Path(__file__).parent / "assets"
WAIT: Final = 25.0  # seconds, below what proxies cut
STRIP: Final = 12  # jobs in the strip
SKELETON: Final = join(
    tag("div", tag("div", class_="stage"), tag("div", class_="strip", role="group"), class_="live"),
    tag("dialog", class_="zoom"),
)


def live_stage(runner: Runner, visitors: Visitors) -> gr.HTML:
    """The stage, the strip and the actions on them."""
    return gr.HTML(
        str(SKELETON),
        elem_id="live",
        apply_default_css=False,
        js_on_load=(ASSETS / "stage.js").read_text("utf-8"),
        server_functions=[_changes(runner, visitors), actions(runner, visitors)],
    )


def _changes(runner: Runner, visitors: Visitors) -> Callable[..., Any]:
    async def changes(asked: dict[str, Any], request: gr.Request) -> dict[str, Any]:
        owner, tongue = visitors.owner(request), language(request)
        since = int(asked["since"]) if asked.get("epoch") == runner.board.epoch else 0
        if since:
            views = await runner.board.changes(owner, since, WAIT)
        else:
            views = await asyncio.to_thread(_latest, runner, owner)
        spent = await asyncio.to_thread(runner.history.total_cost, owner, _visit(asked))
        return {
            "epoch": runner.board.epoch,
            "since": max([since or 1, *(view.version for view in views)]),
            "jobs": [_card(view, tongue) for view in views],
            "empty": stage.empty(tongue) if not since else None,
            "spent": format_usd(spent),
        }

    return changes


def _latest(runner: Runner, owner: str) -> list[JobView]:
    """What a page shows that has just been opened, oldest first."""
    jobs = runner.history.search(owner, limit=STRIP)
    return [runner.view(job.id, owner) for job in reversed(jobs)]


def _visit(asked: dict[str, Any]) -> datetime:
    return datetime.fromtimestamp(float(asked["visit"]) / 1000, UTC)


def _card(view: JobView, tongue: Language) -> dict[str, Any]:
    return {
        "id": view.job.id,
        "panel": stage.job_panel(view, tongue),
        "thumb": stage.thumbnail(view, tongue),
        "settled": view.settled,
    }


def actions(runner: Runner, visitors: Visitors) -> Callable[..., Any]:
    """What a button on a job does; answers with nothing, or with the error in words."""

    def stop(job_id: str, owner: str) -> None:
        runner.cancel(job_id, owner)

    def again(job_id: str, owner: str) -> None:
        job = runner.view(job_id, owner).job
        runner.submit(Parsed(job.request), owner, job.backend)

    def vary(job_id: str, owner: str) -> None:
        job = runner.view(job_id, owner).job
        request = job.request.model_copy(update={"seed": None})
        runner.submit(Parsed(request), owner, job.backend)

    def favourite(job_id: str, owner: str) -> None:
        view = runner.view(job_id, owner)
        on = not view.job.favourite
        runner.history.favourite(job_id, owner, on)
        runner.board.show(view, job=replace(view.job, favourite=on))

    known = {
        "stop": stop,
        "check": runner.check_again,
        "dismiss": runner.dismiss,
        "retry": again,
        "vary": vary,
        "favourite": favourite,
        "delete": runner.history.delete,
        "undelete": runner.history.restore,
    }

    def act(asked: dict[str, str], request: gr.Request) -> dict[str, str]:
        try:
            known[asked["action"]](asked["job"], visitors.owner(request))
        except PlaygroundError as exc:
            cause, hint = explain(language(request), exc)
            return {"cause": cause, "hint": hint}
        return {}

    return act
