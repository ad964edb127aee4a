"""The named endpoints of the Gradio API, which are MCP tools too.

Their parameters are the request's fields, so a new field appears here by itself.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import gradio as gr
from gradio.data_classes import FileData
from gradio.events import api
from gradio.processing_utils import save_file_to_cache
from gradio.utils import get_upload_folder

from generation.errors import JobCancelled, MediaRefused, PlaygroundError
from generation.parsing import parse_request
from generation.pricing import estimate_cost
from generation.request import GenerationRequest, ImageSizePreset
from history.records import Job, State
from jobs import Runner
from lora_registry.registry import Registry
from ui.lookups import add_lookups
from ui.plainly import check, said_plainly
from ui.recipes import restore_recipe
from ui.visitor import Visitors

# What JSON can carry where the field's own type says too little or too much.
_HINTS: Final[dict[str, Any]] = {
    "image_size": ImageSizePreset | dict[str, Any],
    "seed": str | None,  # text: JSON numbers are rounded above 2**53 on the way
    "loras": list[dict[str, Any]],
}
_MAX_ROWS: Final = 200


def add_endpoints(
    runner: Runner, registry: Registry, visitors: Visitors, default_backend: str
) -> None:
    """Define every endpoint inside the Blocks that is being built."""

    async def generate(values: dict[str, Any], request: gr.Request) -> tuple[list[Any], Any]:
        backend = values.pop("backend") or default_backend
        with said_plainly():
            check("backend", isinstance(backend, str), "must be the name of a backend")
            owner = visitors.owner(request)
            parsed = parse_request(values)
            job = await asyncio.to_thread(runner.submit, parsed, owner, backend)
            job = await _finished(runner, job.id, owner)
            assert job.receipt is not None
            files = await asyncio.to_thread(_files, runner, job)
            for file in files:
                visitors.belongings.hand(file["path"], visitors.shown(request))
            return files, job.receipt.as_json()

    async def estimate(values: dict[str, Any], request: gr.Request) -> dict[str, Any]:
        with said_plainly():
            cost = estimate_cost(parse_request(values).request)
            return {
                "usd": float(cost.total),
                "megapixels": float(cost.megapixels),
                "images_usd": float(cost.images),
                "expansion_usd": float(cost.expansion),
            }

    async def history(
        request: gr.Request, query: str = "", limit: int = 50, before: str | None = None
    ) -> list[dict[str, Any]]:
        """Jobs, newest first; `before` is the id of the last row of the page before."""
        with said_plainly():
            find = runner.history.search
            owner = visitors.owner(request)
            check("query", isinstance(query, str), "must be text")
            check("before", isinstance(before, str | None), "must be the id of a row")
            in_range = isinstance(limit, int) and 1 <= limit <= _MAX_ROWS
            check("limit", in_range, f"must be a whole number between 1 and {_MAX_ROWS}")
            jobs = await asyncio.to_thread(find, owner, query, limit=limit, before=before or None)
            return [job.row() for job in jobs]

    anywhere: dict[str, Any] = {"queue": True, "concurrency_limit": None}
    api(
        _with_fields(generate, {"backend": (str, "")}, tuple[list[dict[str, Any]], dict[str, Any]]),
        api_name="generate",
        api_description="Generate images; returns the files and a receipt. May cost money.",
        **anywhere,
    )
    api(
        _with_fields(estimate, {}, dict[str, Any]),
        api_name="estimate_cost",
        api_description="What a request would cost on the hosted endpoint, in US dollars.",
        **anywhere,
    )
    api(history, api_name="history", **anywhere)
    add_lookups(registry, visitors, runner.terms, anywhere)
    _add_restore(visitors)


def _add_restore(visitors: Visitors) -> None:
    """By components, so that Gradio itself checks that the file was uploaded here."""

    def restore(image: str | None, request: gr.Request) -> dict[str, Any]:
        with said_plainly():
            if not image:
                raise MediaRefused(reason="no file was given")
            if not visitors.may_open(image, request):
                raise MediaRefused(reason="it was not uploaded by you")
            return restore_recipe(Path(image).read_bytes())

    source = gr.File(visible=False, type="filepath", label="image")
    found = gr.JSON(visible=False)
    source.upload(
        restore,
        inputs_kwargs={"image": source},
        outputs=found,
        api_name="restore",
        api_description="The request that an image carries, ours or another tool's.",
        show_progress="hidden",
    )


async def _finished(runner: Runner, job_id: str, owner: str) -> Job:
    """Wait for a job; its error is raised."""
    view = [view async for view in runner.watch(job_id, owner)][-1]
    if view.job.state is State.STORED:
        return view.job
    if view.job.state is State.CANCELLED:
        raise JobCancelled()
    raise view.problem or view.job.error or PlaygroundError()


def _files(runner: Runner, job: Job) -> list[dict[str, Any]]:
    """The stored images as files that a Gradio client downloads."""
    paths = [runner.history.image_file(job.id, job.owner, image.index) for image in job.images]
    copies = [(save_file_to_cache(path, get_upload_folder()), path.name) for path in paths]
    return [FileData(path=copy, orig_name=name).model_dump() for copy, name in copies]


Handler = Callable[[dict[str, Any], gr.Request], Awaitable[Any]]


def _with_fields(handler: Handler, extra: dict[str, tuple[Any, Any]], returns: Any) -> Any:
    """`handler` with the request's fields as its parameters, for Gradio to read."""
    parameters = {
        name: (_HINTS.get(name, field.annotation), _default(name))
        for name, field in GenerationRequest.model_fields.items()
    } | extra
    signature = inspect.Signature(
        [_parameter(name, hint, default) for name, (hint, default) in parameters.items()]
        + [
            inspect.Parameter(
                "request",
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=None,
                annotation=gr.Request,
            )
        ],  # fmt: skip
        return_annotation=returns,
    )

    async def endpoint(*values: Any) -> Any:
        given = signature.bind(*values).arguments
        asked = given.pop("request")
        return await handler(given, asked)

    endpoint.__signature__ = signature  # type: ignore[attr-defined]
    endpoint.__annotations__ = {name: p.annotation for name, p in signature.parameters.items()}
    endpoint.__name__ = handler.__name__
    return endpoint


def _parameter(name: str, hint: Any, default: Any) -> inspect.Parameter:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter(name, kind, default=default, annotation=hint)


def _default(name: str) -> Any:
    field = GenerationRequest.model_fields[name]
    if field.is_required():
        return inspect.Parameter.empty
    return list(field.default) if name == "loras" else field.default
