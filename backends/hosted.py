"""fal's hosted endpoint, by its queue.

The submit is ours and happens once (`fal_submit`). Status, result and cancel
are `fal_client`'s, whose retries do no harm there.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Final

import fal_client
import httpx
from fal_client.auth import FAL_QUEUE_RUN_HOST, FAL_RUN_HOST
from pydantic import SecretStr, ValidationError

from backends.base import CancelOutcome, Capabilities, Resources
from backends.fal_errors import CANCELLED, job_failed, reason_of, refusal, unsaid
from backends.fal_media import fetch, trusted_hosts
from backends.fal_pace import KEY_REFUSED, NOT_THERE, Pace, Patience
from backends.fal_storage import FalStorage, with_addresses
from backends.fal_submit import refuse_foreign, submit
from generation.errors import (
    JobFailed,
    KeyMissing,
    NoImages,
    PlaygroundError,
)
from generation.events import Event, Finished, Handle, Queued, Running, Submitted
from generation.imagefile import CheckedImage
from generation.request import ENDPOINT, GenerationRequest
from generation.result import GenerationResult, ImageFile
from outbound import Fetcher

__all__ = ["HostedBackend", "Pace"]

OVERRIDES: Final = frozenset({FAL_RUN_HOST, FAL_QUEUE_RUN_HOST} - {"fal.run", "queue.fal.run"})
MOST_UNITS: Final = 1e6  # megapixels; the largest request has 17
FINAL_AFTER: Final = 5  # the same result, asked so often, is the job's outcome
TRANSIENT: Final = (408, 409, 425, 429)
_STEP = re.compile(r"\b(\d+)/(\d+)\b")  # tqdm's counter in the runner's log lines
_BAD_ANSWER: Final = (
    httpx.HTTPError,
    fal_client.FalClientHTTPError,
    TimeoutError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
)


class _Handle(fal_client.AsyncRequestHandle):
    """fal_client's handle, for answers that leave out `logs` or `queue_position`."""

    def _parse_status(self, data: dict[str, Any]) -> fal_client.Status:
        return super()._parse_status({"logs": None, "queue_position": None, **data})

    async def iter_events(self, **_options: Any) -> AsyncIterator[fal_client.Status]:
        """Nothing: `get` would ask for the status once more, which has just been told."""
        nothing: tuple[fal_client.Status, ...] = ()
        for status in nothing:
            yield status


