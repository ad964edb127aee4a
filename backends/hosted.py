"""fal's hosted endpoint, by its queue.

The submit is ours and happens once: `fal_client`'s own posts again after a lost
answer, and each accepted post is billed. Status, result and cancel are
`fal_client`'s, whose retries do no harm there.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import fal_client
import httpx
from fal_client.auth import FAL_QUEUE_RUN_HOST, FAL_RUN_HOST
from pydantic import SecretStr, ValidationError

from backends.base import CancelOutcome, Capabilities, Resources
from backends.fal_errors import job_failed, reason_of, refusal, submit_error
from generation.errors import (
    AnswerRefused,
    JobExpired,
    JobFailed,
    JobOverdue,
    KeyMissing,
    KeyRevoked,
    MediaBroken,
    MediaRefused,
    NoImages,
    NotSent,
    OutcomeUnknown,
    PlaygroundError,
    RateLimited,
)
from generation.events import Event, Finished, Handle, Queued, Running, Submitted
from generation.imagefile import CheckedImage, check_image
from generation.request import ENDPOINT, GenerationRequest
from generation.result import GenerationResult, ImageFile
from outbound import Fetcher

URLS: Final = ("status_url", "response_url", "cancel_url")
OVERRIDES: Final = frozenset({FAL_RUN_HOST, FAL_QUEUE_RUN_HOST} - {"fal.run", "queue.fal.run"})
SUBMIT_TIMEOUT: Final = httpx.Timeout(60.0, connect=10.0)
_STEP = re.compile(r"\b(\d+)/(\d+)\b")  # tqdm's counter in the runner's log lines
_BAD_POLL: Final = (
    httpx.HTTPError,
    fal_client.FalClientHTTPError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
)


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds between questions and until patience ends; tests shorten them."""

    poll: float = 0.25
    poll_slow: float = 1.0
    steady: float = 4.0  # asked at `poll` for so long: most images take two seconds
    miss: float = 0.25  # doubled with each failed poll in a row
    miss_slow: float = 10.0
    deadline: float = 30 * 60
    retry_after: int = 5  # a 429 that asks for more is shown instead of waited out
    media: float = 60.0


class _Handle(fal_client.AsyncRequestHandle):
    """fal_client's handle, for answers that leave out `logs` or `queue_position`."""

    def _parse_status(self, data: dict[str, Any]) -> fal_client.Status:
        return super()._parse_status({"logs": None, "queue_position": None, **data})


