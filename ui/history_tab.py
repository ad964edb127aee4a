"""The History tab: a gallery by date, with the recipe of each image."""

from __future__ import annotations

import asyncio
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import gradio as gr

from history.records import Job, State
from jobs import Runner
from ui.header import Render
from ui.live import actions
from ui.markup import Html, join, tag
from ui.texts import Language, explain, say
from ui.visitor import Visitors, language

ASSETS: Final = Path(__file__).parent / "assets"
PAGE: Final = 36


def history_gallery(runner: Runner, visitors: Visitors, lasts: bool) -> tuple[gr.HTML, Render]:
    """The gallery, whose script asks for pages and acts on cards, with what fills it at first.

    `lasts`: whether history outlives a restart of the server.
    """

    async def list_jobs(asked: dict[str, Any], request: gr.Request) -> dict[str, Any]:
        jobs = await asyncio.to_thread(
            runner.history.search,
            visitors.owner(request),
            str(asked.get("query", ""))[:500],
            limit=PAGE,
            before=asked.get("before") or None,
            favourites=bool(asked.get("favourites")),
        )
        return {
            "html": gallery(jobs, language(request), first=not asked.get("before")),
            "before": jobs[-1].id if len(jobs) == PAGE else None,
        }

    def render(request: gr.Request) -> str:
        return toolbar(language(request), lasts)

    component = gr.HTML(
        "",
        elem_id="gallery",
        apply_default_css=False,
        js_on_load=(ASSETS / "history.js").read_text("utf-8"),
        server_functions=[list_jobs, actions(runner, visitors)],
    )
    return component, render


def toolbar(tongue: Language, lasts: bool) -> str:
    """Search, favourites, everything to take away, and where the cards go."""
    search = say(tongue, "history.search")
    return join(
        tag(
            "div",
            tag("input", type="search", class_="history-search", placeholder=search,
                aria_label=search),
            tag("button", say(tongue, "history.favourites"), type="button",
                class_="history-favourites", aria_pressed="false"),
            tag("a", say(tongue, "history.zip"), href="./history.zip", download=True,
                class_="history-zip"),
            tag("span", say(tongue, "history.drop"), class_="note"),
            class_="history-bar",
        ),  # fmt: skip
        None if lasts else tag("p", say(tongue, "history.fleeting"), class_="history-fleeting"),
        tag("div", class_="history-days"),
        tag("button", say(tongue, "history.more"), type="button", class_="history-more",
            hidden=True),
        tag("div", tag("span", say(tongue, "history.deleted")),
            tag("button", say(tongue, "action.undo"), type="button", class_="history-undo"),
            class_="history-deleted", role="status", hidden=True),
    )  # fmt: skip


def gallery(jobs: list[Job], tongue: Language, *, first: bool) -> Html:
    """Cards by date, newest first."""
    if not jobs and first:
        return tag("p", say(tongue, "history.empty"), class_="history-empty")
    days = groupby(jobs, key=lambda job: job.created.astimezone().date().isoformat())
    return join(
        *(
            tag(
                "section",
                tag("h3", day),
                tag("div", *(card(job, tongue) for job in group), class_="cards"),
                data_day=day,
            )
            for day, group in days
        )
    )


def card(job: Job, tongue: Language) -> Html:
    """One job: its images, its recipe, what can be done with it."""
    return tag(
        "article",
        tag("div", *_pictures(job, tongue), class_="card-images", data_count=len(job.images)),
        tag("p", job.request.prompt, class_="card-prompt", title=job.request.prompt),
        tag("p", _facts(job, tongue), class_="card-facts"),
        tag("div", *_buttons(job, tongue), class_="card-actions"),
        class_="card",
        data_job=job.id,
    )


def _pictures(job: Job, tongue: Language) -> list[Html]:
    if not job.images:
        return [tag("span", _ending(job, tongue), class_="card-ending")]
    return [
        tag("a", tag("img", src=f"./media/{job.id}/{image.index}/preview", alt="", loading="lazy"),
            href=f"./media/{job.id}/{image.index}", target="_blank", rel="noopener",
            aria_label=say(tongue, "image.enlarge", number=image.index + 1))
        for image in job.images
    ]  # fmt: skip


def _ending(job: Job, tongue: Language) -> str:
    if job.error is not None and job.state is not State.CANCELLED:
        return explain(tongue, job.error)[0]
    return say(tongue, f"state.{job.state}")


def _facts(job: Job, tongue: Language) -> str:
    width, height = job.request.pixels
    facts = [f"{width} × {height}", f"seed {job.request.seed}"]
    facts.append(say(tongue, f"backend.{job.backend}"))
    facts += [f"{lora.path} × {lora.scale:g}" for lora in job.request.loras]
    return " · ".join(facts)


def _buttons(job: Job, tongue: Language) -> list[Html]:
    download = [
        tag("a", say(tongue, "action.download_one"), download=True,
            href=f"./media/{job.id}/{image.index}?download=1")
        for image in job.images[:1]
    ]  # fmt: skip
    return [
        tag("button", say(tongue, "action.restore"), type="button", data_action="restore"),
        *download,
        tag("button", "★", type="button", data_action="favourite",
            aria_pressed=str(job.favourite).lower(), aria_label=say(tongue, "action.favourite")),
        tag("button", say(tongue, "action.delete"), type="button", data_action="delete"),
    ]  # fmt: skip
