"""The real runner, hosted backend and history in front of the stand-in, as tests drive them."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Self

from pydantic import SecretStr

from backends.hosted import HostedBackend, Pace
from generation.errors import PlaygroundError
from generation.parsing import Parsed, parse_request
from history.records import Job, State
from history.store import History
from jobs import JobView, Runner
from jobs.telling import Listener
from tests.faults.seen import Seen
from tests.standins.fal import FalStandIn

KEY: Final = "bench-key-id:bench-key-secret"
OWNER: Final = "me"
PATIENCE: Final = 40.0  # seconds: two slow cores may be busy with something else
QUICK: Final = Pace(
    poll=0.02, poll_slow=0.05, miss=0.01, miss_slow=0.05, deadline=90, retry_after=2, media=30,
    submit=30, answer=15, result=30,
)  # fmt: skip


class Bench:
    """One data folder, and the playground's half below the page working on it."""

    def __init__(self, folder: Path, fal: FalStandIn, seen: Seen, **pace: float) -> None:
        self.folder = folder
        self.fal = fal
        self.seen = seen
        self._pace = replace(QUICK, **pace)  # type: ignore[arg-type]
        self._prompts = (f"a fox, number {number}" for number in itertools.count(1))
        self.listeners: list[Listener] = []
        self.open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.assert_nothing_lost()
        finally:
            self.close()
        if kind is None:
            assert_whole_and_keyless(self.folder)

    def open(self) -> None:
        """Start as a new process would."""
        self.history = History.open(self.folder)
        self.backend = HostedBackend(SecretStr(KEY), self._pace)
        self.runner = Runner(self.history, {"hosted": self.backend}, listeners=self.listeners)
        self.runner.start()

    def close(self) -> None:
        self.runner.close()
        self.history.close()

    def restart(self) -> None:
        """End this process properly, and begin another."""
        self.close()
        self.open()

    # -- one job ---------------------------------------------------------------

    def submit(self, **fields: Any) -> str:
        """A small job with a prompt of its own; its id."""
        return self.runner.submit(self.parsed(**fields), OWNER, "hosted").id

    def parsed(self, **fields: Any) -> Parsed:
        """What a small job asks for."""
        small = {"prompt": next(self._prompts), "image_size": {"width": 64, "height": 48}}
        return parse_request(small | fields)

    def run(self, **fields: Any) -> JobView:
        """A job and its end."""
        return self.settled(self.submit(**fields))

    def view(self, job_id: str) -> JobView:
        return self.runner.view(job_id, OWNER)

    def job(self, job_id: str) -> Job:
        """The job as the journal has it."""
        return self.history.get(job_id, OWNER)

    def settled(self, job_id: str) -> JobView:
        return self.until(job_id, lambda view: view.settled)

    def in_state(self, job_id: str, *states: State) -> JobView:
        return self.until(job_id, lambda view: view.job.state in states)

    def until(self, job_id: str, true: Callable[[JobView], bool]) -> JobView:
        """The first view of which the predicate holds."""
        give_up = time.monotonic() + PATIENCE
        while not true(view := self.view(job_id)):
            assert time.monotonic() < give_up, f"still {view}; fal saw {self.seen.summary()}"
            time.sleep(0.005)
        return view

    def watch(self, job_id: str) -> Watcher:
        """Every view of a job, seen from a thread and an event loop of their own."""
        return Watcher(self.runner, job_id)

    def request_id(self, job_id: str) -> str:
        """The endpoint's name for a job, as soon as the journal has it."""
        handle = self.until(job_id, lambda view: view.job.handle is not None).job.handle
        assert handle is not None
        return handle["request_id"]

    def submitted(self, **fields: Any) -> str:
        """A job that the endpoint has; its id here."""
        job_id = self.submit(**fields)
        self.request_id(job_id)
        return job_id

    # -- what a test finds out -------------------------------------------------

    def files(self) -> list[Path]:
        """Image files, whole or not; previews aren't counted."""
        return sorted(path for path in self.folder.glob("images/**/*") if path.is_file())

    def polls(self, at_least: int) -> None:
        """Wait for so many more status requests."""
        wanted = len(self.seen.exchanges("status")) + at_least
        self.seen.wait_until(lambda ledger: len(ledger.exchanges("status")) >= wanted, PATIENCE)

    def assert_nothing_lost(self) -> None:
        """Every job that the endpoint took is in the journal: by its id, or as UNKNOWN."""
        jobs = self.history.search(OWNER, limit=500)
        paid = [post for post in self.seen.posts() if post.accepted]
        for post in paid:
            prompt = json.loads(post.body)["prompt"]
            assert any(_accounts_for(job, post.request_id) for job in jobs
                       if job.request.prompt == prompt), prompt  # fmt: skip
        prompts = [json.loads(post.body)["prompt"] for post in paid]
        assert len(prompts) == len(set(prompts)), "paid twice"


class Watcher:
    """Collects what `Runner.watch` yields; `views` when it has ended."""

    def __init__(self, runner: Runner, job_id: str) -> None:
        self.seen: list[JobView] = []
        self._watching = threading.Event()
        self._runner = runner
        self._job_id = job_id
        self._pool = ThreadPoolExecutor(1)
        self._done = self._pool.submit(lambda: asyncio.run(self._collect()))
        assert self._watching.wait(PATIENCE)

    async def _collect(self) -> None:
        async for view in self._runner.watch(self._job_id, OWNER):
            self.seen.append(view)
            self._watching.set()

    def views(self) -> list[JobView]:
        """All views up to the settled one."""
        self._done.result(PATIENCE)
        self._pool.shutdown()
        return self.seen


def _accounts_for(job: Job, request_id: str | None) -> bool:
    known = job.handle and job.handle["request_id"] == request_id
    return bool(known) or job.state in (State.UNKNOWN, State.SUBMITTING)


def assert_says(error: PlaygroundError | None, kind: type[PlaygroundError], *words: str) -> None:
    """The error is exactly this one, and cause and hint hold these words."""
    assert type(error) is kind, error
    said = f"{error.cause} {error.remedy}"
    assert [word for word in words if word.lower() not in said.lower()] == [], said
    assert "{" not in said and "Traceback" not in said


def assert_whole_and_keyless(folder: Path, secrets: Sequence[str] = (KEY,)) -> None:
    """No partial file, and no key in any file."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert [path for path in files if path.suffix == ".part"] == []
    held = [(p, s) for p in files for s in secrets if s.encode() in p.read_bytes()]
    assert held == []