class HostedBackend:
    """`fal-ai/z-image/turbo/lora` with the owner's key or a visitor's."""

    name = "hosted"

    def __init__(self, key: SecretStr | None, pace: Pace | None = None) -> None:
        self._owner_key = key
        self._pace = pace or Pace()
        self._clients: dict[str, httpx.AsyncClient] = {}
        self._units: dict[str, float] = {}
        self._tls: ssl.SSLContext | None = None

    def capabilities(self, resources: Resources) -> Capabilities:
        """Every field of the endpoint; ready as soon as there is a key."""
        has_key = resources.fal_key or self._owner_key
        return Capabilities(
            fields=frozenset(GenerationRequest.model_fields),
            lora_scale=(0, 4),
            billed=True,
            problem=None if has_key else KeyMissing(backend=self.name, reason="no key"),
        )

    async def generate(
        self, request: GenerationRequest, resources: Resources
    ) -> AsyncIterator[Event]:
        """Post once, then follow."""
        key = self._key(resources)
        handle = await self._submit(request, key)
        yield Submitted(handle)
        async for event in self._follow(self._api(handle, key)):
            yield event

    async def resume(self, handle: Handle, resources: Resources) -> AsyncIterator[Event]:
        """Follow a job of an earlier process."""
        async for event in self._follow(self._api(handle, self._key(resources))):
            yield event

    async def cancel(self, handle: Handle, resources: Resources) -> CancelOutcome:
        """Queued work is removed; running work is only signalled and may be billed."""
        try:
            await self._api(handle, self._key(resources)).cancel()
        except fal_client.FalClientHTTPError as exc:
            done = exc.status_code == 400
            return CancelOutcome.ALREADY_COMPLETED if done else CancelOutcome.UNCONFIRMED
        except httpx.HTTPError:
            return CancelOutcome.UNCONFIRMED
        return CancelOutcome.REQUESTED

    async def fetch(self, image: ImageFile) -> CheckedImage:
        """Copy one image at once: the endpoint's media expires."""
        if image.url.startswith("data:"):
            return await asyncio.to_thread(check_image, _inline(image.url))
        fetcher = Fetcher(
            self._client(""), trusted=_trusted_media(OVERRIDES), seconds=self._pace.media
        )
        pauses = iter((1, 2))
        while True:
            try:
                return await asyncio.to_thread(check_image, await fetcher.get(image.url))
            except MediaBroken:
                if (pause := next(pauses, None)) is None:
                    raise
                await asyncio.sleep(pause * self._pace.poll)

    async def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            await client.aclose()
        self._clients.clear()

    # -- submitting ------------------------------------------------------------

    async def _submit(self, request: GenerationRequest, key: str) -> Handle:
        """One accepted post at most: repeated only if none can have been accepted."""
        pauses = iter((2, 4, 8))
        while True:
            try:
                return _handle_of(await self._post(request, key))
            except (NotSent, RateLimited) as exc:
                pause = next(pauses, None)
                if pause is None or not _worth_repeating(exc, self._pace):
                    raise
                asked = exc.facts.get("retry_after")
                await asyncio.sleep(float(asked or pause * self._pace.poll))

    async def _post(self, request: GenerationRequest, key: str) -> httpx.Response:
        try:
            return await self._client(key).post(
                f"https://{FAL_QUEUE_RUN_HOST}/{ENDPOINT}",
                json=request.payload(),
                timeout=SUBMIT_TIMEOUT,
            )
        except (
            httpx.ConnectError,
            httpx.ConnectTimeout,
            httpx.PoolTimeout,
            httpx.ProxyError,
            httpx.UnsupportedProtocol,
        ) as exc:
            raise NotSent(reason=str(exc) or type(exc).__name__) from exc
        except httpx.HTTPError as exc:
            raise OutcomeUnknown(reason=type(exc).__name__) from exc

    # -- following -------------------------------------------------------------

    async def _follow(self, api: _Handle) -> AsyncIterator[Event]:
        seen: Event | None = None
        async for status in self._statuses(api):
            event = _event_of(status)
            if event is not None and event != seen:
                seen = event
                yield event
        yield Finished(await self._result(api))

    async def _statuses(self, api: _Handle) -> AsyncIterator[fal_client.Status]:
        """Statuses up to a good COMPLETED; a failed poll is waited out."""
        started, misses, pause = time.monotonic(), 0, self._pace.poll
        while True:
            try:
                status = await api.status(with_logs=True)
            except _BAD_POLL as exc:
                misses += 1
                _give_up(exc, misses, api.request_id)
                pause = min(self._pace.miss * 2**misses, self._pace.miss_slow)
            else:
                misses = 0
                yield status
                if isinstance(status, fal_client.Completed):
                    _raise_if_failed(status)
                    return
                pause = self._next_pause(time.monotonic() - started, pause)
            if time.monotonic() - started > self._pace.deadline:
                raise JobOverdue(minutes=round(self._pace.deadline / 60))
            await asyncio.sleep(pause)

    def _next_pause(self, elapsed: float, pause: float) -> float:
        if elapsed < self._pace.steady:
            return self._pace.poll
        return min(pause * 1.3, self._pace.poll_slow)

    async def _result(self, api: _Handle) -> GenerationResult:
        """The finished job's output; asked again while the answer is unreadable."""
        for misses in range(1, 6):
            try:
                return self._read_result(api, await api.get())
            except _BAD_POLL as exc:
                failure: Exception = exc
                _give_up(exc, misses, api.request_id)
                _raise_if_refused(exc)
            await asyncio.sleep(min(self._pace.miss * 2**misses, self._pace.miss_slow))
        raise _unreadable(failure) from failure

    def _read_result(self, api: _Handle, answer: dict[str, Any]) -> GenerationResult:
        facts = {
            "request_id": api.request_id,
            "billable_units": self._units.pop(api.response_url, None),
        }
        result = GenerationResult.model_validate({**answer, **facts})
        if not result.images:
            raise NoImages()
        return result

    # -- connections -----------------------------------------------------------

    def _key(self, resources: Resources) -> str:
        key = resources.fal_key or self._owner_key
        if key is None:
            raise KeyMissing(backend=self.name, reason="no key")
        return key.get_secret_value()

    def _api(self, handle: Handle, key: str) -> _Handle:
        for name in URLS:
            _refuse_foreign(handle[name])
        return _Handle(handle["request_id"], *_urls(handle), client=self._client(key))

    def _client(self, key: str) -> httpx.AsyncClient:
        """One pool of connections for each key; the empty one sends no key anywhere."""
        if key not in self._clients:
            self._tls = self._tls or httpx.create_ssl_context()
            self._clients[key] = httpx.AsyncClient(
                verify=self._tls,
                headers={"Authorization": f"Key {key}"} if key else {},
                limits=httpx.Limits(max_connections=400, max_keepalive_connections=100),
                event_hooks={"response": [self._note_units]},
            )
        return self._clients[key]

    async def _note_units(self, response: httpx.Response) -> None:
        """Keep the billed units: `fal_client` returns a result without its headers."""
        try:
            units = float(response.headers["x-fal-billable-units"])
        except (KeyError, ValueError):
            return
        self._units[str(response.request.url)] = units


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
        handle = {name: str(answer[name]) for name in ("request_id", *URLS)}
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as exc:
        raise OutcomeUnknown(reason="an unreadable answer") from exc
    for name in URLS:
        _refuse_foreign(handle[name])
    return handle


