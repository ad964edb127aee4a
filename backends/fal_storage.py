"""Adapters that only we may read, put where fal's runners can read them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import fal_client
import httpx

from backends.fal_errors import reason_of, refusal
from generation.errors import AdapterUnavailable, PlaygroundError
from generation.lora_file import LoraFile
from generation.request import GenerationRequest

EXPIRES: Final = 2 * 3600  # seconds that fal keeps a file: whoever knows its address may read it
REUSED: Final = 3600  # seconds that we hand its address out; a job may wait in the queue after
_ABOUT_THE_ACCOUNT: Final = (401, 402, 403)
_BAD_ANSWER: Final = (httpx.HTTPError, OSError, ValueError, KeyError, TypeError, AttributeError)


@dataclass(frozen=True, slots=True)
class _Upload:
    task: asyncio.Task[str]
    began: float


class FalStorage:
    """Uploads by key and file, each once while its address is good. For one event loop."""

    def __init__(self) -> None:
        self._uploads: dict[tuple[str, Path], _Upload] = {}

    async def reachable(self, files: Mapping[str, LoraFile], key: str) -> dict[str, LoraFile]:
        """The same files, each with an address that needs no token.

        Raises:
            AdapterUnavailable: one could not be uploaded.
            Refused: the key may not upload.
        """
        return {path: await self._with_address(file, key) for path, file in files.items()}

    async def _with_address(self, file: LoraFile, key: str) -> LoraFile:
        if file.url is not None or file.local is None:
            return file
        # Shielded: another job may wait for the same upload.
        name = file.file or file.path  # a copy's own name says nothing to anybody
        return replace(file, url=await asyncio.shield(self._upload(key, file.local, name)))

    def _upload(self, key: str, local: Path, name: str) -> asyncio.Task[str]:
        known = self._uploads.get((key, local))
        if known is not None and _is_good(known):
            return known.task
        task = asyncio.create_task(_send(key, local, name))
        self._uploads[key, local] = _Upload(task, time.monotonic())
        return task


def with_addresses(request: GenerationRequest, files: Mapping[str, LoraFile]) -> dict[str, Any]:
    """The request's payload, its adapters by the addresses that were found for them.

    Raises:
        AdapterUnavailable: one is on this machine only.
    """
    payload = request.payload()
    for lora in payload["loras"]:
        found = files.get(lora["path"])
        lora["path"] = found.url if found and found.url else lora["path"]
        if lora["path"].startswith("upload:"):
            raise AdapterUnavailable(name=lora["path"][:16], reason="it was not uploaded to fal")
    return payload


def _is_good(upload: _Upload) -> bool:
    if time.monotonic() - upload.began > REUSED:
        return False
    return not upload.task.done() or (not upload.task.cancelled() and not upload.task.exception())


async def _send(key: str, local: Path, name: str) -> str:
    client = fal_client.AsyncClient(key=key)
    lifecycle = fal_client.StorageSettings(expires_in=EXPIRES)
    try:
        return await client.upload_file(local, lifecycle=lifecycle)
    except (fal_client.FalClientHTTPError, httpx.HTTPStatusError) as exc:
        raise _refused(exc, name) from exc
    except _BAD_ANSWER as exc:
        raise _unavailable(name, type(exc).__name__) from exc


def _refused(
    exc: fal_client.FalClientHTTPError | httpx.HTTPStatusError, name: str
) -> PlaygroundError:
    """What fal said: to a file's bytes, or, as httpx raises it, to the wish for an upload token."""
    answer, detail = exc.response, _detail(exc.response)
    if answer.status_code in _ABOUT_THE_ACCOUNT:
        return refusal(answer.status_code, detail, answer.headers)
    return _unavailable(name, reason_of(detail))


def _detail(answer: httpx.Response) -> Any:
    try:
        return answer.json()["detail"]
    except _BAD_ANSWER:
        return answer.text


def _unavailable(name: str, reason: str) -> AdapterUnavailable:
    return AdapterUnavailable(name=name, reason=f"fal's storage didn't take it ({reason})")
