"""`/owner`: what the owner of the page sees and may do, a route of its own beside Gradio's.

Another site can't post here: the Gate refuses it, and the cookie isn't sent along.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from hashlib import sha256
from typing import Final
from urllib.parse import parse_qsl

from pydantic import SecretStr
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from generation.errors import StorageError
from jobs import Runner
from ui.markup import Html
from ui.owner_door import Door
from ui.owner_page import SCRIPT, entrance, look, report, trouble
from ui.visitor import language

MAX_FORM: Final = 4096  # bytes
_SCRIPT: Final = base64.b64encode(sha256(SCRIPT.encode()).digest()).decode()
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self' 'unsafe-inline'; "
    f"script-src 'sha256-{_SCRIPT}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
}


def owner_routes(runner: Runner, token: SecretStr | None, *, public: bool) -> list[Route]:
    """The route; none in public without a token, for nobody could be told from a stranger."""
    if public and token is None:
        return []
    door = Door(token)

    async def owner(request: Request) -> Response:
        form = await _form(request) if request.method == "POST" else {}
        if form.get("action") == "enter":
            return _enter(door, request, form.get("token", ""))
        if not door.admits(request):
            return _page(entrance(language(request)), 401)
        try:
            if form:
                return await run_in_threadpool(_act, runner, door, form.get("action"))
            seen = await run_in_threadpool(look, runner)
        except StorageError as exc:
            return _page(trouble(exc, language(request)), 503)
        return _page(report(seen, language(request), may_leave=door.locked))

    return [Route("/owner", owner, methods=["GET", "POST"])]


def _enter(door: Door, request: Request, token: str) -> Response:
    if wait := door.wait():
        answer = _page(entrance(language(request), "owner.later", seconds=wait), 429)
        answer.headers["Retry-After"] = str(wait)
        return answer
    if not door.fits(token):
        return _page(entrance(language(request), "owner.wrong"), 401)
    answer = _back()
    door.let_in(answer, https=request.url.scheme == "https")
    return answer


def _act(runner: Runner, door: Door, action: str | None) -> Response:
    answer, spending = _back(), runner.history.spending
    if action == "leave":
        door.let_out(answer)
    elif runner.terms.budget is not None and action in ("stop", "resume"):
        (spending.stop if action == "stop" else spending.resume)()
    return answer


def _back() -> Response:
    """To the page by GET, wherever a proxy has put it."""
    return RedirectResponse("owner", 303, headers=_HEADERS)


def _page(page: Html, status: int = 200) -> Response:
    return HTMLResponse(page, status, headers=_HEADERS)


async def _form(request: Request) -> Mapping[str, str]:
    """What a form of ours sends; nothing of what is larger than any."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM:
            return {"action": ""}
    return {"action": "", **dict(parse_qsl(body.decode("latin-1")))}