def _urls(handle: Handle) -> tuple[str, str, str]:
    return handle["response_url"], handle["status_url"], handle["cancel_url"]


def _refuse_foreign(address: str) -> None:
    """The key goes wherever these addresses lead, so they must lead to fal."""
    url = httpx.URL(address)
    if {url.host, url.netloc.decode()} & OVERRIDES and url.scheme in ("http", "https"):
        return
    ours = url.host in ("fal.run", "falrun.com") or url.host.endswith((".fal.run", ".falrun.com"))
    if url.scheme != "https" or not ours or url.userinfo:
        raise AnswerRefused(host=url.host)


def _trusted_media(overrides: frozenset[str]) -> frozenset[str]:
    """Where fal's host is overridden, its media comes from the same machine."""
    return frozenset(host.partition(":")[0] for host in overrides)


def _event_of(status: fal_client.Status) -> Event | None:
    if isinstance(status, fal_client.Queued):
        return Queued(status.position)
    if isinstance(status, fal_client.InProgress):
        lines = tuple(str(log.get("message", "")) for log in status.logs or ())
        counts = [match for line in lines if (match := _STEP.search(line))]
        step, total = (int(n) for n in counts[-1].groups()) if counts else (None, None)
        return Running(step, total, lines)
    return None


def _raise_if_failed(status: fal_client.Completed) -> None:
    if status.error or status.error_type:
        raise job_failed(reason_of(status.error), status.error_type)


def _give_up(exc: Exception, misses: int, request_id: str) -> None:
    """Raise if this failed poll is final: a key that stays refused, a job that stays lost."""
    if not isinstance(exc, fal_client.FalClientHTTPError):
        return
    if exc.status_code in (401, 403) and misses > 1:
        raise KeyRevoked() from exc
    if exc.status_code in (404, 410) and misses > 5:
        raise JobExpired(request_id=request_id) from exc


def _raise_if_refused(exc: Exception) -> None:
    """A result that is a 4xx of the model's own is the job's outcome."""
    if isinstance(exc, fal_client.FalClientHTTPError) and exc.status_code in (400, 422):
        raise refusal(exc.status_code, exc.message, exc.response_headers) from exc


def _unreadable(exc: Exception) -> JobFailed:
    if isinstance(exc, fal_client.FalClientHTTPError):
        return job_failed(reason_of(exc.message), exc.error_type or "internal_error")
    kind = "incomplete" if isinstance(exc, ValidationError) else "unreadable"
    return JobFailed(reason=f"its answer stayed {kind}", billing="may be billed")


def _inline(url: str) -> bytes:
    """The bytes of a `data:` address."""
    try:
        return base64.b64decode(url.partition(",")[2], validate=True)
    except (binascii.Error, ValueError) as exc:
        raise MediaRefused(reason="its data address is not base64") from exc
