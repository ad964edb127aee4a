"""What `/owner` shows: spend, jobs, failures and limits, and nobody's prompt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from decimal import ROUND_FLOOR, Decimal
from typing import Any, Final

from generation.allowance import Terms, duration
from generation.errors import PlaygroundError
from generation.pricing import format_usd
from history.overview import Failure, OpenJob
from history.records import State
from jobs import Runner
from ui.markup import Content, Html, join, tag
from ui.texts import Language, catalogue, explain, say
from ui.theme import ASSETS, VARIABLES

SCRIPT: Final = (ASSETS / "owner.js").read_text("utf-8")
REFRESH: Final = 15  # seconds
SPANS: Final = (1, 7, 30)  # days
OPEN_SHOWN: Final = 20
FAILURES_SHOWN: Final = 10
_STYLE: Final = VARIABLES.read_text("utf-8") + (ASSETS / "owner.css").read_text("utf-8")

Counts = Mapping[tuple[str, State], int]


@dataclass(frozen=True, slots=True)
class Seen:
    """The playground at one moment. `spent` is US dollars by days, today included."""

    now: datetime
    terms: Terms
    spent: Mapping[int, Decimal]
    held: Decimal
    stopped: bool
    open: Counts
    ended: Counts
    jobs: list[OpenJob]
    failures: list[Failure]
    workers: Mapping[str, int]


def look(runner: Runner) -> Seen:
    """What the owner is to see now.

    Raises:
        StorageError: the database can't be read.
    """
    now, overview, spending = datetime.now(UTC), runner.history.overview, runner.history.spending
    public = runner.terms.budget is not None
    midnight = datetime.combine(now.date(), time(), UTC)
    spent = {
        days: spending.taken(days, now)
        if public  # what is the owner's; receipts count visitors' own keys too
        else Decimal(str(overview.spent_since(midnight - timedelta(days=days - 1))))
        for days in SPANS
    }
    return Seen(
        now,
        runner.terms,
        spent,
        spending.today(now).held_usd,
        spending.stopped,
        overview.open_by_state(),
        overview.ended_since(midnight),
        overview.open_jobs(OPEN_SHOWN),
        overview.failures(FAILURES_SHOWN),
        overview.workers(),
    )


# -- pages ---------------------------------------------------------------------


def report(seen: Seen, tongue: Language, *, may_leave: bool) -> Html:
    """The page itself, which asks for itself again every `REFRESH` seconds."""
    return _document(
        tongue,
        _spend(seen, tongue),
        _limits(seen.terms, tongue),
        _jobs(seen, tongue),
        _oldest(seen, tongue),
        _failures(seen, tongue),
        _processes(seen, tongue),
        tag("p", say(tongue, "owner.as_of", time=f"{seen.now:%H:%M:%S}"), class_="soft"),
        refresh=True,
        leave=_button("leave", tongue) if may_leave else None,
    )


def entrance(tongue: Language, problem: str | None = None, **facts: Any) -> Html:
    """The form that asks for the token; `problem` is a text's key."""
    field = tag(
        "input", type="password", name="token", id="token", required=True, autofocus=True,
        autocomplete="current-password",
    )  # fmt: skip
    form = tag(
        "form",
        tag("label", say(tongue, "owner.token"), for_="token"),
        field,
        tag("p", say(tongue, problem, **facts), class_="bad", role="alert") if problem else None,
        tag("button", say(tongue, "owner.enter"), name="action", value="enter", class_="main"),
        method="post",
        action="owner",
        class_="entrance",
    )
    return _document(tongue, form)


def trouble(error: PlaygroundError, tongue: Language) -> Html:
    """In place of the report, for as long as it can't be made."""
    cause, hint = explain(tongue, error)
    return _document(tongue, tag("p", cause, " ", hint, class_="bad", role="alert"), refresh=True)


def _document(
    tongue: Language, *content: Content, refresh: bool = False, leave: Html | None = None
) -> Html:
    title = f"Z-Image Turbo · {say(tongue, 'owner.title')}"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="refresh", content=REFRESH) if refresh else None,
        tag("title", title),
        tag("link", rel="stylesheet", href="theme.css"),
        tag("style", Html(_STYLE)),
    )
    bar = tag(
        "header",
        tag("h1", "Z-Image Turbo ", tag("span", say(tongue, "owner.title"))),
        tag("a", say(tongue, "owner.page"), href="./"),
        leave,
    )
    body = tag("body", tag("script", Html(SCRIPT)), bar, tag("main", *content))
    language = "zh-CN" if tongue == "zh" else "en"
    return join(Html("<!doctype html>"), tag("html", head, body, lang=language))


# -- parts ---------------------------------------------------------------------


