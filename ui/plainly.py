"""The one place where our errors become Gradio's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from html import escape

import gradio as gr

from generation.errors import InvalidRequest, PlaygroundError


@contextmanager
def said_plainly() -> Iterator[None]:
    """For the named endpoints; escaped, since Gradio renders an error's text as markup."""
    try:
        yield
    except PlaygroundError as exc:
        raise gr.Error(escape(str(exc), quote=False), print_exception=False) from exc


def warn(problem: PlaygroundError) -> None:
    """Beside an answer that is not all it could be; clients show it as a message of the job."""
    gr.Warning(escape(str(problem), quote=False))


def check(field: str, is_good: bool, problem: str) -> None:
    """For what isn't part of a request; JSON brings any type, whatever a signature says."""
    if not is_good:
        raise InvalidRequest(field=field, problem=problem)
