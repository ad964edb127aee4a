"""A job's adapters: brought to the backend before anything is sent, or nothing is sent at all."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import SecretStr

import jobs.runner
from backends.base import Backend, CancelOutcome, Capabilities, Resources
from backends.demo import DemoBackend
from backends.hosted import HostedBackend
from generation.errors import (
    AdapterGated,
    AdapterNotFound,
    AdapterRefused,
    AdapterUnavailable,
    HubLimited,
    JobFailed,
    KeyRejected,
    NotSent,
    PlaygroundError,
)
from generation.events import Event
from generation.lora_file import LoraFile
from generation.parsing import parse_request
from generation.request import GenerationRequest
from history.records import State
from history.store import History
from jobs import JobView, Runner
from jobs.fetching import Fetching
from jobs.telling import AdapterFetched, Happening
from tests.faults.bench import KEY, PATIENCE, QUICK, Watcher, assert_says
from tests.faults.puppet import TICK, Puppet, Work
from tests.faults.seen import Seen

ROOT = Path(__file__).resolve().parents[2]
OWNER = "me"
PROMPT = "a fox"
SHA = "5" * 40
FIRST, SECOND = "studio/pixel-art", "nordlicht/film-grain"
ADDRESS = f"https://huggingface.co/{FIRST}/resolve/{SHA}/pixel.safetensors"
FOUND = LoraFile(FIRST, "pixel.safetensors", SHA, url=ADDRESS)
Report = Callable[[int, int | None], None]


@dataclass
class Shelf:
    """Adapters that come when the test lets them."""

    answers: dict[str, LoraFile | Exception] = field(default_factory=dict)
    asked: list[tuple[str, str, bool]] = field(default_factory=list)
    reports: dict[str, Report] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    """Paths of which somebody stopped waiting."""

    async def hand_over(
        self, path: str, owner: str, *, as_file: bool = False, progress: Report | None = None
    ) -> LoraFile:
        self.asked.append((path, owner, as_file))
        assert progress is not None
        self.reports[path] = progress
        try:
            while path not in self.answers:
                await asyncio.sleep(TICK)
        except asyncio.CancelledError:
            self.left.append(path)
            raise
        answer = self.answers[path]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def report(self, path: str, done: int, total: int | None) -> None:
        """Progress as a download tells it: from a thread of its own."""
        thread = threading.Thread(target=self.reports[path], args=(done, total))
        thread.start()
        thread.join(PATIENCE)


@dataclass
class Fitter(Puppet):
    """A puppet that reads adapters, and says what it was given."""

    source: Literal["url", "file"] | None = "url"
    refusal: PlaygroundError | Exception | None = None
    prepared: list[dict[str, LoraFile]] = field(default_factory=list)
    given: list[dict[str, LoraFile]] = field(default_factory=list)

    def capabilities(self, resources: Resources) -> Capabilities:
        return replace(super().capabilities(resources), lora_source=self.source)

    async def prepare(self, request: GenerationRequest, resources: Resources) -> Resources:
        self.prepared.append(dict(resources.lora_files))
        if self.refusal is not None:
            raise self.refusal
        return resources

    async def generate(
        self, request: GenerationRequest, resources: Resources
    ) -> AsyncIterator[Event]:
        self.given.append(dict(resources.lora_files))
        async for event in super().generate(request, resources):
            yield event


class Stage:
    """A runner whose backend and whose adapters the test moves by hand."""

    def __init__(self, folder: Path, backend: Backend, name: str) -> None:
        self.folder = folder
        self.backend = backend
        self.name = name
        self.shelf = Shelf()
        self.open()

    def open(self) -> None:
        self.history = History.open(self.folder)
        self.told: list[Happening] = []
        listeners = [self.told.append]
        self.runner = Runner(
            self.history, {self.name: self.backend}, self.shelf, listeners=listeners
        )
        self.runner.start()

    def close(self) -> None:
        self.runner.close()
        self.history.close()

    def submit(self, *paths: str, prompt: str = PROMPT) -> str:
        values = {
            "prompt": prompt,
            "image_size": {"width": 64, "height": 48},
            "loras": [{"path": path, "scale": 0.5} for path in paths],
        }
        return self.runner.submit(parse_request(values), OWNER, self.name).id

    def view(self, job_id: str) -> JobView:
        return self.runner.view(job_id, OWNER)

    def state(self, job_id: str) -> State:
        """By the journal."""
        return self.history.get(job_id, OWNER).state

    def until(self, job_id: str, true: Callable[[JobView], bool]) -> JobView:
        async def watch() -> JobView:
            async with asyncio.timeout(PATIENCE):
                async for view in self.runner.watch(job_id, OWNER):
                    if true(view):
                        return view
            raise AssertionError(f"it never came to that: {self.view(job_id)}")

        return asyncio.run(watch())

    def settled(self, job_id: str) -> JobView:
        return self.until(job_id, lambda view: view.settled)

    def fetching(self, job_id: str, path: str) -> JobView:
        """The job, as soon as it waits for this adapter."""
        view = self.until(job_id, lambda v: v.fetching is not None and v.fetching.name == path)
        self.until_asked(path)
        return view

    def until_asked(self, path: str) -> None:
        """The view is a moment earlier than the question to the shelf."""
        for _ in range(int(PATIENCE / TICK)):
            if path in self.shelf.reports:
                return
            threading.Event().wait(TICK)
        raise AssertionError(f"nobody asked for {path}")


Make = Callable[..., Stage]


@pytest.fixture
def new_stage(data_folder: Path) -> Iterator[Make]:
    stages: list[Stage] = []

    def make(backend: Backend, name: str = "puppet") -> Stage:
        stages.append(Stage(data_folder, backend, name))
        return stages[-1]

    yield make
    for stage in stages:
        stage.close()


@pytest.fixture(autouse=True)
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a job that is still fetching when the playground is closed."""
    monkeypatch.setattr(jobs.runner, "LAST_POST", 0.05)


