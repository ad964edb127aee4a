"""The runner: journaled before every action, watched from anywhere, and nothing paid is lost."""

from __future__ import annotations

import asyncio
import logging
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from backends.base import CancelOutcome
from generation.errors import (
    BackendUnavailable,
    DatabaseBusy,
    DiskFull,
    InvalidRequest,
    JobExpired,
    JobFailed,
    JobOverdue,
    KeyMissing,
    KeyRevoked,
    MediaBroken,
    MediaExpired,
    NotInHistory,
    NotSent,
    OutcomeUnknown,
    StorageError,
)
from generation.events import Event, Running
from generation.parsing import parse_request
from history.records import Job, State
from history.store import History
from jobs import JobView, Runner, flight, runner
from jobs.board import Board
from tests.faults.bench import PATIENCE, Bench, assert_says
from tests.faults.puppet import Puppet, Work

ME, YOU = "me", "you"
CANARY = "canary-id:canary-secret"


class Stage:
    """A runner over a history, with a backend that the test moves by hand."""

    def __init__(self, folder: Path, *, billed: bool = True) -> None:
        self.folder = folder
        self.puppet = Puppet(billed)
        self.open()

    def open(self) -> None:
        self.history = History.open(self.folder)
        self.runner = Runner(self.history, {"puppet": self.puppet})

    def close(self) -> None:
        self.runner.close()
        self.history.close()

    def restart(self) -> None:
        self.close()
        self.open()
        self.runner.start()

    def submit(self, prompt: str = "a fox", owner: str = ME) -> str:
        return self.runner.submit(parse_request({"prompt": prompt}), owner, "puppet").id

    def submitted(self, prompt: str = "a fox", owner: str = ME) -> str:
        """A job that the endpoint has, in progress."""
        work = self.puppet.work(prompt)
        work.answer, work.steps = True, 1
        job_id = self.submit(prompt, owner)
        self.until(job_id, lambda view: isinstance(view.live, Running), owner)
        return job_id

    def work(self, prompt: str = "a fox") -> Work:
        return self.puppet.work(prompt)

    def view(self, job_id: str, owner: str = ME) -> JobView:
        return self.runner.view(job_id, owner)

    def state(self, job_id: str, owner: str = ME) -> State:
        """By the journal."""
        return self.history.get(job_id, owner).state

    def until(self, job_id: str, true: Callable[[JobView], bool], owner: str = ME) -> JobView:
        eventually(lambda: true(self.view(job_id, owner)))
        return self.view(job_id, owner)

    def settled(self, job_id: str, owner: str = ME) -> JobView:
        return self.until(job_id, lambda view: view.settled, owner)

    def in_state(self, job_id: str, state: State, owner: str = ME) -> JobView:
        return self.until(job_id, lambda view: view.job.state is state, owner)


def eventually(true: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < give_up, "it never came to that"
        time.sleep(0.002)


@pytest.fixture
def new_stage(data_folder: Path) -> Iterator[Callable[..., Stage]]:
    stages: list[Stage] = []

    def make(**options: Any) -> Stage:
        stages.append(Stage(data_folder, **options))
        stages[-1].runner.start()
        return stages[-1]

    yield make
    for stage in stages:
        stage.close()


@pytest.fixture
def stage(new_stage: Callable[..., Stage]) -> Stage:
    return new_stage()


@pytest.fixture
def free(new_stage: Callable[..., Stage]) -> Stage:
    """With a backend that bills nothing and works inside its stream."""
    return new_stage(billed=False)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flight, "STORE_AGAIN", 0.05)
    monkeypatch.setattr(flight, "GRACE_RUNNING", 0.2)
    monkeypatch.setattr(flight, "GRACE_QUEUED", 0.2)


