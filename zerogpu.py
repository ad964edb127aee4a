"""ZeroGPU, the shared hardware of Spaces, which lends a GPU for one call of a function.

Its package patches torch when it is imported, so this comes before anything that imports torch.
It reports the start from Gradio's first `launch()`, but only if a GPU function is registered by
then; a Space that never reports is ended: "No @spaces.GPU function detected". (spaces 0.51.)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final, TypeVar

JOB: Final = "job"  # the name of an event of Gradio's
ON_ZEROGPU: Final = os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")

if ON_ZEROGPU:
    import spaces  # the Space's builder brings it
    from gradio.context import LocalContext

T = TypeVar("T")
R = TypeVar("R")


def register() -> None:
    """Call before the page is launched: where images come from elsewhere, nothing else would."""
    if ON_ZEROGPU:
        spaces.GPU(_needs_no_gpu)


def _needs_no_gpu() -> None:
    """The GPU function of a page that has none; nobody calls it."""


def lend(
    work: Callable[[T], Generator[R, None, None]], seconds: Callable[[T], int]
) -> Callable[[T], Generator[R, None, None]]:
    """`work` as it runs where a GPU is lent for each call: in a fork of this process.

    `seconds` says how long a call may have it. What goes in and what comes out is pickled.
    Call it before the page is launched; off the hardware it changes nothing.
    """
    return spaces.GPU(work, duration=seconds) if ON_ZEROGPU else work


def has_visitor() -> bool:
    """Whether this context comes from a request to the page: a GPU is lent for its visitor."""
    return not ON_ZEROGPU or LocalContext.request.get(None) is not None


def wait_for(wanted: Callable[[], bool], say: Callable[[str], None]) -> None:
    """Let `spaces` ask `wanted` while it waits for a GPU, and `say` what it has to tell.

    For the calls of this thread's context from now on. Without it `spaces` looks whether the
    visitor's click is still connected: one who closes the tab would lose the job, and one who
    cancels it would be lent a GPU all the same.
    """
    if ON_ZEROGPU:
        page = LocalContext.blocks.get(None)
        LocalContext.blocks.set(_page(page, _Event(wanted), say))
        LocalContext.event_id.set(JOB)


@dataclass(frozen=True, slots=True)
class _Event:
    """An event of Gradio's queue, as far as `spaces` looks at it."""

    wanted: Callable[[], bool]
    _id: str = JOB

    @property
    def alive(self) -> bool:
        return self.wanted()


def _page(page: Any, event: _Event, say: Callable[[str], None]) -> Any:
    """As far as `spaces` looks: the server, whose sockets a fork closes, and the queue."""
    queue = SimpleNamespace(active_jobs=[[event]], log_message=lambda log, **_: say(log))
    return SimpleNamespace(server=getattr(page, "server", None), _queue=queue)