class HostedBackend:
    """`fal-ai/z-image/turbo/lora` with the owner's key or a visitor's."""

    name = "hosted"

    def __init__(self, key: SecretStr | None, pace: Pace | None = None) -> None:
        self._owner_key = key
        self._pace = pace or Pace()
        self._clients: dict[str, httpx.AsyncClient] = {}
        self._storage = FalStorage()
        self._units: dict[str, float] = {}
        self._tls: ssl.SSLContext | None = None

    def capabilities(self, resources: Resources) -> Capabilities:
        """Every field of the endpoint; ready as soon as there is a key."""
        has_key = _usable(resources.fal_key or self._owner_key)
        return Capabilities(
            fields=frozenset(GenerationRequest.model_fields),
            lora_scale=(0, 4),
            billed=True,
            rationed=not resources.fal_key,
            lora_source="url",
            problem=None if has_key else KeyMissing(backend=self.name, reason="no key"),
        )

    async def prepare(self, request: GenerationRequest, resources: Resources) -> Resources:
        """Put adapters that only we may read on fal's storage, for a short while."""
        key = self._key(resources)
        with unsaid(key):
            files = await self._storage.reachable(resources.lora_files, key)
        return replace(resources, lora_files=files)

    async def generate(
        self, request: GenerationRequest, resources: Resources
    ) -> AsyncIterator[Event]:
        """Post once, then follow."""
        key = self._key(resources)
        address = f"https://{FAL_QUEUE_RUN_HOST}/{ENDPOINT}"
        payload = with_addresses(request, resources.lora_files)
        with unsaid(key):
            handle = await submit(self._client(key), address, payload, self._pace)
            yield Submitted(handle)  # kept even where it is refused next: the job may be paid for
            async for event in self._follow(self._api(handle, key)):
                yield event

    async def resume(self, handle: Handle, resources: Resources) -> AsyncIterator[Event]:
        """Follow a job of an earlier process."""
        key = self._key(resources)
        with unsaid(key):
            async for event in self._follow(self._api(handle, key)):
                yield event

    async def cancel(self, handle: Handle, resources: Resources) -> CancelOutcome:
        """Queued work is removed; running work is only signalled and may be billed."""
        api = self._api(handle, self._key(resources))
        try:
            async with asyncio.timeout(self._pace.answer):
                await api.cancel()
        except fal_client.FalClientHTTPError as exc:
            done = exc.status_code == 400
            return CancelOutcome.ALREADY_COMPLETED if done else CancelOutcome.UNCONFIRMED
        except (httpx.HTTPError, TimeoutError):
            return CancelOutcome.UNCONFIRMED
        return CancelOutcome.REQUESTED

    async def fetch(self, image: ImageFile) -> CheckedImage:
        """Copy one image; without the key, and no other address than a public one."""
        trusted = trusted_hosts(OVERRIDES)
        fetcher = Fetcher(self._client(""), trusted=trusted, seconds=self._pace.media)
        return await fetch(image, fetcher, self._pace)

    def start(self) -> None:
        """Nothing to get ready."""

    async def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            await client.aclose()
        self._clients.clear()

    # -- following -------------------------------------------------------------

    async def _follow(self, api: _Handle) -> AsyncIterator[Event]:
        seen: Event | None = None
        patience = Patience(self._pace, api.request_id)
        async for status in self._statuses(api, patience):
            event = _event_of(status)
            if event is not None and event != seen:
                seen = event
                yield event
        yield Finished(await self._result(api, patience))

    async def _statuses(self, api: _Handle, patience: Patience) -> AsyncIterator[fal_client.Status]:
        """Statuses up to a good COMPLETED; a failed poll is waited out."""
        while True:
            try:
                async with asyncio.timeout(self._pace.answer):
                    status = await api.status(with_logs=True)
            except _BAD_ANSWER as exc:
                await patience.failed(exc)
                continue
            yield status
            if isinstance(status, fal_client.Completed):
                _raise_if_failed(status)
                return
            await patience.answered()

    async def _result(self, api: _Handle, patience: Patience) -> GenerationResult:
        """The finished job's output, which may be paid for: asked for until it can be read."""
        for attempt in itertools.count(1):
            try:
                async with asyncio.timeout(self._pace.result):
                    return self._read_result(api, await api.get())
            except _BAD_ANSWER as exc:
                _raise_if_final(exc, attempt)
                await patience.failed(exc)
        raise AssertionError  # mypy doesn't know that counting never ends

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
        if key is None or not _usable(key):
            raise KeyMissing(backend=self.name, reason="no key")
        return key.get_secret_value()

    def _api(self, handle: Handle, key: str) -> _Handle:
        refuse_foreign(handle, OVERRIDES)
        return _Handle(
            request_id=handle["request_id"],
            response_url=handle["response_url"],
            status_url=handle["status_url"],
            cancel_url=handle["cancel_url"],
            client=self._client(key),
        )

    def _client(self, key: str) -> httpx.AsyncClient:
        """One pool of connections for each key; the empty one sends no key anywhere."""
        if key not in self._clients:
            self._tls = self._tls or httpx.create_ssl_context()
            self._clients[key] = httpx.AsyncClient(
                verify=self._tls,
                headers={"Authorization": f"Key {key}"} if key else {},
                # Few: httpcore looks at each of them, twice a request.
                limits=httpx.Limits(max_connections=40, max_keepalive_connections=40),
                event_hooks={"response": [self._note_units]},
            )
        return self._clients[key]

    async def _note_units(self, response: httpx.Response) -> None:
        """Keep the billed units: `fal_client` returns a result without its headers."""
        try:
            units = float(response.headers["x-fal-billable-units"])
        except (KeyError, ValueError):
            return
        if 0 <= units < MOST_UNITS:  # no NaN either: it is added up with what others spent
            self._units[str(response.request.url)] = units


def _usable(key: SecretStr | None) -> bool:
    """Whether there is a key that an HTTP header can carry."""
    text = key.get_secret_value() if key else ""
    return bool(text) and text.isascii() and text.isprintable()


def _event_of(status: fal_client.Status) -> Event | None:
    if isinstance(status, fal_client.Queued):
        return Queued(status.position)
    if isinstance(status, fal_client.InProgress):
        lines = tuple(map(_line, status.logs or ()))
        counts = [match for line in lines if (match := _STEP.search(line))]
        step, total = (int(n) for n in counts[-1].groups()) if counts else (None, None)
        return Running(step, total, lines)
    return None


def _line(log: Any) -> str:
    """A log entry's text, whatever shape the entry has."""
    return str(log.get("message") or "") if isinstance(log, dict) else str(log)


def _raise_if_failed(status: fal_client.Completed) -> None:
    if status.error or status.error_type:
        raise job_failed(reason_of(status.error), status.error_type)


def _raise_if_final(exc: Exception, attempt: int) -> None:
    """Raise what an answer in place of a result means, if it means anything.

    A rejection is the job's outcome at once; what fal itself says several times
    is too. A proxy's page, a reset or half an answer says nothing of the job.
    """
    if isinstance(exc, fal_client.FalClientHTTPError):
        if exc.status_code == 422 or exc.error_type == CANCELLED:
            raise _outcome(exc) from exc
        if attempt >= FINAL_AFTER and _is_about_the_job(exc):
            raise _outcome(exc) from exc
    elif attempt >= FINAL_AFTER and isinstance(exc, ValidationError):
        raise JobFailed(reason="its answer stayed incomplete", billing="may be billed") from exc


def _is_about_the_job(exc: fal_client.FalClientHTTPError) -> bool:
    if exc.status_code >= 500:  # fal's own, or a proxy's on the way
        return any(name.startswith("x-fal-") for name in exc.response_headers)
    return exc.status_code not in (*TRANSIENT, *KEY_REFUSED, *NOT_THERE)


def _outcome(exc: fal_client.FalClientHTTPError) -> PlaygroundError:
    if exc.status_code >= 500 or exc.error_type == CANCELLED:
        return job_failed(reason_of(exc.message), exc.error_type or "internal_error")
    return refusal(exc.status_code, exc.message, exc.response_headers)
