"""The routes of signing in and out, and what changes hands there."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from generation.errors import PlaygroundError
from jobs import Runner
from lora_registry.registry import Registry
from ui.cookies import YEAR, is_https, set_cookie
from ui.markup import tag
from ui.sessions import LASTS, User
from ui.sign_in import Grant, SignIn
from ui.texts import explain, say
from ui.visitor import COOKIE, SESSION_COOKIE, Visitors, language, new_token

BEGIN: Final = "/login/huggingface"
BACK: Final = "/login/callback"
END: Final = "/logout"
_PLAIN: Final = {"Cache-Control": "no-store", "Content-Security-Policy": "default-src 'none'"}


def entrance(
    sign_in: SignIn, runner: Runner, registry: Registry, visitors: Visitors, address: str | None
) -> list[Route]:
    """Routes that set cookies and redirect. `address` is where the page is, if we were told.

    Nobody says where to go afterwards: it is always the page itself.
    """

    async def begin(request: Request) -> Response:
        visitor = request.cookies.get(COOKIE, "")
        back = (address or _address_of(request)) + BACK
        return RedirectResponse(await sign_in.begin(visitor, back), 303, _PLAIN)

    async def back(request: Request) -> Response:
        visitor = request.cookies.get(COOKIE, "")
        grant = await sign_in.finish(visitor, dict(request.query_params))
        secret = await run_in_threadpool(let_in, grant, visitor)
        leave(request)  # whoever was signed in here before
        answer = RedirectResponse("../", 303, _PLAIN)
        secure = is_https(request.scope)
        # The old name is used up: what it owned is the user's now.
        for cookie in (
            set_cookie(SESSION_COOKIE, secret, seconds=int(LASTS), secure=secure),
            set_cookie(COOKIE, new_token(), seconds=YEAR, secure=secure),
        ):
            answer.headers.append("set-cookie", cookie)
        return answer

    def let_in(grant: Grant, visitor: str) -> str:
        """Begin the visit; what this browser made before comes along. Blocks."""
        seconds = min(LASTS, grant.seconds)
        user = User(grant.sub, grant.name, time.monotonic() + seconds)
        registry.take_over(f"visitor:{visitor}", user.owner)
        runner.take_over(f"visitor:{visitor}", user.owner)
        registry.let_in(user.owner, grant.token, seconds)
        return visitors.sessions.begin(user)

    def leave(request: Request) -> None:
        """End this browser's visit; with somebody's last one their token and key go."""
        gone = visitors.sessions.end(request.cookies.get(SESSION_COOKIE, ""))
        if gone is not None:
            registry.forget(gone.owner)
            runner.set_key(gone.owner, None)

    async def end(request: Request) -> Response:
        leave(request)
        answer = RedirectResponse("./", 303, _PLAIN)
        cookie = set_cookie(SESSION_COOKIE, "", seconds=0, secure=is_https(request.scope))
        answer.headers.append("set-cookie", cookie)
        return answer

    # A form of our own page begins and ends: a link from elsewhere can do neither.
    return [
        Route(BEGIN, _said(begin), methods=["POST"]),
        Route(BACK, _said(back)),
        Route(END, end, methods=["POST"]),
    ]


def _address_of(request: Request) -> str:
    """Where the browser sees this page; the Gate has let only our own names through."""
    scheme = "https" if is_https(request.scope) else "http"
    root = str(request.scope.get("root_path", "")).rstrip("/")
    return f"{scheme}://{request.headers['host']}{root}"


def _said(answer: Callable[[Request], Any]) -> Callable[[Request], Any]:
    """An error as a page of its own, with the way back."""

    async def endpoint(request: Request) -> Response:
        try:
            response: Response = await answer(request)
            return response
        except PlaygroundError as exc:
            tongue = language(request)
            cause, hint = explain(tongue, exc)
            way = tag("a", say(tongue, "sign_in.back"), href="../")
            page = tag("html", tag("head", tag("title", cause)),
                       tag("body", tag("h1", cause), tag("p", hint), tag("p", way)),
                       lang=tongue)  # fmt: skip
            return HTMLResponse(f"<!doctype html>{page}", 400, _PLAIN)

    return endpoint