def _spend(seen: Seen, tongue: Language) -> Html:
    figures = [(f"owner.days.{days}", format_usd(usd)) for days, usd in seen.spent.items()]
    budget = seen.terms.budget
    notes: list[Content] = []
    if budget is not None:
        left = max(Decimal(0), budget - seen.spent[1]).quantize(Decimal("0.0001"), ROUND_FLOOR)
        figures.append(("owner.left", format_usd(left)))
        notes.append(tag("p", say(tongue, "owner.held", amount=format_usd(seen.held))))
        notes.append(_switch(seen.stopped, tongue))
    else:
        notes.append(tag("p", say(tongue, "owner.receipts")))
    tiles = [tag("div", tag("dt", say(tongue, key)), tag("dd", value)) for key, value in figures]
    return _section("owner.spend", tongue, tag("dl", *tiles, class_="tiles"), *notes)


def _switch(stopped: bool, tongue: Language) -> Html:
    state = "owner.stopped" if stopped else "owner.allowed"
    said = tag("span", say(tongue, state), class_="bad" if stopped else None)
    return tag("div", said, _button("resume" if stopped else "stop", tongue), class_="switch")


def _limits(terms: Terms, tongue: Language) -> Html:
    no, yes = say(tongue, "owner.no"), say(tongue, "owner.yes")
    unlimited = say(tongue, "owner.unlimited")
    rows = [
        ("owner.budget", unlimited if terms.budget is None else f"${terms.budget}"),
        ("owner.visitor", str(terms.limits) if terms.limits.allowed else unlimited),
        ("owner.unchecked", yes if terms.unchecked else no),
        ("owner.mature", yes if terms.mature else no),
    ]
    return _section("owner.limits", tongue, _table((), ((say(tongue, k), v) for k, v in rows)))


def _jobs(seen: Seen, tongue: Language) -> Html:
    counts = [*_counted(seen.open, tongue), *_counted(seen.ended, tongue)]
    names = _headings(tongue, "state", "backend", "count")
    return _section("owner.jobs", tongue, _table(names, counts) if counts else _none(tongue))


def _oldest(seen: Seen, tongue: Language) -> Html | None:
    if not seen.jobs:
        return None
    names = _headings(tongue, "job", "state", "backend", "age", *_worker(seen))
    rows = [_open(job, seen, tongue) for job in seen.jobs]
    return _section("owner.open", tongue, _table(names, rows))


def _counted(counts: Counts, tongue: Language) -> list[tuple[Content, ...]]:
    return [
        (say(tongue, f"state.{state.value}"), _backend(backend, tongue), str(count))
        for (backend, state), count in sorted(counts.items(), key=lambda item: -item[1])
    ]


def _open(job: OpenJob, seen: Seen, tongue: Language) -> tuple[Content, ...]:
    row: tuple[Content, ...] = (
        tag("code", job.id[:14], title=job.id),
        say(tongue, f"state.{job.state.value}"),
        _backend(job.backend, tongue),
        duration(max(timedelta(), seen.now - job.created)),
    )
    return (*row, tag("code", job.worker or "–")) if _worker(seen) else row


def _failures(seen: Seen, tongue: Language) -> Html:
    rows = [_failure(failure, tongue) for failure in seen.failures]
    names = _headings(tongue, "time", "error")
    return _section("owner.failures", tongue, _table(names, rows) if rows else _none(tongue))


def _failure(failure: Failure, tongue: Language) -> tuple[Content, ...]:
    cause, _hint = explain(tongue, failure.error)
    about = f"{_backend(failure.backend, tongue)} · {say(tongue, f'state.{failure.state.value}')}"
    when = tag("time", f"{failure.at:%m-%d %H:%M}", datetime=failure.at.isoformat())
    name = tag("code", type(failure.error).__name__)
    return (when, join(name, " ", tag("small", about), tag("p", cause)))


def _processes(seen: Seen, tongue: Language) -> Html | None:
    if len(seen.workers) < 2:
        return None
    rows = [(tag("code", worker), str(count)) for worker, count in sorted(seen.workers.items())]
    names = _headings(tongue, "process", "count")
    return _section("owner.processes", tongue, _table(names, rows))


def _worker(seen: Seen) -> tuple[str, ...]:
    return ("process",) if len(seen.workers) > 1 else ()


def _backend(name: str, tongue: Language) -> str:
    """Its name on the page; one that an older version wrote down may have none."""
    return catalogue(tongue).get(f"backend.{name}", name)


def _section(title: str, tongue: Language, *content: Content) -> Html:
    return tag("section", tag("h2", say(tongue, title)), *content)


def _table(names: Iterable[str], rows: Iterable[tuple[Content, ...]]) -> Html:
    heads = [tag("th", name, scope="col") for name in names]
    lines = [tag("tr", *(tag("td", cell) for cell in row)) for row in rows]
    head = tag("thead", tag("tr", *heads)) if heads else None
    return tag("table", head, tag("tbody", *lines))


def _headings(tongue: Language, *names: str) -> list[str]:
    return [say(tongue, f"owner.head.{name}") for name in names]


def _none(tongue: Language) -> Html:
    return tag("p", say(tongue, "owner.none"), class_="soft")


def _button(action: str, tongue: Language) -> Html:
    button = tag("button", say(tongue, f"owner.{action}"), name="action", value=action)
    return tag("form", button, method="post", action="owner")
