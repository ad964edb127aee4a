"""Our own routes beside Gradio's: image bytes for their owner, and the recipe of a dropped image.

The page shows files as they are on disk; nothing passes through Gradio's cache,
which serves without asking whose a file is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from generation.errors import InvalidRequest, NotInHistory, PlaygroundError
from generation.events import Running
from generation.imagefile import MAX_BYTES
from jobs import Runner
from lora_registry.registry import Registry
from ui.archive import stored_images, zip_of
from ui.recipes import restore_recipe
from ui.texts import explain
from ui.visitor import Visitors, language

FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}
NEVER = {"Cache-Control": "no-store"}
AS_ZIP = {"Content-Disposition": 'attachment; filename="z-image-playground.zip"'}


def routes(runner: Runner, registry: Registry, visitors: Visitors) -> list[Route]:
    """All routes, each answering for the visitor who asks."""

    async def media(request: Request) -> Response:
        find = _preview if request.path_params.get("what") == "preview" else _original
        try:
            return await run_in_threadpool(find, runner, visitors.owner(request), request)
        except (NotInHistory, OSError):
            return Response(status_code=404, headers=NEVER)

    async def live(request: Request) -> Response:
        view = runner.board.get(request.path_params["job"], _owner_or_nobody(visitors, request))
        preview = view.live.preview if view and isinstance(view.live, Running) else None
        if preview is None:
            return Response(status_code=404, headers=NEVER)
        return Response(preview, media_type="image/jpeg", headers=NEVER)

    async def archive(request: Request) -> Response:
        try:
            owner = visitors.owner(request)
        except NotInHistory:
            return Response(status_code=404, headers=NEVER)
        parts = zip_of(stored_images(runner.history, owner))
        return StreamingResponse(parts, media_type="application/zip", headers=NEVER | AS_ZIP)

    async def recipe(request: Request) -> Any:
        return restore_recipe(await _body(request))

    async def adapter(request: Request) -> Any:
        """A safetensors file from the visitor's own disk, as the request's body."""
        owner, name = visitors.owner(request), request.query_params.get("name", "")
        with registry.keep_upload(owner, name) as upload:
            async for chunk in request.stream():
                await run_in_threadpool(upload.write, chunk)
        return {"reference": upload.reference}

    return [
        Route("/adapter", _as_json(adapter), methods=["POST"]),
        Route("/history.zip", archive),
        Route("/media/{job}/live", live),
        Route("/media/{job}/{index:int}", media),
        Route("/media/{job}/{index:int}/{what}", media),
        Route("/recipe", _as_json(recipe), methods=["POST"]),
    ]


def _as_json(answer: Callable[[Request], Awaitable[Any]]) -> Callable[[Request], Any]:
    """What is made of a request's body, or what is wrong with it."""

    async def endpoint(request: Request) -> Response:
        try:
            return JSONResponse(await answer(request))
        except PlaygroundError as exc:
            cause, hint = explain(language(request), exc)
            return JSONResponse({"cause": cause, "hint": hint}, status_code=422)
        except ClientDisconnect:  # within the body: nobody is there to be told
            return Response(status_code=400)

    return endpoint


def _original(runner: Runner, owner: str, request: Request) -> Response:
    job_id, index = request.path_params["job"], request.path_params["index"]
    view = runner.view(job_id, owner)
    if index < len(view.unsaved):
        image = view.unsaved[index]
        return Response(image.data, media_type=image.info.media_type, headers=NEVER)
    path = runner.history.image_file(job_id, owner, index)
    wants_file = "download" in request.query_params
    return FileResponse(path, headers=FOREVER, filename=path.name if wants_file else None)


def _preview(runner: Runner, owner: str, request: Request) -> Response:
    find: Callable[[str, str, int], Path] = runner.history.preview_file
    path = find(request.path_params["job"], owner, request.path_params["index"])
    return FileResponse(path, headers=FOREVER)


def _owner_or_nobody(visitors: Visitors, request: Request) -> str:
    try:
        return visitors.owner(request)
    except NotInHistory:
        return ""


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BYTES:
            raise InvalidRequest(field="image", problem=f"is larger than {MAX_BYTES // 2**20} MiB")
    return bytes(body)