@pytest.fixture
def fitter() -> Fitter:
    return Fitter()


@pytest.fixture
def stage(new_stage: Make, fitter: Fitter) -> Stage:
    return new_stage(fitter)


def ready(fitter: Fitter, prompt: str = PROMPT) -> Work:
    """The endpoint takes the job and finishes it at once."""
    work = fitter.work(prompt)
    work.answer = work.done = True
    return work


# -- before anything is sent ---------------------------------------------------


def test_an_adapter_is_there_before_submitting_is_committed(stage: Stage, fitter: Fitter) -> None:
    ready(fitter)
    job_id = stage.submit(FIRST)
    stage.fetching(job_id, FIRST)
    assert stage.state(job_id) is State.INTENT
    assert (fitter.work(PROMPT).posts, fitter.prepared) == (0, [])
    stage.shelf.answers[FIRST] = FOUND
    assert stage.settled(job_id).job.state is State.STORED
    assert fitter.prepared == fitter.given == [{FIRST: FOUND}]
    assert fitter.work(PROMPT).posts == 1


def test_the_state_is_intent_while_the_backend_prepares(
    stage: Stage, fitter: Fitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload to the vendor's storage is no post either."""
    states: list[State] = []
    prepare = fitter.prepare

    async def spied(request: GenerationRequest, resources: Resources) -> Resources:
        [job] = await asyncio.to_thread(stage.history.search, OWNER)
        states.append(job.state)
        return await prepare(request, resources)

    monkeypatch.setattr(fitter, "prepare", spied)
    ready(fitter)
    stage.shelf.answers[FIRST] = FOUND
    assert stage.settled(stage.submit(FIRST)).job.state is State.STORED
    assert states == [State.INTENT]


def test_adapters_are_asked_for_in_their_order_and_for_their_owner(
    stage: Stage, fitter: Fitter
) -> None:
    ready(fitter)
    second = LoraFile(SECOND, url="https://elsewhere.example/grain.safetensors")
    stage.shelf.answers = {FIRST: FOUND, SECOND: second}
    stage.settled(stage.submit(SECOND, FIRST))
    assert stage.shelf.asked == [(SECOND, OWNER, False), (FIRST, OWNER, False)]
    assert fitter.given == [{SECOND: second, FIRST: FOUND}]


def test_a_backend_of_this_machine_gets_files(new_stage: Make) -> None:
    fitter = Fitter(billed=False, source="file")
    stage = new_stage(fitter)
    ready(fitter)
    here = LoraFile(FIRST, "pixel.safetensors", SHA, local=Path("pixel.safetensors"))
    stage.shelf.answers[FIRST] = here
    assert stage.settled(stage.submit(FIRST)).job.state is State.STORED
    assert stage.shelf.asked == [(FIRST, OWNER, True)]
    assert fitter.given == [{FIRST: here}]


def test_without_adapters_nobody_is_asked(stage: Stage, fitter: Fitter) -> None:
    ready(fitter)
    assert stage.settled(stage.submit()).job.state is State.STORED
    assert (stage.shelf.asked, fitter.prepared, fitter.given) == ([], [], [{}])


def test_the_demo_needs_no_adapter_file(new_stage: Make) -> None:
    stage = new_stage(DemoBackend(pace=0), "demo")
    view = stage.settled(stage.submit(FIRST))
    assert (view.job.state, stage.shelf.asked) == (State.STORED, [])


# -- what can't be brought -----------------------------------------------------

REFUSALS = [
    AdapterNotFound(reference=FIRST),
    AdapterGated(repo=FIRST, link=f"https://huggingface.co/{FIRST}"),
    AdapterRefused(name=FIRST, reason="it was made for FLUX"),
    AdapterUnavailable(name=FIRST, reason="it did not arrive whole"),
    HubLimited(retry_after=30),
]


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: type(error).__name__)
def test_an_adapter_that_cant_be_had_ends_the_job(
    stage: Stage, fitter: Fitter, error: PlaygroundError
) -> None:
    ready(fitter)
    stage.shelf.answers[FIRST] = error
    view = stage.settled(stage.submit(FIRST))
    assert (view.job.state, view.fetching) == (State.FAILED, None)
    assert_says(view.problem, type(error))
    assert fitter.work(PROMPT).posts == 0
    kept = stage.history.get(view.job.id, OWNER)
    assert kept.error is not None and str(kept.error) == str(error)


