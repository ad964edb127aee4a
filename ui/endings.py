"""How a job ended without an image: the cause, the next step, and what can be clicked."""

from __future__ import annotations

from generation.errors import (
    JobOverdue,
    KeyMissing,
    KeyRejected,
    KeyRevoked,
    OutcomeUnknown,
    PlaygroundError,
    RateLimited,
)
from history.records import State
from jobs import JobView
from ui.buttons import button, link
from ui.markup import Html, tag
from ui.texts import Language, explain, say

REQUEST_LOG = "https://fal.ai/dashboard/requests"


def ending(view: JobView, language: Language) -> Html:
    """In place of the images: why there are none, and what to do."""
    if view.job.state is State.CANCELLED:
        cancelled = say(language, "state.cancelled.hint")
        return tag("div", tag("strong", say(language, "state.cancelled")), tag("p", cancelled),
                   _retry(language), class_="ending", data_kind="cancelled")  # fmt: skip
    error = view.problem or view.job.error or PlaygroundError()
    return tag(
        "div",
        message(error, language),
        tag("div", *_next_steps(view, error, language), class_="ending-actions"),
        class_="ending",
        data_kind="unknown" if isinstance(error, OutcomeUnknown) else "error",
        role="alert",
    )


def message(error: PlaygroundError, language: Language) -> Html:
    """An error's cause and next step."""
    cause, hint = explain(language, error)
    return tag("div", tag("strong", cause), tag("p", hint), class_="message")


def _next_steps(view: JobView, error: PlaygroundError, language: Language) -> list[Html]:
    """The actions that make sense after this error."""
    if isinstance(error, OutcomeUnknown) and view.job.state is State.UNKNOWN:
        return [
            link(REQUEST_LOG, say(language, "action.check_log")),
            button("retry", say(language, "action.submit_again")),
            button("dismiss", say(language, "action.dismiss")),
        ]
    if isinstance(error, KeyRevoked | KeyMissing | KeyRejected):
        # A job that is still open is only checked: trying again would pay for another.
        after = _retry(language) if view.job.state.is_final else _check(language)
        return [button("key", say(language, "action.enter_key"), primary=True), after]
    if not view.job.state.is_final:
        stop = button("stop", say(language, "action.stop"))
        return [_check(language), *([stop] if isinstance(error, JobOverdue) else [])]
    if isinstance(error, RateLimited):
        wait = str(error.facts.get("retry_after", 1))
        return [button("retry", say(language, "action.retry"), countdown=wait)]
    return [_retry(language)]


def _retry(language: Language) -> Html:
    return button("retry", say(language, "action.retry"))


def _check(language: Language) -> Html:
    return button("check", say(language, "action.check_again"))
