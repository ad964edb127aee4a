"""The one post that costs money: sent once, repeated only if none can have been accepted.

`fal_client`'s own submit posts again after a lost answer, and each accepted post is billed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

import httpx

from backends.fal_errors import submit_error
from backends.fal_pace import Pace
from generation.errors import AnswerRefused, NotSent, OutcomeUnknown, PlaygroundError, RateLimited
from generation.events import Handle

URLS: Final = ("status_url", "response_url", "cancel_url")
TIMEOUT: Final = httpx.Timeout(None, connect=10.0, pool=10.0)  # the whole: `Pace.submit`
NEVER_SENT: Final = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)


async def submit(
    client: httpx.AsyncClient, address: str, payload: Mapping[str, Any], pace: Pace
) -> Handle:
    """The handle of one accepted job.

    Raises:
        NotSent, Refused: no job exists.
        OutcomeUnknown: the request left, and what became of it can't be known.
    """
    pauses = iter((2, 4, 8))
    while True:
        try:
            return _handle_of(await _post(client, address, payload, pace))
        except (NotSent, RateLimited) as exc:
            pause = next(pauses, None)
            if pause is None or not _worth_repeating(exc, pace):
                raise
            asked = exc.facts.get("retry_after")
            await asyncio.sleep(float(asked or pause * pace.poll))


async def _post(
    client: httpx.AsyncClient, address: str, payload: Mapping[str, Any], pace: Pace
) -> httpx.Response:
    try:
        # A limit for all of it: an answer that drips would reset a limit for each read.
        async with asyncio.timeout(pace.submit):
            return await client.post(address, json=payload, timeout=TIMEOUT)
    except NEVER_SENT as exc:
        raise NotSent(reason=str(exc) or type(exc).__name__) from exc
    except httpx.HTTPError as exc:
        raise OutcomeUnknown(reason=type(exc).__name__) from exc
    except TimeoutError as exc:
        raise OutcomeUnknown(reason=f"no answer in {pace.submit:g} s") from exc


def _worth_repeating(error: PlaygroundError, pace: Pace) -> bool:
    if isinstance(error, RateLimited):
        return int(error.facts["retry_after"] or 0) <= pace.retry_after
    return True


def _handle_of(response: httpx.Response) -> Handle:
    """The handle in a submit's answer, or what its absence means."""
    if response.status_code not in (200, 201, 202):
        raise submit_error(response)
    try:
        answer = response.json()
        handle = {name: answer[name] for name in ("request_id", *URLS)}
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as exc:
        raise OutcomeUnknown(reason="an unreadable answer") from exc
    if not all(isinstance(value, str) and value for value in handle.values()):
        raise OutcomeUnknown(reason="an answer without the job's address")
    return handle


def refuse_foreign(handle: Handle, overrides: frozenset[str]) -> None:
    """The key goes wherever these addresses lead, so they must lead to fal.

    `overrides` are the hosts (`name` or `name:port`) that were configured instead of fal's.

    Raises:
        AnswerRefused: names the first that doesn't.
    """
    for name in URLS:
        if not _is_fals(handle[name], overrides):
            raise AnswerRefused(host=_host(handle[name]))


def _is_fals(address: str, overrides: frozenset[str]) -> bool:
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL:
        return False
    if {url.host, url.netloc.decode()} & overrides and url.scheme in ("http", "https"):
        return True
    ours = url.host in ("fal.run", "falrun.com") or url.host.endswith((".fal.run", ".falrun.com"))
    return ours and url.scheme == "https" and not url.userinfo


def _host(address: str) -> str:
    try:
        return httpx.URL(address).host or "none"
    except httpx.InvalidURL:
        return "unreadable"