def test_the_endpoint_hears_nothing_of_a_job_without_its_adapter(
    new_stage: Make, seen: Seen
) -> None:
    stage = new_stage(HostedBackend(SecretStr(KEY), QUICK), "hosted")
    stage.shelf.answers[FIRST] = AdapterRefused(name=FIRST, reason="it was made for FLUX")
    view = stage.settled(stage.submit(FIRST))
    assert_says(view.problem, AdapterRefused, "FLUX", "nothing was sent")
    assert seen.exchanges() == []


def test_the_second_adapter_is_as_needed_as_the_first(stage: Stage, fitter: Fitter) -> None:
    ready(fitter)
    stage.shelf.answers = {FIRST: FOUND, SECOND: AdapterNotFound(reference=SECOND)}
    view = stage.settled(stage.submit(FIRST, SECOND))
    assert_says(view.problem, AdapterNotFound, SECOND)
    assert (fitter.work(PROMPT).posts, fitter.prepared) == (0, [])


def test_a_refusal_of_the_vendors_storage_is_one_of_the_job(stage: Stage, fitter: Fitter) -> None:
    ready(fitter)
    stage.shelf.answers[FIRST] = FOUND
    fitter.refusal = KeyRejected(status=401, reason="no such key")
    view = stage.settled(stage.submit(FIRST))
    assert view.job.state is State.FAILED
    assert_says(view.problem, KeyRejected)
    assert fitter.work(PROMPT).posts == 0


@pytest.mark.parametrize("where", ["shelf", "backend"])
def test_a_mistake_of_ours_while_fetching_is_not_charged(
    stage: Stage, fitter: Fitter, where: str
) -> None:
    ready(fitter)
    bug = ZeroDivisionError("ours")
    stage.shelf.answers[FIRST] = bug if where == "shelf" else FOUND
    fitter.refusal = bug if where == "backend" else None
    view = stage.settled(stage.submit(FIRST))
    assert view.job.state is State.FAILED
    assert_says(view.problem, JobFailed, "not charged", "ZeroDivisionError")
    assert fitter.work(PROMPT).posts == 0


# -- progress ------------------------------------------------------------------


def shown(views: list[JobView]) -> list[Fetching | None]:
    """What watchers saw of it, each once in a row."""
    seen = [view.fetching for view in views]
    return [each for at, each in enumerate(seen) if at == 0 or each != seen[at - 1]]


def test_progress_is_seen_and_only_while_it_lasts(stage: Stage, fitter: Fitter) -> None:
    ready(fitter)
    job_id = stage.submit(FIRST)
    stage.fetching(job_id, FIRST)
    watcher = Watcher(stage.runner, job_id)
    for done in (10, 10, 20):
        stage.shelf.report(FIRST, done, 20)
        stage.until(job_id, lambda v, done=done: v.fetching == Fetching(FIRST, 5 * done))  # type: ignore[misc]
    stage.shelf.answers[FIRST] = FOUND
    views = watcher.views()
    assert shown(views) == [Fetching(FIRST), Fetching(FIRST, 50), Fetching(FIRST, 100), None]
    during = {view.job.state for view in views if view.fetching}
    assert during == {State.INTENT}