def failing(
    monkeypatch: pytest.MonkeyPatch, history: History, method: str, *errors: StorageError,
    state: State | None = None,
) -> None:  # fmt: skip
    """Let the next calls of a method of the history fail; of `advance` those to `state`."""
    left, real = list(errors), getattr(history, method)

    def faulty(job_id: str, *rest: Any, **values: Any) -> Any:
        if left and (state is None or rest[0] is state):
            raise left.pop(0)
        return real(job_id, *rest, **values)

    monkeypatch.setattr(history, method, faulty)


# -- committed first -----------------------------------------------------------


def test_every_state_is_committed_before_the_next_action(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fal had seen at the moment when each commit was through."""
    order: list[tuple[str, set[str]]] = []

    def spied(method: str) -> None:
        real = getattr(bench.history, method)

        def spy(job_id: str, *rest: Any, **values: Any) -> Any:
            job = real(job_id, *rest, **values)
            time.sleep(0.1)  # whoever doesn't wait for the commit is seen acting meanwhile
            order.append((job.state.value, {e.stage for e in bench.seen.exchanges()}))
            return job

        monkeypatch.setattr(bench.history, method, spy)

    for method in ("create", "advance", "store"):
        spied(method)
    assert bench.run().job.state is State.STORED
    assert order == [
        ("INTENT", set()),
        ("SUBMITTING", set()),
        ("SUBMITTED", {"submit"}),
        ("COMPLETED", {"submit", "status", "result"}),
        ("STORED", {"submit", "status", "result", "media"}),
    ]


def test_submit_returns_once_the_job_is_journaled(stage: Stage) -> None:
    stage.work().answer = True
    parsed = parse_request({"prompt": "a fox", "loras": [{"path": "o/a"}, {"path": "o/a"}]})
    job = stage.runner.submit(parsed, ME, "puppet")
    kept = stage.history.get(job.id, ME)
    assert kept.request.prompt == "a fox" and kept.notices == parsed.notices != ()
    assert kept.request.seed is not None, "drawn here, so that it can be made again"


def test_what_cant_run_is_refused_and_not_journaled(stage: Stage) -> None:
    strong = parse_request({"prompt": "a fox", "loras": [{"path": "o/a", "scale": -1}]})
    with pytest.raises(InvalidRequest, match=r"loras\.0\.scale.*between 0 and 4"):
        stage.runner.submit(strong, ME, "puppet")
    with pytest.raises(BackendUnavailable, match="no such backend"):
        stage.runner.submit(parse_request({"prompt": "a fox"}), ME, "dreams")
    assert stage.history.search(ME) == [] and stage.puppet.works == {}


def test_a_job_that_cant_be_journaled_isnt_sent(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, stage.history, "create", DiskFull())
    with pytest.raises(DiskFull, match="nothing is sent"):
        stage.submit()
    failing(monkeypatch, stage.history, "advance", DatabaseBusy(), state=State.SUBMITTING)
    view = stage.settled(stage.submit())
    assert_says(view.problem, DatabaseBusy)
    assert stage.puppet.works == {}
    stage.restart()
    assert view.job.state in (State.FAILED, State.INTENT) and stage.puppet.works == {}


@pytest.mark.parametrize("state", [State.SUBMITTED, State.COMPLETED])
def test_what_happened_at_the_endpoint_is_written_until_it_is(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, state: State
) -> None:
    """A locked database can't make a paid job unhappen."""
    failing(monkeypatch, stage.history, "advance", *(DatabaseBusy() for _ in range(9)), state=state)
    stage.work().answer = True
    job_id = stage.submit()
    if state is State.COMPLETED:
        stage.in_state(job_id, State.SUBMITTED)
        stage.work().done = True
    waiting = stage.until(job_id, lambda view: view.retrying)
    assert_says(waiting.problem, DatabaseBusy)
    assert not waiting.settled
    stage.work().done = True
    assert stage.in_state(job_id, State.STORED).problem is None
    assert (stage.work().posts, stage.work().fetches) == (1, 1)


# -- watched from anywhere -----------------------------------------------------


def test_watchers_on_different_event_loops_all_see_the_job_to_its_end(bench: Bench) -> None:
    bench.fal.hold()
    job_id = bench.submit()
    watchers = [bench.watch(job_id) for _ in range(5)]
    late = bench.request_id(job_id)
    watchers.append(bench.watch(job_id))
    bench.fal.release()
    for views in [watcher.views() for watcher in watchers]:
        versions = [view.version for view in views]
        assert versions == sorted(set(versions)), "each view is new"
        assert views[-1].job.state is State.STORED
        assert all(not view.settled for view in views[:-1])
    after = bench.watch(job_id).views()
    assert [view.job.state for view in after] == [State.STORED] and late in bench.seen.paid_jobs()


def test_a_watcher_that_leaves_changes_nothing(stage: Stage) -> None:
    job_id = stage.submitted()

    async def look_once() -> JobView:
        async for view in stage.runner.watch(job_id, ME):
            return view
        raise AssertionError

    assert asyncio.run(look_once()).job.id == job_id
    stage.work().done = True
    assert stage.in_state(job_id, State.STORED).problem is None


def changes_in_a_thread(board: Board, since: int, timeout: float) -> Callable[[], list[JobView]]:
    """Begin to wait on another loop; call it for what came."""
    ready = threading.Event()

    async def wait() -> list[JobView]:
        asyncio.get_running_loop().call_soon(ready.set)
        return await board.changes(ME, since, timeout)

    pool = ThreadPoolExecutor(1)
    waiting = pool.submit(lambda: asyncio.run(wait()))
    assert ready.wait(PATIENCE)
    return lambda: waiting.result(PATIENCE)


def test_changes_wakes_up_for_a_change_of_the_owners_own(stage: Stage) -> None:
    job_id, other = stage.submitted(), stage.submitted("yours", YOU)
    since = stage.view(job_id).version
    came = changes_in_a_thread(stage.runner.board, max(since, stage.view(other, YOU).version), 60)
    stage.work("yours").steps = 5
    stage.until(other, lambda view: view.live == Running(5, 8), YOU)
    started = time.monotonic()
    stage.work().steps = 2
    [view] = came()
    assert view.job.id == job_id and view.live == Running(2, 8) and view.version > since
    assert time.monotonic() - started < 40


def test_changes_gives_at_once_what_was_missed_and_nothing_at_the_timeout(stage: Stage) -> None:
    job_id = stage.submitted()
    board = stage.runner.board
    assert [view.job.id for view in asyncio.run(board.changes(ME, 0, 60))] == [job_id]
    newest = stage.view(job_id).version
    assert asyncio.run(board.changes(ME, newest, 0.05)) == []
    assert asyncio.run(board.changes(YOU, 0, 0.05)) == []


def test_no_change_is_overlooked_by_one_who_asks_again_and_again(stage: Stage) -> None:
    job_id = stage.submitted()
    shown: list[JobView] = []

    async def follow() -> None:
        since = 0
        while not (shown and shown[-1].settled):
            for view in await stage.runner.board.changes(ME, since, 60):
                since = max(since, view.version)
                shown.append(view)

    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(lambda: asyncio.run(follow()))
        for step in range(2, 9):
            stage.work().steps = step
            time.sleep(0.005)
        stage.work().done = True
        following.result(PATIENCE)
    assert shown[-1].job.state is State.STORED and shown[-1].job.id == job_id


def test_the_board_can_be_written_and_read_from_many_threads(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages mark favourites while the runner shows new jobs."""
    monkeypatch.setattr("jobs.board.REMEMBERED", 0.0)
    stage.work().answer = True
    job = stage.runner.submit(parse_request({"prompt": "a fox"}), ME, "puppet")
    board = Board()

    def write(number: int) -> None:
        for count in range(300):
            one = replace(job, id=f"{number}-{count}")
            board.show(JobView(one, problem=NotSent(reason="x")))
            board.views(ME)

    with ThreadPoolExecutor(8) as writers:
        for done in [writers.submit(write, number) for number in range(8)]:
            done.result(PATIENCE)


# -- cancel --------------------------------------------------------------------


def test_cancelling_twice_is_one_request(stage: Stage) -> None:
    job_id = stage.submitted()
    stage.work().cancelling = None
    with ThreadPoolExecutor(4) as clicks:
        asked = [clicks.submit(stage.runner.cancel, job_id, ME) for _ in range(4)]
        stage.until(job_id, lambda view: view.cancelling)
        assert stage.history.get(job_id, ME).cancel_requested
        stage.work().cancelling = CancelOutcome.REQUESTED
        stage.work().cancelled = True
        assert {click.result(PATIENCE) for click in asked} == {CancelOutcome.REQUESTED}
    assert stage.work().cancels == 1
    assert stage.state(job_id) is State.CANCELLED


def test_a_cancel_during_the_post_waits_for_its_answer(stage: Stage) -> None:
    job_id = stage.submit()
    stage.in_state(job_id, State.SUBMITTING)
    assert stage.runner.cancel(job_id, ME) is CancelOutcome.REQUESTED
    assert stage.view(job_id).cancelling and stage.work().cancels == 0
    stage.work().answer = True
    eventually(lambda: stage.work().cancels == 1)
    assert stage.state(job_id) is State.SUBMITTED, "kept before it is cancelled"
    stage.work().cancelled = True
    assert stage.in_state(job_id, State.CANCELLED).problem is None
    assert (stage.work().posts, stage.work().cancels) == (1, 1)


def test_a_cancel_on_a_full_disk_reaches_the_endpoint_all_the_same(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = stage.submitted()
    failing(monkeypatch, stage.history, "request_cancel", DiskFull())
    assert stage.runner.cancel(job_id, ME) is CancelOutcome.REQUESTED
    assert stage.in_state(job_id, State.CANCELLED) and stage.work().cancels == 1


def test_a_cancel_without_a_key_is_unconfirmed_and_can_be_repeated(stage: Stage) -> None:
    job_id = stage.submitted()
    stage.work().cancelling = KeyMissing(backend="puppet", reason="no key")
    assert stage.runner.cancel(job_id, ME) is CancelOutcome.UNCONFIRMED
    view = stage.view(job_id)
    assert view.unconfirmed and not view.cancelling and not view.settled
    stage.work().cancelling = CancelOutcome.REQUESTED
    assert stage.runner.cancel(job_id, ME) is CancelOutcome.REQUESTED
    assert not stage.in_state(job_id, State.CANCELLED).unconfirmed
    assert stage.work().cancels == 2


def test_a_result_that_is_lost_after_all_isnt_called_cancelled(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was made, and its media and the endpoint's memory are gone before the cancel is heard."""

    async def gone(*_: object) -> AsyncIterator[Event]:
        raise JobExpired(request_id="a fox")
        yield

    monkeypatch.setattr(stage.puppet, "resume", gone)
    job_id = stage.submitted()
    stage.work().cancelling = None
    with ThreadPoolExecutor(1) as other:
        asked = other.submit(stage.runner.cancel, job_id, ME)
        stage.until(job_id, lambda view: view.cancelling)
        stage.work().media = MediaExpired()
        stage.work().done = True
        view = stage.settled(job_id)
        stage.work().cancelling = CancelOutcome.ALREADY_COMPLETED
        asked.result(PATIENCE)
    assert view.job.state is State.FAILED and not stage.view(job_id).cancelling
    assert_says(view.problem, JobExpired, "a fox")


def test_nobody_waits_for_a_click_that_the_end_overtook(stage: Stage) -> None:
    job_id = stage.submitted()
    stage.work().cancelling = None
    with ThreadPoolExecutor(1) as other:
        asked = other.submit(stage.runner.cancel, job_id, ME)
        stage.until(job_id, lambda view: view.cancelling)
        stage.restart()
        with pytest.raises(CancelledError):
            asked.result(PATIENCE)
    stage.work().cancelling = CancelOutcome.REQUESTED
    assert stage.in_state(job_id, State.CANCELLED), "the wish was kept"


def test_work_inside_a_stream_ends_with_it(free: Stage) -> None:
    free.work().steps = 1
    job_id = free.submit()
    free.until(job_id, lambda view: view.live == Running(1, 8))
    assert free.runner.cancel(job_id, ME) is CancelOutcome.REQUESTED
    assert free.view(job_id).job.state is State.CANCELLED
    assert free.runner.cancel(job_id, ME) is CancelOutcome.ALREADY_COMPLETED
    assert free.work().cancels == 0


def test_a_cancel_while_an_image_is_being_stored_keeps_the_image(
    free: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, free.history, "store", *(DiskFull() for _ in range(5)))
    free.work().done = True
    job_id = free.submit()
    free.until(job_id, lambda view: view.retrying)
    assert free.runner.cancel(job_id, ME) is CancelOutcome.ALREADY_COMPLETED
    view = free.in_state(job_id, State.STORED)
    assert (view.problem, view.cancelling) == (None, False)


# -- waiting for the visitor ---------------------------------------------------


@pytest.mark.parametrize("kind", [KeyRevoked(), KeyMissing(backend="puppet", reason="no key")])
def test_a_job_without_a_good_key_is_kept_and_goes_on_with_a_new_one(
    stage: Stage, kind: KeyRevoked | KeyMissing
) -> None:
    job_id, other = stage.submitted(), stage.submitted("yours", YOU)
    stage.work().failure = stage.work("yours").failure = kind
    for job, owner in ((job_id, ME), (other, YOU)):
        assert_says(stage.settled(job, owner).problem, type(kind))
        assert stage.state(job, owner) is State.SUBMITTED
    stage.work().failure = stage.work("yours").failure = None
    stage.work().done = stage.work("yours").done = True
    stage.runner.set_key(ME, None)
    assert stage.view(job_id).settled and not stage.runner.has_key(ME)
    stage.runner.set_key(ME, SecretStr(CANARY))
    assert stage.in_state(job_id, State.STORED).problem is None
    assert stage.runner.has_key(ME) and not stage.runner.has_key(YOU)
    assert stage.view(other, YOU).settled, "another visitor's job isn't touched"
    assert stage.puppet.keys.count(CANARY) == 1
    stage.runner.set_key(YOU, SecretStr("another"))
    assert stage.in_state(other, State.STORED, YOU)
    assert (stage.work().posts, stage.work().follows) == (1, 2)


def test_an_overdue_job_can_be_waited_for_again(stage: Stage) -> None:
    job_id = stage.submitted()
    stage.work().failure = JobOverdue(minutes=30)
    assert_says(stage.settled(job_id).problem, JobOverdue, "30 minutes", "Keep waiting, or cancel")
    stage.work().failure = None
    stage.runner.check_again(job_id, ME)
    stage.runner.check_again(job_id, ME)
    stage.until(job_id, lambda view: view.problem is None)
    stage.work().done = True
    assert stage.in_state(job_id, State.STORED).job.error is None
    assert (stage.work().posts, stage.work().follows) == (1, 2)


def test_an_overdue_job_can_be_cancelled(stage: Stage) -> None:
    job_id = stage.submitted()
    stage.work().failure = JobOverdue(minutes=30)
    stage.settled(job_id)
    stage.work().failure = None
    assert stage.runner.cancel(job_id, ME) is CancelOutcome.REQUESTED
    assert stage.in_state(job_id, State.CANCELLED) and stage.work().cancels == 1


@pytest.mark.parametrize("attempt", range(20))
def test_checking_again_the_moment_a_job_waits_is_never_overlooked(
    stage: Stage, attempt: int
) -> None:
    job_id = stage.submitted()
    stage.work().failure = JobOverdue(minutes=30)
    while not stage.view(job_id).settled:
        pass  # no pause: the flight's task may still be on its way out
    stage.work().failure = None
    stage.work().done = True
    stage.runner.check_again(job_id, ME)
    assert stage.in_state(job_id, State.STORED).problem is None


def test_many_clicks_on_check_again_are_one(stage: Stage) -> None:
    job_id = stage.submitted()
    stage.work().failure = JobExpired(request_id="a fox")
    stage.in_state(job_id, State.FAILED)
    stage.work().failure = None
    with ThreadPoolExecutor(8) as clicks:
        for click in [clicks.submit(stage.runner.check_again, job_id, ME) for _ in range(8)]:
            click.result(PATIENCE)
    stage.work().done = True
    assert stage.in_state(job_id, State.STORED).problem is None
    assert (stage.work().follows, stage.work().fetches) == (2, 1)


def test_a_broken_image_is_fetched_again_by_a_click(stage: Stage) -> None:
    job_id = stage.submitted()
    stage.work().media = MediaBroken(reason="reset")
    stage.work().done = True
    assert_says(stage.settled(job_id).problem, MediaBroken)
    assert stage.state(job_id) is State.COMPLETED
    stage.work().media = None
    stage.runner.check_again(job_id, ME)
    assert stage.in_state(job_id, State.STORED).problem is None
    assert (stage.work().posts, stage.work().follows, stage.work().fetches) == (1, 1, 2)


def test_dismissing_is_for_unknown_jobs_only(stage: Stage) -> None:
    running, lost = stage.submitted(), stage.submit("lost")
    stage.work("lost").answer = OutcomeUnknown(reason="reset")
    stage.in_state(lost, State.UNKNOWN)
    for job_id in (running, lost):
        stage.runner.dismiss(job_id, ME)
        stage.runner.dismiss(job_id, ME)
    assert stage.state(running) is State.SUBMITTED
    assert stage.state(lost) is State.CANCELLED and stage.view(lost).problem is None


# -- a full disk after the result ----------------------------------------------


def test_a_full_disk_after_the_result_shows_the_image_and_stores_it_later(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, stage.history, "store", *(DiskFull() for _ in range(6)))
    job_id = stage.submitted()
    stage.work().done = True
    waiting = stage.until(job_id, lambda view: view.retrying)
    assert_says(waiting.problem, DiskFull, "Free some space")
    assert waiting.job.state is State.COMPLETED and not waiting.settled
    assert [image.info.format for image in waiting.unsaved] == ["PNG"]
    assert list(stage.folder.glob("images/**/*.*")) == []
    stored = stage.in_state(job_id, State.STORED)
    assert (stored.problem, stored.unsaved, stored.retrying) == (None, (), False)
    assert (stage.work().posts, stage.work().fetches) == (1, 1)
    assert stage.history.image_file(job_id, ME, 0).is_file()


def test_a_restart_on_a_full_disk_fetches_the_image_anew(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, stage.history, "store", *(DiskFull() for _ in range(999)))
    job_id = stage.submitted()
    stage.work().done = True
    stage.until(job_id, lambda view: view.retrying)
    stage.restart()
    assert stage.in_state(job_id, State.STORED).problem is None
    assert (stage.work().posts, stage.work().follows, stage.work().fetches) == (1, 1, 2)


# -- the end of a process, and the next ----------------------------------------


def test_closing_detaches_and_starting_resumes(stage: Stage) -> None:
    job_id = stage.submitted()
    stage.restart()
    stage.until(job_id, lambda view: isinstance(view.live, Running))
    stage.work().done = True
    assert stage.in_state(job_id, State.STORED).problem is None
    work = stage.work()
    assert (work.posts, work.follows, work.cancels, stage.puppet.closed) == (1, 2, 0, 1)


def test_closing_waits_for_the_answer_of_a_post_and_not_longer(stage: Stage) -> None:
    quick, slow = stage.submitted("quick"), stage.submit("slow")
    stage.in_state(slow, State.SUBMITTING)
    with ThreadPoolExecutor(1) as other:
        started = time.monotonic()
        closing = other.submit(stage.runner.close)
        time.sleep(0.3)
        assert not closing.done()
        stage.work("slow").answer = True
        closing.result(PATIENCE)
        assert time.monotonic() - started < runner.LAST_POST - 1, "it is answered: go"
    assert stage.state(quick) is State.SUBMITTED
    assert stage.history.get(slow, ME).handle == {"request_id": "slow"}
    stage.history.close()
    stage.open()
    stage.runner.start()


def test_a_post_without_an_answer_is_unknown_after_the_restart(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "LAST_POST", 0.1)
    job_id = stage.submit()
    stage.in_state(job_id, State.SUBMITTING)
    stage.restart()
    view = stage.view(job_id)
    assert view.job.state is State.UNKNOWN and view.settled
    assert_says(view.problem, OutcomeUnknown, "closed while sending", "may be billed")
    stage.restart()
    assert stage.view(job_id).job.state is State.UNKNOWN
    assert stage.work().posts == 1


def test_a_job_that_was_never_sent_says_so_after_the_restart(data_folder: Path) -> None:
    stage = Stage(data_folder)
    parsed = parse_request({"prompt": "a fox", "seed": 7})
    job = stage.history.create(ME, "puppet", parsed.request)
    stage.runner.start()
    view = stage.view(job.id)
    assert view.job.state is State.FAILED
    assert_says(view.problem, NotSent, "nothing was sent")
    assert stage.puppet.works == {}
    stage.close()


def test_free_work_begins_anew_after_the_restart(free: Stage) -> None:
    free.work().steps = 1
    job_id = free.submit()
    free.until(job_id, lambda view: view.live == Running(1, 8))
    free.restart()
    free.work().done = True
    assert free.in_state(job_id, State.STORED).problem is None
    assert free.work().posts == 2


def test_free_work_that_somebody_stopped_isnt_begun_anew(data_folder: Path) -> None:
    stage = Stage(data_folder, billed=False)
    job = stage.history.create(ME, "puppet", parse_request({"prompt": "a fox", "seed": 7}).request)
    stage.history.advance(job.id, State.SUBMITTING)
    stage.history.request_cancel(job.id)
    stage.runner.start()
    assert stage.settled(job.id).job.state is State.CANCELLED
    stage.close()


def test_a_submit_while_closing_is_never_half_done(stage: Stage) -> None:
    """It is journaled and begun, or journaled and left for the next start: told as not sent."""
    ids: list[str] = []
    go_on = threading.Event()
    go_on.set()

    def submit() -> None:
        while go_on.is_set():
            try:
                prompt = f"fox {len(ids)}"
                stage.work(prompt).answer = True
                ids.append(stage.submit(prompt))
            except (RuntimeError, StorageError):
                return  # the runner is gone

    with ThreadPoolExecutor(1) as other:
        submitting = other.submit(submit)
        eventually(lambda: len(ids) > 5)
        stage.runner.close()
        go_on.clear()
        submitting.result(PATIENCE)
    stage.history.close()
    stage.open()
    stage.runner.start()
    for job_id in ids:
        prompt = stage.view(job_id).job.request.prompt
        stage.work(prompt).done = True
        ended = stage.settled(job_id)
        assert ended.job.state is (State.STORED if stage.work(prompt).posts else State.FAILED)
        assert stage.work(prompt).posts <= 1


# -- mistakes ------------------------------------------------------------------


def test_a_mistake_while_a_paid_post_is_out_leaves_its_outcome_unknown(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.runner.set_key(ME, SecretStr(CANARY))
    stage.work().answer = ZeroDivisionError("oops")
    with caplog.at_level(logging.DEBUG):
        view = stage.settled(stage.submit())
    assert view.job.state is State.UNKNOWN
    assert_says(view.problem, OutcomeUnknown, "ZeroDivisionError", "may be billed")
    assert "oops" in caplog.text and CANARY not in caplog.text


def test_a_mistake_with_a_job_in_hand_loses_nothing(stage: Stage) -> None:
    job_id = stage.submitted()
    stage.work().failure = ZeroDivisionError("oops")
    assert stage.settled(job_id).job.state is State.SUBMITTED
    stage.work().failure = None
    stage.work().done = True
    stage.runner.check_again(job_id, ME)
    assert stage.in_state(job_id, State.STORED).problem is None


def test_a_mistake_of_a_free_backend_is_a_failure_that_costs_nothing(free: Stage) -> None:
    free.work().failure = ZeroDivisionError("oops")
    view = free.settled(free.submit())
    assert view.job.state is State.FAILED
    assert_says(view.problem, JobFailed, "ZeroDivisionError", "not charged")


# -- visitors ------------------------------------------------------------------


def test_a_visitors_jobs_are_nobody_elses(stage: Stage) -> None:
    job_id = stage.submitted()

    async def watch() -> None:
        async for _view in stage.runner.watch(job_id, YOU):
            raise AssertionError("seen")

    actions: list[Callable[[], object]] = [
        lambda: stage.runner.view(job_id, YOU),
        lambda: stage.runner.cancel(job_id, YOU),
        lambda: stage.runner.check_again(job_id, YOU),
        lambda: stage.runner.dismiss(job_id, YOU),
        lambda: asyncio.run(watch()),
    ]
    for action in actions:
        with pytest.raises(NotInHistory):
            action()
    stage.runner.set_key(YOU, SecretStr(CANARY))
    assert stage.runner.board.get(job_id, YOU) is None and stage.runner.board.views(YOU) == []
    stage.restart()
    for action in actions:
        with pytest.raises(NotInHistory):
            action()
    assert (stage.work().cancels, CANARY in stage.puppet.keys) == (0, False)
    assert stage.view(job_id).job.state is State.SUBMITTED


def test_each_visitors_key_goes_with_their_own_jobs(stage: Stage) -> None:
    stage.runner.set_key(YOU, SecretStr(CANARY))
    stage.submitted("mine", ME)
    stage.submitted("yours", YOU)
    assert stage.puppet.keys == [None, CANARY]
    assert stage.runner.capabilities("puppet", ME).problem is None


def test_an_empty_data_folder_has_nothing_to_resume(tmp_path: Path, empty_data: Path) -> None:
    shutil.copytree(empty_data, tmp_path / "other")
    stage = Stage(tmp_path / "other")
    stage.runner.start()
    assert stage.runner.board.views(ME) == []
    with pytest.raises(NotInHistory):
        stage.runner.view("0" * 38, ME)
    stage.close()


def test_a_look_that_comes_late_puts_nothing_back(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row was read before the runner showed the job, and answered after."""
    get = stage.history.get

    def read_slowly(job_id: str, owner: str) -> Job:
        job = get(job_id, owner)
        stage.runner._loop.call_soon_threadsafe(stage.runner._start, job)
        eventually(lambda: shown(job_id, owner) is State.SUBMITTING)
        return job

    def shown(job_id: str, owner: str) -> State | None:
        view = stage.runner.board.get(job_id, owner)
        return view.job.state if view else None

    job = stage.history.create(ME, "puppet", parse_request({"prompt": "a fox"}).request)
    monkeypatch.setattr(stage.history, "get", read_slowly)
    stage.view(job.id)
    assert stage.in_state(job.id, State.SUBMITTING)
    stage.work().answer = NotSent(reason="the end of the test")
    stage.in_state(job.id, State.FAILED)
