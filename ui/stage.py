"""A job as the large thing on the page: its place, its live state, its images, its receipt."""

from __future__ import annotations

from datetime import UTC, datetime

from generation.events import Queued, Running
from generation.pricing import estimate_cost, format_usd
from generation.request import GenerationRequest
from history.records import State
from jobs import Fetching, JobView
from ui.buttons import button
from ui.endings import ending, message
from ui.markup import Html, join, tag
from ui.receipt import code_panel, receipt
from ui.texts import Language, say

EXAMPLES = ("lighthouse", "ceramics", "alley")


def empty(language: Language) -> Html:
    """The first visit: what this is, and three prompts that run with one click."""
    cards = [
        tag(
            "button",
            tag("span", say(language, f"example.{name}"), class_="example-prompt"),
            tag("span", say(language, "example.run"), class_="example-run"),
            type="button",
            class_="example",
            data_prompt=say(language, f"example.{name}"),
        )
        for name in EXAMPLES
    ]
    return tag(
        "div",
        tag("h2", say(language, "empty.title")),
        tag("p", say(language, "empty.hint")),
        tag("div", *cards, class_="examples"),
        class_="empty",
    )


def job_panel(view: JobView, language: Language) -> Html:
    """Everything about one job, for the stage."""
    job = view.job
    return tag(
        "article",
        _frame(view, language),
        _actions(view, language),
        receipt(job.receipt, job.request, language) if job.receipt else None,
        code_panel(job.request, language) if job.state.is_final else None,
        class_="job",
        data_job=job.id,
        data_state=job.state,
    )


def thumbnail(view: JobView, language: Language) -> Html:
    """A job in the strip below the stage."""
    job = view.job
    if job.images:
        inside = tag("img", src=f"./media/{job.id}/0/preview", alt="", loading="lazy")
    else:
        inside = tag("span", _state_word(view, language), class_="thumb-word")
    return tag(
        "button",
        inside,
        type="button",
        class_="thumb",
        data_show=job.id,
        data_state=job.state,
        aria_label=job.request.prompt[:120],
        title=job.request.prompt[:300],
    )


# -- the frame -----------------------------------------------------------------


def _frame(view: JobView, language: Language) -> Html:
    job = view.job
    width, height = job.request.pixels
    if view.unsaved:
        inside = _unsaved(view, language)
    elif job.images:
        inside = join(*(_image(view, image.index, language) for image in job.images))
    elif view.settled:
        inside = ending(view, language)
    else:
        inside = _making(view, language)
    return tag(
        "div",
        inside,
        class_="frame",
        data_count=len(job.images) or job.request.num_images,
        style=f"--ratio:{width}/{height};--width:{width}px",
    )


def _image(view: JobView, index: int, language: Language) -> Html:
    image = view.job.images[index]
    if image.flagged:
        return _filtered(language)
    picture = tag(
        "img",
        src=f"./media/{view.job.id}/{index}",
        width=image.width,
        height=image.height,
        alt=view.job.request.prompt[:300],
        decoding="async",
    )
    name = say(language, "image.enlarge", number=index + 1)
    return tag("button", picture, type="button", class_="picture", data_zoom=index, aria_label=name)


def _unsaved(view: JobView, language: Language) -> Html:
    """Images that are here while the disk doesn't take them."""
    flags = view.job.result.has_nsfw_concepts if view.job.result else ()
    pictures = [
        _filtered(language)
        if index < len(flags) and flags[index]
        else tag("img", src=f"./media/{view.job.id}/{index}", alt="")
        for index in range(len(view.unsaved))
    ]
    notice = message(view.problem, language) if view.problem else None
    return join(*pictures, notice)


def _filtered(language: Language) -> Html:
    return tag(
        "div",
        tag("strong", say(language, "filtered.title")),
        tag("span", say(language, "filtered.hint")),
        class_="filtered",
    )


def _making(view: JobView, language: Language) -> Html:
    live, count = view.live, view.job.request.num_images
    preview = live.preview is not None if isinstance(live, Running) else False
    source = f"./media/{view.job.id}/live?v={view.version}"
    tiles = [
        tag("div", tag("img", src=source, alt="") if preview and not n else None, class_="tile")
        for n in range(count)
    ]
    return join(*tiles, _status(view, language))


def _status(view: JobView, language: Language) -> Html:
    elapsed = max(0.0, (datetime.now(UTC) - view.job.created).total_seconds())
    return tag(
        "div",
        tag("span", _state_word(view, language), class_="status-word", role="status"),
        _progress(view),
        tag(
            "span",
            "",
            class_="elapsed",
            data_elapsed=f"{elapsed:.1f}",
            data_left=say(language, "state.left", seconds="{}"),
        ),
        _stop(view, language),
        class_="status",
    )


def _state_word(view: JobView, language: Language) -> str:
    job, live = view.job, view.live
    if view.fetching is not None and not view.cancelling:
        return _fetching(view.fetching, language)
    if view.cancelling and not view.settled:
        return say(language, "state.cancelling")
    if view.unconfirmed and not view.settled:
        return say(language, "state.unconfirmed")
    if job.state in (State.INTENT, State.SUBMITTING) and live is None:
        return say(language, "state.sending")
    if isinstance(live, Queued):
        key = "state.queued" if live.position else "state.next"
        return say(language, key, position=live.position)
    if isinstance(live, Running) and live.total_steps:
        return say(language, "state.step", step=live.step, total=live.total_steps)
    if isinstance(live, Running) and live.logs and job.handle is None:
        return live.logs[-1][:80]  # work on this machine says itself what it is doing
    return say(language, f"state.{job.state}")


def _fetching(fetching: Fetching, language: Language) -> str:
    name = fetching.name.rstrip("/").rpartition("/")[2][:40]
    if fetching.percent is None:
        return say(language, "state.fetching", name=name)
    return say(language, "state.fetching.part", name=name, percent=fetching.percent)


def _progress(view: JobView) -> Html | None:
    live = view.live
    if isinstance(live, Running) and live.total_steps:
        return tag("progress", max=live.total_steps, value=live.step or 0)
    return tag("progress", max=1) if not view.settled else None


def _stop(view: JobView, language: Language) -> Html | None:
    if view.cancelling or view.job.state is State.COMPLETED:
        return None
    return button("stop", say(language, "action.stop"), keys="Esc")


# -- actions -------------------------------------------------------------------


def _actions(view: JobView, language: Language) -> Html | None:
    if not view.job.images:
        return None
    job = view.job
    downloads = [
        tag(
            "a",
            say(language, "action.download", number=image.index + 1)
            if len(job.images) > 1
            else say(language, "action.download_one"),
            href=f"./media/{job.id}/{image.index}?download=1",
            download=image.file.rsplit("/", 1)[-1],
            class_="action",
        )
        for image in job.images
        if not image.flagged
    ]
    return tag(
        "div",
        *downloads,
        button("restore", say(language, "action.restore")),
        button("vary", say(language, "action.vary", price=_price(job.request, view, language))),
        button("favourite", say(language, "action.favourite"), pressed=job.favourite),
        class_="actions",
    )


def _price(request: GenerationRequest, view: JobView, language: Language) -> str:
    billed = view.job.receipt is not None and view.job.receipt.cost_usd > 0
    return format_usd(estimate_cost(request).total) if billed else say(language, "free")