def test_a_percent_is_shown_once_and_never_goes_back(stage: Stage) -> None:
    job_id = stage.submit(FIRST)
    stage.fetching(job_id, FIRST)
    stage.shelf.report(FIRST, 500, 1000)
    before = stage.until(job_id, lambda view: view.fetching == Fetching(FIRST, 50)).version
    for done in (501, 509, 500, 3):
        stage.shelf.report(FIRST, done, 1000)
    stage.shelf.report(FIRST, 510, 1000)
    after = stage.until(job_id, lambda view: view.fetching == Fetching(FIRST, 51)).version
    assert after == before + 1


def test_without_a_size_there_is_no_percent(stage: Stage, fitter: Fitter) -> None:
    ready(fitter)
    job_id = stage.submit(FIRST)
    stage.fetching(job_id, FIRST)
    stage.shelf.report(FIRST, 12345, None)
    assert stage.view(job_id).fetching == Fetching(FIRST)
    stage.shelf.answers[FIRST] = FOUND
    assert stage.settled(job_id).fetching is None


def test_an_adapter_that_was_copied_is_told_with_its_bytes(stage: Stage, fitter: Fitter) -> None:
    """One that was here already isn't: nobody waited for it."""
    ready(fitter)
    job_id = stage.submit(FIRST, SECOND)
    stage.fetching(job_id, FIRST)
    for done in (500, 2000, 1500):
        stage.shelf.report(FIRST, done, 2000)
    stage.shelf.answers |= {FIRST: FOUND, SECOND: replace(FOUND, path=SECOND)}
    stage.settled(job_id)
    (told,) = [told for told in stage.told if isinstance(told, AdapterFetched)]
    assert told.size == 2000 and 0 < told.seconds < PATIENCE


def test_a_late_word_of_a_download_is_not_shown(stage: Stage, fitter: Fitter) -> None:
    job_id = stage.submit(FIRST, SECOND)
    stage.fetching(job_id, FIRST)
    stage.shelf.answers[FIRST] = FOUND
    stage.fetching(job_id, SECOND)
    stage.shelf.report(FIRST, 1, 2)  # of the one before
    stage.shelf.report(SECOND, 3, 4)
    view = stage.until(job_id, lambda view: view.fetching == Fetching(SECOND, 75))
    stage.shelf.answers[SECOND] = LoraFile(SECOND, url="https://elsewhere.example/a.safetensors")
    fitter.work(PROMPT).answer = True
    stage.until(job_id, lambda view: view.job.state is State.SUBMITTED)
    stage.shelf.report(SECOND, 4, 4)
    fitter.work(PROMPT).done = True
    end = stage.settled(job_id)
    stage.shelf.report(SECOND, 4, 4)
    assert (end.fetching, stage.view(job_id).fetching) == (None, None)
    assert end.job.state is State.STORED and end.version > view.version


# -- stopped, closed, killed ---------------------------------------------------


def test_stopping_while_fetching_sends_nothing(stage: Stage, fitter: Fitter) -> None:
    ready(fitter)
    job_id = stage.submit(FIRST)
    stage.fetching(job_id, FIRST)
    assert stage.runner.cancel(job_id, OWNER) is CancelOutcome.REQUESTED
    view = stage.settled(job_id)
    assert (view.job.state, view.problem, view.fetching) == (State.CANCELLED, None, None)
    assert stage.shelf.left == [FIRST], "nobody waits for it any more"
    stage.shelf.answers[FIRST] = FOUND
    stage.shelf.report(FIRST, 1, 1)
    assert stage.view(job_id).fetching is None
    assert (fitter.work(PROMPT).posts, fitter.work(PROMPT).cancels) == (0, 0)


def test_one_stopped_job_leaves_the_other_its_adapter(stage: Stage, fitter: Fitter) -> None:
    for prompt in ("one", "two"):
        ready(fitter, prompt)
    one, two = stage.submit(FIRST, prompt="one"), stage.submit(FIRST, prompt="two")
    for job_id in (one, two):
        stage.fetching(job_id, FIRST)
    stage.runner.cancel(one, OWNER)
    stage.shelf.answers[FIRST] = FOUND
    assert stage.settled(two).job.state is State.STORED
    assert stage.settled(one).job.state is State.CANCELLED
    assert (fitter.work("one").posts, fitter.work("two").posts) == (0, 1)


def test_a_playground_closed_while_fetching_says_so_at_its_next_start(
    stage: Stage, fitter: Fitter
) -> None:
    ready(fitter)
    job_id = stage.submit(FIRST)
    stage.fetching(job_id, FIRST)
    stage.close()
    stage.open()
    view = stage.settled(job_id)
    assert_says(view.problem, NotSent, "nothing was sent")
    assert (view.job.state, fitter.work(PROMPT).posts) == (State.FAILED, 0)


