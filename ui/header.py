"""The top line: which backend, whose key, what was spent, language and theme."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import gradio as gr
from pydantic import SecretStr

from generation.errors import KeyMissing, PlaygroundError
from jobs import Runner
from ui.entrance import BEGIN, END
from ui.markup import Html, join, tag
from ui.sessions import User
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
        tongue, has_key = language(request), runner.has_key(visitors.owner(request))
        signing = _signing(tongue, visitors.user(request)) if visitors.signs_in else None
        return account_html(tongue, has_key, server_key, signing)

    component = gr.HTML(
        "",
        elem_id="account",
        apply_default_css=False,
        js_on_load=(ASSETS / "account.js").read_text("utf-8"),
        server_functions=[set_key],
    )
    return component, render


def account_html(
    tongue: Language, has_key: bool, server_key: bool, signing: Html | None = None
) -> str:
    """The component's content; never the key itself."""
    state = "key.yours" if has_key else "key.server" if server_key else "key.none"
    return join(
        tag(
            "span",
            tag("span", say(tongue, "spent"), class_="spent-word"),
            " ",
            tag("b", "$0.0000", id="spent"),
            class_="spent",
        ),
        tag(
            "button",
            say(tongue, state),
            type="button",
            id="open-key",
            data_state=state.removeprefix("key."),
        ),
        signing,
        tag("button", say(tongue, "language.other"), type="button", id="language"),
        tag("button", "◐", type="button", id="theme", aria_label=say(tongue, "theme.switch")),
        _key_dialog(tongue, has_key),
    )


def _signing(tongue: Language, user: User | None) -> Html:
    """Sign in, or who is signed in and the way out; forms, since a link could be anybody's."""
    if user is None:
        return _form(BEGIN, say(tongue, "sign_in"), say(tongue, "sign_in.hint"), "sign-in")
    name = tag("span", user.name, class_="user", title=say(tongue, "sign_in.hint"))
    lapsed = say(tongue, "sign_in.lapsed")
    again = _form(BEGIN, say(tongue, "sign_in.again"), lapsed, "sign-in") if user.lapsed else None
    return join(name, again, _form(END, say(tongue, "sign_in.out"), None, "sign-out"))


def _form(route: str, word: str, hint: str | None, name: str) -> Html:
    button = tag("button", word, type="submit", id=name, title=hint)
    return tag("form", button, method="post", action=f".{route}")


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
