"""One boundary, many deaths: jobs without a page, in processes that end by SIGKILL.

`python -m tests.process.kill_driver` imports everything once and forks for each round a
victim, which dies at the boundary, and a survivor, which opens the same data folder, takes
up what it finds, and writes down what the journal said before and after. Boundaries are set
from outside, by wrapping methods: the product has no hooks for this.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NoReturn

import httpx
from pydantic import SecretStr

import history.files
import outbound
from backends.hosted import HostedBackend, Pace
from generation.events import Event, Queued, Running, Submitted
from generation.parsing import parse_request
from history.records import Job, State
from history.store import History
from jobs import Runner

OWNER: Final = "local"
QUICK: Final = Pace(poll=0.01, poll_slow=0.02, miss=0.01, miss_slow=0.1)
JOBS: Final = 2  # in each victim: one reaches the boundary, the other is wherever it is
NOT_REACHED: Final = 3
PATIENCE: Final = 30.0


def die() -> NoReturn:
    """As the kernel's out-of-memory killer would have it: now, with nothing closed."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


class Trigger:
    """Dies when it is reached for the nth time."""

    def __init__(self, turn: int) -> None:
        self._left = itertools.count(turn, -1)

    def __call__(self) -> None:
        if next(self._left) <= 1:
            die()


# -- boundaries ----------------------------------------------------------------


def on_advance(
    store: History, state: State, trigger: Callable[[], None], *, after: bool = False
) -> None:
    """Die around the commit of a state."""
    advance = store.advance

    def wrapped(job_id: str, to: State, **values: Any) -> Job:
        if to is state and not after:
            trigger()
        job = advance(job_id, to, **values)
        if to is state and after:
            trigger()
        return job

    setattr(store, "advance", wrapped)  # noqa: B010  # a method, for mypy


def on_events(
    backend: HostedBackend, trigger: Callable[[], None], *kinds: type[Event], start: bool = False
) -> None:
    """Die when a stream gives one of these, or before it does anything."""
    generate = backend.generate

    async def wrapped(*values: Any) -> AsyncIterator[Event]:
        if start:
            trigger()
        async for event in generate(*values):
            if isinstance(event, kinds):
                trigger()
            yield event

    setattr(backend, "generate", wrapped)  # noqa: B010


def before_submitting(store: History, _: HostedBackend, turn: int) -> None:
    on_advance(store, State.SUBMITTING, Trigger(turn))


def before_post(_: History, backend: HostedBackend, turn: int) -> None:
    on_events(backend, Trigger(turn), start=True)


def after_post(store: History, backend: HostedBackend, turn: int) -> None:
    """Once as soon as the answer is read, once just before it is committed."""
    if turn == 1:
        on_events(backend, Trigger(turn), Submitted)
    else:
        on_advance(store, State.SUBMITTED, Trigger(turn))


def polling(store: History, backend: HostedBackend, turn: int) -> None:
    on_events(backend, Trigger(turn), Queued, Running)


def completed(store: History, _: HostedBackend, turn: int) -> None:
    on_advance(store, State.COMPLETED, Trigger(turn), after=True)


def downloading(_: History, __: HostedBackend, turn: int) -> None:
    """Die with the first bytes of a body in hand."""
    trigger = Trigger(turn)

    async def read(self: outbound.Fetcher, response: httpx.Response) -> bytes:
        async for _piece in response.aiter_bytes(500):
            trigger()
        raise AssertionError("the whole image arrived")

    setattr(outbound.Fetcher, "_read", read)  # noqa: B010