def test_a_free_job_begins_again_with_its_adapter(new_stage: Make) -> None:
    fitter = Fitter(billed=False, source="file")
    stage = new_stage(fitter)
    ready(fitter)
    job_id = stage.submit(FIRST)
    stage.fetching(job_id, FIRST)
    stage.close()
    stage.shelf.answers[FIRST] = FOUND
    stage.open()
    assert stage.settled(job_id).job.state is State.STORED
    assert [asked[0] for asked in stage.shelf.asked] == [FIRST, FIRST]


class LastShelf(Shelf):
    """The process is killed while a file is on its way."""

    async def hand_over(self, *_: Any, **__: Any) -> LoraFile:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("still alive")


def die_while_fetching(folder: str) -> None:
    """What the killed process does; run by the test below."""
    history = History.open(Path(folder))
    runner = Runner(history, {"puppet": Fitter()}, LastShelf())
    runner.start()
    runner.submit(parse_request({"prompt": PROMPT, "loras": [{"path": FIRST}]}), OWNER, "puppet")
    threading.Event().wait(PATIENCE)


def test_killed_while_fetching_means_not_sent(
    data_folder: Path, fitter: Fitter, new_stage: Make
) -> None:
    script = (
        f"from tests.unit.test_runner_adapters import *; die_while_fetching({str(data_folder)!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, timeout=PATIENCE
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    ready(fitter)
    stage = new_stage(fitter)
    [job] = stage.history.search(OWNER)
    view = stage.settled(job.id)
    assert_says(view.problem, NotSent, "nothing was sent", "costs nothing twice")
    assert (view.job.state, stage.shelf.asked) == (State.FAILED, [])
    assert fitter.work(PROMPT).posts == 0


def test_a_job_that_the_endpoint_has_fetches_nothing_again(stage: Stage, fitter: Fitter) -> None:
    fitter.work(PROMPT).answer = True
    stage.shelf.answers[FIRST] = FOUND
    job_id = stage.submit(FIRST)
    stage.until(job_id, lambda view: view.job.state is State.SUBMITTED)
    stage.close()
    stage.shelf.asked.clear()
    fitter.prepared.clear()
    stage.open()
    fitter.work(PROMPT).done = True
    assert stage.settled(job_id).job.state is State.STORED
    assert (stage.shelf.asked, fitter.prepared, fitter.work(PROMPT).posts) == ([], [], 1)


# -- what was really sent ------------------------------------------------------


def test_the_receipt_says_which_file_of_which_commit(new_stage: Make, seen: Seen) -> None:
    stage = new_stage(HostedBackend(SecretStr(KEY), QUICK), "hosted")
    uploaded = LoraFile(
        f"upload:{'a' * 64}", "mine.safetensors", "a" * 64, url="https://v3.fal.media/mine"
    )
    stage.shelf.answers = {FIRST: FOUND, uploaded.path: uploaded}
    view = stage.settled(stage.submit(FIRST, uploaded.path))
    assert view.job.state is State.STORED and view.job.receipt is not None
    assert view.job.receipt.as_json()["loras"] == [
        {"path": FIRST, "file": "pixel.safetensors", "sha": SHA, "scale": 0.5, "applied": None},
        {
            "path": uploaded.path,
            "file": "mine.safetensors",
            "sha": "a" * 64,
            "scale": 0.5,
            "applied": None,
        },
    ]
    [body] = seen.submitted_bodies()
    assert body["loras"] == [
        {"path": ADDRESS, "scale": 0.5},
        {"path": uploaded.url, "scale": 0.5},
    ]


def test_a_file_that_only_we_have_is_never_posted(
    new_stage: Make, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever went wrong on the way to the vendor's storage."""
    backend = HostedBackend(SecretStr(KEY), QUICK)

    async def forgets(_request: GenerationRequest, resources: Resources) -> Resources:
        return resources

    monkeypatch.setattr(backend, "prepare", forgets)
    stage = new_stage(backend, "hosted")
    path = f"upload:{'a' * 64}"
    stage.shelf.answers[path] = LoraFile(path, "mine.safetensors", local=Path("mine.safetensors"))
    view = stage.settled(stage.submit(path))
    assert_says(view.problem, AdapterUnavailable, "not uploaded")
    assert (view.job.state, seen.posts()) == (State.FAILED, [])
