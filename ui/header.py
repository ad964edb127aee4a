"""The top line: which backend, whose key, what was spent, language and theme."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import gradio as gr
from pydantic import SecretStr

from generation.errors import KeyMissing, PlaygroundError
from jobs import Runner
from ui.markup import Html, join, tag
from ui.texts import Language, explain, say
from ui.visitor import Visitors, language

ASSETS: Final = Path(__file__).parent / "assets"
KEYS_PAGE: Final = "https://fal.ai/dashboard/keys"
MAX_KEY: Final = 200
Render = Callable[[gr.Request], str]


def account(runner: Runner, visitors: Visitors, server_key: bool) -> tuple[gr.HTML, Render]:
    """The key, the sum of the visit, and the switches of the page, with what fills them.

    A key goes through `set_key` alone, straight into the runner's memory: a
    Gradio text box would keep it in the session and offer it to other routes.
    """

    def set_key(asked: dict[str, str], request: gr.Request) -> dict[str, Any]:
        key = str(asked.get("key", "")).strip()
        usable = 0 < len(key) <= MAX_KEY and key.isascii() and key.isprintable() and " " not in key
        if key and not usable:
            return {"error": say(language(request), "key.malformed")}
        runner.set_key(visitors.owner(request), SecretStr(key) if key else None)
        return {"html": render(request)}

    def render(request: gr.Request) -> str:
        has_key = runner.has_key(visitors.owner(request))
        return account_html(language(request), has_key, server_key)

    component = gr.HTML(
        "",
        elem_id="account",
        apply_default_css=False,
        js_on_load=(ASSETS / "account.js").read_text("utf-8"),
        server_functions=[set_key],
    )
    return component, render


def account_html(tongue: Language, has_key: bool, server_key: bool) -> str:
    """The component's content; never the key itself."""
    state = "key.yours" if has_key else "key.server" if server_key else "key.none"
    return join(
        tag("span", say(tongue, "spent"), " ", tag("b", "$0.0000", id="spent"), class_="spent"),
        tag(
            "button",
            say(tongue, state),
            type="button",
            id="open-key",
            data_state=state.removeprefix("key."),
        ),
        tag("button", say(tongue, "language.other"), type="button", id="language"),
        tag("button", "◐", type="button", id="theme", aria_label=say(tongue, "theme.switch")),
        _key_dialog(tongue, has_key),
    )


def _key_dialog(tongue: Language, has_key: bool) -> Html:
    forget = tag("button", say(tongue, "key.forget"), type="button", id="forget-key")
    return tag(
        "dialog",
        tag("h2", say(tongue, "key.title")),
        tag("p", say(tongue, "key.hint")),
        tag(
            "input",
            type="password",
            id="key",
            autocomplete="off",
            spellcheck="false",
            placeholder="key_id:key_secret",
            aria_label=say(tongue, "key.title"),
        ),
        tag("p", "", class_="key-error", role="alert"),
        tag(
            "div",
            tag("a", say(tongue, "key.make"), href=KEYS_PAGE, target="_blank", rel="noopener"),
            forget if has_key else None,
            tag("button", say(tongue, "key.close"), type="button", id="close-key"),
            tag("button", say(tongue, "key.use"), type="button", id="use-key", class_="primary"),
            class_="dialog-actions",
        ),
        class_="key-dialog",
    )


def backend_status(runner: Runner, owner: str, backend: str, tongue: Language) -> Html:
    """Why the chosen backend isn't ready, or what it is."""
    problem: PlaygroundError | None = runner.capabilities(backend, owner).problem
    if problem is None:
        note = tag("span", say(tongue, f"backend.{backend}.note"))
        return tag("p", note, data_ready="true")
    cause, hint = explain(tongue, problem)
    enter = tag("button", say(tongue, "action.enter_key"), type="button", class_="open-key")
    helps = enter if isinstance(problem, KeyMissing) else None
    return tag("p", tag("strong", cause), " ", hint, " ", helps, data_ready="false")