def renaming(_: History, __: HostedBackend, turn: int) -> None:
    """Die around one of the renames: two images and two previews of a job each have one."""
    replace, trigger = os.replace, Trigger((turn + 1) // 2)

    def wrapped(source: Any, target: Any) -> None:
        if turn % 2:
            trigger()
        replace(source, target)
        if not turn % 2:
            trigger()

    history.files.os.replace = wrapped  # type: ignore[attr-defined]


def stored(store: History, _: HostedBackend, turn: int) -> None:
    """Die once the last commit of a job is done and before anybody hears of it."""
    store_images, trigger = store.store, Trigger(turn)

    def wrapped(*values: Any) -> Job:
        job = store_images(*values)
        trigger()
        return job

    setattr(store, "store", wrapped)  # noqa: B010


Boundary = Callable[[History, HostedBackend, int], None]
BOUNDARIES: Final[dict[str, tuple[Boundary, int]]] = {
    # and at which passages to die, in turn
    "before_submitting": (before_submitting, JOBS),
    "before_post": (before_post, JOBS),
    "after_post": (after_post, JOBS),
    "polling": (polling, JOBS),
    "completed": (completed, JOBS),
    "downloading": (downloading, JOBS),
    "renaming": (renaming, 8),
    "stored": (stored, JOBS),
}


# -- the two processes of a round ----------------------------------------------


@contextmanager
def running(data_dir: Path, arm: Boundary | None = None, turn: int = 1) -> Iterator[Runner]:
    """A playground without its page."""
    backend = HostedBackend(SecretStr(os.environ["FAL_KEY"]), QUICK)
    with History.open(data_dir) as store:
        if arm is not None:
            arm(store, backend, turn)
        runner = Runner(store, {"hosted": backend})
        runner.start()
        yield runner
        runner.close()


def victim(data_dir: Path, name: str, prompts: list[str], turn: int) -> None:
    """Submit, and die on the way."""
    with running(data_dir, BOUNDARIES[name][0], turn) as runner:
        for prompt in prompts:
            values = {"prompt": prompt, "num_images": 2, "image_size": {"width": 96, "height": 64}}
            runner.submit(parse_request(values), OWNER, "hosted")
        time.sleep(PATIENCE)
    os._exit(NOT_REACHED)


def survivor(data_dir: Path, prompts: list[str], report: Path) -> None:
    """Start again on what the victim left, and write down what became of each job."""
    with History.open(data_dir) as store:
        before = {job.request.prompt: job.state for job in _of(store, prompts)}
    with running(data_dir) as runner:
        jobs = _of(runner.history, prompts)
        asyncio.run(_settle(runner, jobs))
        rows = [_row(runner.history, job, before) for job in _of(runner.history, prompts)]
    with report.open("a", encoding="utf-8") as file:
        file.write(json.dumps(rows) + "\n")


async def _settle(runner: Runner, jobs: list[Job]) -> None:
    async with asyncio.timeout(PATIENCE):
        for job in jobs:
            async for _view in runner.watch(job.id, OWNER):
                pass


def _of(store: History, prompts: list[str]) -> list[Job]:
    return [job for job in store.search(OWNER, limit=JOBS) if job.request.prompt in prompts]


def _row(store: History, job: Job, before: dict[str, State]) -> dict[str, Any]:
    files = [store.image_file(job.id, OWNER, image.index) for image in job.images]
    hashes = [sha256(file.read_bytes()).hexdigest() for file in files]
    return {
        "prompt": job.request.prompt,
        "before": before[job.request.prompt],
        "after": job.state,
        "error": job.error and type(job.error).__name__,
        "said": str(job.error),
        "whole": [image.sha256 for image in job.images] == hashes,
        "images": len(job.images),
    }


# -- rounds --------------------------------------------------------------------


def _forked(work: Callable[[], None]) -> int:
    """Run in a child; the signal that ended it, or minus its exit status."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException as exc:
            print(repr(exc), file=sys.stderr, flush=True)
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)


def _round(number: int, options: argparse.Namespace) -> None:
    name, data_dir = options.boundary, options.directory / "data"
    prompts = [f"{name} {number} {index}" for index in range(JOBS)]
    turn = number % BOUNDARIES[name][1] + 1
    holds = name == "polling"  # or the work would be over at the first question
    if holds:
        _control(options.control, "hold")
    ended = _forked(lambda: victim(data_dir, name, prompts, turn))
    if holds:
        _control(options.control, "release")
    assert ended == signal.SIGKILL, f"round {number}: the victim ended with {ended}"
    ended = _forked(lambda: survivor(data_dir, prompts, options.directory / "report.jsonl"))
    assert ended == 0, f"round {number}: the survivor ended with {ended}"


def _control(address: str, action: str) -> None:
    httpx.post(f"{address}/{action}", trust_env=False).raise_for_status()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("boundary", choices=BOUNDARIES)
    parser.add_argument("rounds", type=int)
    parser.add_argument("control")
    options = parser.parse_args()
    History.open(options.directory / "data").close()  # or each first round would migrate
    for number in range(options.rounds):
        _round(number, options)


if __name__ == "__main__":
    main()
