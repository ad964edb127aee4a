"""The engine on ZeroGPU, which lends a GPU for each job to a fork of the page's process.

So here, and nowhere else, torch is in the page's process: `spaces` patches it so that weights
put on "cuda" before the page's launch wait on disk for a fork to take them to its GPU. A fork is
kept with its GPU for later jobs; jobs wait in ZeroGPU's own queue, each for its visitor's share.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import queue
import re
import sys
import threading
import time
from collections.abc import AsyncIterator, Generator, Iterable
from contextlib import closing
from typing import Final

import torch

import zerogpu
from backends.local import messages
from backends.local.acceleration import Modes
from backends.local.desk import Heard
from backends.local.engine import Engine
from backends.local.failures import as_ours, caught
from backends.local.job import Job, Stopped, estimated_seconds
from backends.local.kernels import Tools
from backends.local.line import LONGEST, Ticket
from backends.local.options import LocalOptions
from backends.local.process import GRACE
from generation.errors import BackendUnavailable, EngineCrashed, GpuNotLent, PlaygroundError
from generation.events import Event, Finished, Queued, Running

log = logging.getLogger("playground.local")

TICK: Final = 0.1  # seconds between two looks at whether a job is to stop: less than a step

# Seconds that a job asks for. What it doesn't use isn't counted, but nobody is lent more than
# is left of a day's share, which is two minutes for a visitor who isn't signed in.
READY: Final = 20  # a new fork: the weights to its GPU, and its first kernels
SLOWER: Final = 6  # than a whole H100 with compiled kernels
ADAPTER: Final = 3  # read and merged
EXPANSION: Final = 12  # 220 tokens, one by one
MOST: Final = 120

Word = Running | Finished | PlaygroundError | Stopped | None
"""What a fork says of its job; None if there was nothing for a tick."""

CRASHED: Final = "ZeroGPU worker error"  # a title of an error of `spaces`
_MARKS: Final = (re.compile(r"<[^<>]*>"), re.compile(r"\[([^\]]*)\]\([^)]*\)"))  # HTML, Markdown


def seconds(job: Job) -> int:
    """How long a job may have a GPU, generously: at the end of it, its fork is killed."""
    asked = job.request
    work = SLOWER * estimated_seconds(asked) + EXPANSION * asked.enable_prompt_expansion
    return round(min(READY + work + ADAPTER * len(job.loras), MOST))


# -- in a fork -----------------------------------------------------------------


class LentEngine:
    """An engine as `spaces` runs one: by a synchronous generator, in a fork of this process.

    It begins each job as a fork's first, as `Engine.run` leaves nothing of a job behind.
    """

    def __init__(self, engine: messages.Engine) -> None:
        self._engine = engine

    def get_ready(self) -> None:
        """Load, in the thread that imported `spaces` and before the page's launch: weights that
        are there by then are packed for the forks."""
        try:
            self._engine.warm_up(_report, lambda: False)
        except Exception as exc:  # whatever it is, a job will meet it again and be told
            log.warning("The local engine didn't get ready: %s", as_ours(exc))

    def run(self, job: Job) -> Generator[Word, None, None]:
        """`(Running | None)* (Finished | PlaygroundError | Stopped)`; closing it stops the job.

        A word comes at every tick, since `spaces` looks whether to stop after a word alone.
        A failure is a word: of an exception `spaces` keeps no more than the name.
        """
        words: queue.SimpleQueue[Word] = queue.SimpleQueue()
        given_up = threading.Event()
        hand = threading.Thread(target=self._work, args=(job, words, given_up), daemon=True)
        hand.start()
        word: Word = None
        try:
            while not isinstance(word, Finished | PlaygroundError | Stopped):
                word = _next(words)
                yield word
        finally:
            given_up.set()
            hand.join()
        if isinstance(word, EngineCrashed):
            raise word  # no job can succeed in this fork: one that raises isn't kept

    def _work(self, job: Job, words: queue.SimpleQueue[Word], given_up: threading.Event) -> None:
        torch.set_num_threads(1)  # a pool of threads doesn't survive a fork
        try:
            words.put(Finished(self._engine.run(job, words.put, given_up.is_set)))
        except Exception as exc:
            words.put(caught(exc))


def _next(words: queue.SimpleQueue[Word]) -> Word:
    try:
        return words.get(timeout=TICK)
    except queue.Empty:
        return None


def _report(event: Running) -> None:
    """To the Space's log: the page isn't served meanwhile."""
    for line in event.logs:
        print(line, file=sys.stderr)


# -- in the page's process -----------------------------------------------------


class ZeroGpuDesk:
    """A thread for each job, which follows its fork. Made before the page's launch."""

    def __init__(self, engine: LentEngine) -> None:
        self._run = zerogpu.lend(engine.run, seconds)
        self._open: dict[Ticket, threading.Thread] = {}

    def start(self) -> None:
        """Nothing: it is ready, or a job will be told why not."""

    async def stream(self, job: Job, owner: str) -> AsyncIterator[Event]:
        """Wait for a GPU, then follow the job on it."""
        if not zerogpu.has_visitor():  # and the page may not have been launched yet
            raise GpuNotLent(reason="the page was restarted, and nobody asks for it any more")
        if len(self._open) >= LONGEST:
            raise BackendUnavailable(backend="local", reason=f"{LONGEST} jobs wait already")
        heard = Heard()
        ticket = Ticket(job, heard.hear, owner)
        # With the caller's context: in it is the request of the visitor whose share is used.
        context = contextvars.copy_context()
        thread = threading.Thread(
            target=context.run, args=(self._follow, ticket), name="zerogpu", daemon=True
        )
        self._open[ticket] = thread
        thread.start()
        event: Event = Queued()
        try:
            yield event
            while not isinstance(event, Finished):
                event = await heard.next()
                yield event
        finally:
            ticket.given_up.set()

    async def close(self) -> None:
        """Give all jobs up; those that have a GPU end within a step."""
        threads = list(self._open.values())
        for ticket in list(self._open):
            ticket.given_up.set()
        await asyncio.to_thread(_join, threads, GRACE)

    def _follow(self, ticket: Ticket) -> None:
        try:
            self._listen(ticket)
        except Exception as exc:
            ticket.hear(Stopped() if ticket.given_up.is_set() else refusal(exc))
        finally:
            del self._open[ticket]

    def _listen(self, ticket: Ticket) -> None:
        def say(line: str) -> None:
            ticket.hear(Running(logs=(_plain(line),)))

        zerogpu.wait_for(lambda: not ticket.given_up.is_set(), say)
        with closing(self._run(ticket.job)) as words:
            for word in words:
                if word is not None:
                    ticket.hear(word)
                if ticket.given_up.is_set():
                    raise Stopped


