"""The adapters' endpoints of the Gradio API: what is there, and what one of them is."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

import gradio as gr
from gradio.events import api

from generation.allowance import Terms
from lora_registry.inspection import Inspection
from lora_registry.registry import Registry
from lora_registry.search import SORTS, Query
from ui.plainly import check, said_plainly, warn
from ui.visitor import Visitors

MAX_ROWS: Final = 100


def add_lookups(
    registry: Registry, visitors: Visitors, terms: Terms, options: dict[str, Any]
) -> None:
    """Define `/search_loras` and `/inspect_lora` inside the Blocks that is being built."""

    async def search_loras(
        query: str = "", sort: str = "likes", limit: int = 24, include_mature: bool = False
    ) -> list[dict[str, Any]]:
        """Adapters for Z-Image Turbo on the Hugging Face Hub."""
        with said_plainly():
            check("query", isinstance(query, str) and len(query) <= 200, "must be text")
            check("sort", sort in SORTS, f"must be one of {', '.join(SORTS)}")
            in_range = type(limit) is int and 1 <= limit <= MAX_ROWS
            check("limit", in_range, f"must be a whole number between 1 and {MAX_ROWS}")
            check("include_mature", isinstance(include_mature, bool), "must be true or false")
            terms.check_search(include_mature)
            asked = Query(query, sort=sort, include_mature=include_mature, limit=limit)
            page = await registry.search(asked)
            if page.problem is not None and not page.cards:
                raise page.problem
            if page.problem is not None:
                warn(page.problem)  # these rows are a stale copy, or well-known adapters only
            return [asdict(card) for card in page.cards]

    async def inspect_lora(reference: str, request: gr.Request) -> dict[str, Any]:
        """What an adapter is and whether it fits each backend, read without downloading it."""
        with said_plainly():
            check("reference", isinstance(reference, str), "must be text")
            return as_json(await registry.inspect(reference, visitors.owner(request)))

    api(search_loras, api_name="search_loras", **options)
    api(inspect_lora, api_name="inspect_lora", **options)


def as_json(found: Inspection) -> dict[str, Any]:
    """An inspection as plain JSON, what the file is made of at the top."""
    made = found.anatomy
    return {
        "reference": found.reference,
        "repo": found.repo,
        "name": found.name,
        "file": found.file,
        "sha": found.sha,
        "files": [asdict(file) for file in found.files],
        "kind": made.kind if made else None,
        "layout": made.layout if made else None,
        "family": made.family if made else None,
        "rank": made.rank if made else None,
        "alpha": made.alpha if made else None,
        "dtype": made.dtype if made else None,
        "modules": list(made.modules) if made else [],
        "unmatched": list(made.unmatched) if made else [],
        "trigger_words": [word.text for word in found.trigger_words],
        "trigger_sources": {word.text: word.source for word in found.trigger_words},
        "fit": {name: verdict.fit.value for name, verdict in found.fit.items()},
        "reasons": {name: verdict.reason for name, verdict in found.fit.items()},
        "moved_to": found.moved_to,
        "private": found.private,
        "problem": str(found.problem) if found.problem else None,
    }
