"""`/healthz`: whether this process is of use, for whatever watches over it."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from generation.errors import StorageError
from jobs import Runner

WAIT: Final = 1.0  # seconds for the database: who asks may not wait longer


def health_routes(runner: Runner, backend: str, version: str) -> list[Route]:
    """The route. `backend` is the one in use at first; the answer is 503 without a database.

    It says nothing that a stranger may not know, and sets no cookie.
    """
    began = time.monotonic()

    async def health(_request: Request) -> JSONResponse:
        reached = await _reached(runner)
        answer: dict[str, Any] = {
            "status": "ok" if reached else "unavailable",
            "version": version,
            "backend": backend,
            "backend_ready": runner.capabilities(backend, owner="").problem is None,
            "database": reached,
            "uptime_seconds": round(time.monotonic() - began, 3),
        }
        status = 200 if reached else 503
        return JSONResponse(answer, status, headers={"Cache-Control": "no-store"})

    return [Route("/healthz", health, methods=["GET"])]


async def _reached(runner: Runner) -> bool:
    try:
        async with asyncio.timeout(WAIT):
            await asyncio.to_thread(runner.history.overview.check)
    except (StorageError, TimeoutError):
        return False
    return True