def refusal(failure: Exception) -> PlaygroundError | Stopped:
    """What `spaces` raised, as an error for people: its own errors have a title and a message."""
    title = getattr(failure, "title", None)
    if title is None:
        return as_ours(failure)
    reason = _plain(str(getattr(failure, "message", failure)))
    return EngineCrashed(reason=reason) if title == CRASHED else GpuNotLent(reason=reason)


def _plain(text: str) -> str:
    """Without the markup that Gradio's messages may have, as the start of a sentence."""
    for mark in _MARKS:
        text = mark.sub(r"\1" if mark.groups else "", text)
    return " ".join(text.split()).rstrip(".")


def _join(threads: Iterable[threading.Thread], patience: float) -> None:
    """Of all threads together, in seconds; one that waits for a GPU is left to end by itself."""
    deadline = time.monotonic() + patience
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


def eager_engine(options: LocalOptions) -> Engine:
    """With diffusers' own kernels: there is no compiler, and no GPU to prove others on."""
    tools = Tools(why_not_compiled=lambda _: "ZeroGPU compiles nothing")
    return Engine(options, modes=lambda loaded, _: Modes(loaded, options.data, tools))


def desk(options: LocalOptions, make: messages.Make = eager_engine) -> ZeroGpuDesk:
    """A desk whose engine is as ready as it can be before the page's launch: loaded."""
    engine = LentEngine(make(options))
    engine.get_ready()
    return ZeroGpuDesk(engine)
