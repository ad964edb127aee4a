"""Two runners on one database and one folder: each job has one, whichever is asked about it.

The endpoint is one puppet for both. A process that dies is one whose runner says nothing more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from backends.base import CancelOutcome
from generation.allowance import Terms
from generation.errors import KeyMissing, MediaBroken, NotSent, OutcomeUnknown, StorageError
from generation.events import Running
from generation.parsing import parse_request
from history import leases
from history.records import State
from history.store import History
from jobs import JobView, Runner, flight, leftovers, runner
from jobs.telling import Happening, JobStep
from tests.faults.bench import PATIENCE, assert_says
from tests.faults.puppet import Puppet
from tests.standins.postgres import PostgresServer

ME = "me"
LEASE = 1.0  # seconds


class Process:
    """A runner of its own on what all share."""

    def __init__(self, folder: Path, address: str, puppet: Puppet, lease: float = LEASE) -> None:
        self.puppet = puppet
        self.history = History.open(folder, address, lease_seconds=lease)
        self.told: list[str] = []
        self.runner = Runner(self.history, {puppet.name: puppet}, listeners=[self._hear])
        self.closed = False
        self.runner.start()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.runner.close()
            self.history.close()

    def _hear(self, happening: Happening) -> None:
        assert isinstance(happening, JobStep)
        self.told.append(happening.what)

    def fall_silent(self) -> None:
        """As if it were stopped: its jobs go on, but nobody else hears of it."""
        assert self.runner._sharing is not None
        self.on_loop(self.runner._sharing._task.cancel)

    def cut_off(self) -> None:
        """As a kill does it: nothing is done any more, and nothing is said."""
        self.fall_silent()
        for one in list(self.runner._flights.values()):
            self.on_loop(one.detach)
        eventually(lambda: not self.runner._flights)

    def on_loop(self, work: Callable[[], object]) -> None:
        self.runner._loop.call_soon_threadsafe(work)

    def submit(self, prompt: str) -> str:
        return self.runner.submit(parse_request({"prompt": prompt}), ME, self.puppet.name).id

    def submitted(self, prompt: str = "a fox") -> str:
        """A job that the endpoint has, in progress here."""
        work = self.puppet.work(prompt)
        work.answer, work.steps = True, 1
        job_id = self.submit(prompt)
        self.until(job_id, lambda view: isinstance(view.live, Running))
        return job_id

    def view(self, job_id: str) -> JobView:
        return self.runner.view(job_id, ME)

    def until(self, job_id: str, true: Callable[[JobView], bool]) -> JobView:
        eventually(lambda: true(self.view(job_id)))
        return self.view(job_id)

    def in_state(self, job_id: str, state: State) -> JobView:
        return self.until(job_id, lambda view: view.job.state is state)

    def has(self, job_id: str) -> bool:
        """Whether this one works on it."""
        return job_id in self.runner._flights


def eventually(true: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < give_up, "it never came to that"
        time.sleep(0.005)


@pytest.fixture
def puppet() -> Puppet:
    return Puppet()


@pytest.fixture
def process(
    data_folder: Path, server_database: str, puppet: Puppet
) -> Iterator[Callable[..., Process]]:
    processes: list[Process] = []

    def start(puppet: Puppet = puppet, **options: Any) -> Process:
        processes.append(Process(data_folder, server_database, puppet, **options))
        return processes[-1]

    yield start
    for one in processes:
        one.close()


@pytest.fixture
def two(process: Callable[..., Process]) -> tuple[Process, Process]:
    return process(), process()


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flight, "STORE_AGAIN", 0.05)
    monkeypatch.setattr(flight, "GRACE_RUNNING", 0.2)
    monkeypatch.setattr(flight, "GRACE_QUEUED", 0.2)
    monkeypatch.setattr(runner, "LAST_POST", 0.1)


# -- one dies ------------------------------------------------------------------


def test_a_submitted_job_is_taken_over_and_not_posted_again(two: tuple[Process, Process]) -> None:
    gone, other = two
    job_id = gone.submitted()
    gone.cut_off()
    eventually(lambda: other.has(job_id))
    gone.puppet.work("a fox").done = True
    view = other.in_state(job_id, State.STORED)
    assert other.history.image_file(job_id, ME, 0).is_file() and view.problem is None
    assert gone.puppet.work("a fox").posts == 1
    assert gone.view(job_id).job == view.job  # and it can say so, should it be asked


def test_each_step_is_told_by_the_process_that_takes_it(two: tuple[Process, Process]) -> None:
    gone, other = two
    job_id = gone.submitted()
    other.view(job_id)
    assert gone.told == ["created", "submitting", "submitted", "running"] and other.told == []
    gone.cut_off()
    gone.puppet.work("a fox").done = True
    other.in_state(job_id, State.STORED)
    gone.view(job_id)
    assert [what for what in other.told if what != "running"] == ["resumed", "completed", "stored"]
    assert gone.told[-1] == "running"


def test_a_living_process_keeps_its_jobs(two: tuple[Process, Process]) -> None:
    alive, other = two
    job_id = alive.submitted()
    time.sleep(2 * LEASE)
    assert alive.has(job_id) and not other.has(job_id)
    assert alive.puppet.work("a fox").follows == 1


def test_a_job_that_was_being_posted_is_unknown(two: tuple[Process, Process]) -> None:
    gone, other = two
    job_id = gone.submit("a fox")
    gone.in_state(job_id, State.SUBMITTING)
    gone.cut_off()
    assert_says(other.in_state(job_id, State.UNKNOWN).problem, OutcomeUnknown, "may be billed")
    other.runner.dismiss(job_id, ME)
    assert other.view(job_id).job.state is State.CANCELLED
    assert gone.puppet.work("a fox").posts == 1


def test_a_job_that_was_not_yet_sent_is_sent_once(two: tuple[Process, Process]) -> None:
    gone, other = two
    gone.puppet.work("a fox").answer = True
    gone.fall_silent()
    job = gone.history.create(ME, "puppet", parse_request({"prompt": "a fox"}).request)
    other.in_state(job.id, State.SUBMITTED)
    gone.on_loop(lambda: gone.runner._start(job))  # it wakes up and goes on
    eventually(lambda: not gone.has(job.id))
    assert gone.puppet.work("a fox").posts == 1 and other.has(job.id)


def test_a_job_that_was_not_sent_and_is_forgotten_costs_nothing(
    two: tuple[Process, Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "FRESH", timedelta(0))
    gone, other = two
    gone.fall_silent()
    job = gone.history.create(ME, "puppet", parse_request({"prompt": "a fox"}).request)
    assert_says(other.in_state(job.id, State.FAILED).problem, NotSent, "nothing was sent")
    assert gone.puppet.work("a fox").posts == 0


def test_free_work_is_begun_again(process: Callable[..., Process]) -> None:
    free = Puppet(billed=False)
    gone, other = process(free), process(free)
    job_id = gone.submit("a fox")
    gone.until(job_id, lambda view: free.work("a fox").posts == 1)
    gone.cut_off()
    eventually(lambda: other.has(job_id))
    free.work("a fox").done = True
    assert other.in_state(job_id, State.STORED).job.images
    assert free.work("a fox").posts == 2


def test_a_clean_end_hands_over_at_once(process: Callable[..., Process]) -> None:
    ending, other = process(lease=60.0), process(lease=60.0)
    job_id = ending.submitted()
    began = time.monotonic()
    ending.close()
    eventually(lambda: other.has(job_id))
    assert time.monotonic() - began < 10


def test_a_wish_to_cancel_survives_its_process(two: tuple[Process, Process]) -> None:
    gone, other = two
    job_id = gone.submitted()
    gone.history.request_cancel(job_id)
    gone.cut_off()
    other.in_state(job_id, State.CANCELLED)
    assert gone.puppet.work("a fox").cancels == 1


# -- one is paused and comes back ----------------------------------------------


def test_a_paused_process_finds_its_job_gone_and_is_silent(two: tuple[Process, Process]) -> None:
    paused, other = two
    job_id = paused.submitted()
    paused.fall_silent()
    eventually(lambda: other.has(job_id))
    paused.puppet.work("a fox").done = True
    view = other.in_state(job_id, State.STORED)
    eventually(lambda: not paused.has(job_id))
    assert paused.view(job_id).job == other.view(job_id).job == view.job
    assert len(view.job.images) == 1 and paused.puppet.work("a fox").posts == 1


def test_a_process_that_comes_back_lets_go_of_what_others_have(
    two: tuple[Process, Process],
) -> None:
    paused, other = two
    job_id = paused.submitted()
    paused.fall_silent()
    eventually(lambda: other.has(job_id))
    assert paused.has(job_id)
    assert paused.runner._sharing is not None
    paused.on_loop(paused.runner._sharing.start)
    eventually(lambda: not paused.has(job_id))
    assert other.has(job_id) and other.puppet.work("a fox").posts == 1


def test_an_answer_that_comes_after_all_is_kept(two: tuple[Process, Process]) -> None:
    """Posted, paused, taken over as UNKNOWN; then the endpoint's answer is there."""
    paused, other = two
    job_id = paused.submit("a fox")
    paused.in_state(job_id, State.SUBMITTING)
    paused.fall_silent()
    other.in_state(job_id, State.UNKNOWN)
    paused.puppet.work("a fox").answer = paused.puppet.work("a fox").done = True
    assert other.in_state(job_id, State.STORED).problem is None
    assert paused.puppet.work("a fox").posts == 1


# -- asked about another's job -------------------------------------------------


def test_a_watcher_sees_a_job_of_another_process_to_its_end(two: tuple[Process, Process]) -> None:
    worker, asked = two
    job_id = worker.submitted()

    views: list[JobView] = []

    async def watch() -> None:
        async for view in asked.runner.watch(job_id, ME):
            views.append(view)

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(lambda: asyncio.run(watch()))
        eventually(lambda: bool(views))
        worker.puppet.work("a fox").done = True
        watching.result(PATIENCE)
    assert views[0].job.state is State.SUBMITTED and not views[0].settled
    assert views[-1].job.state is State.STORED and views[-1].job.images
    assert asked.puppet.work("a fox").fetches == 1


def test_the_live_list_shows_what_another_process_makes(two: tuple[Process, Process]) -> None:
    worker, asked = two

    def changes(since: int) -> list[JobView]:
        return asyncio.run(asked.runner.board.changes(ME, since, PATIENCE))

    with ThreadPoolExecutor(1) as pool:
        listening = pool.submit(changes, 0)
        eventually(lambda: bool(asked.runner.board.watched()))
        job_id = worker.submitted()
        (view,) = listening.result(PATIENCE)
        assert view.job.id == job_id and not view.settled
        while not view.settled:
            listening = pool.submit(changes, view.version)
            worker.puppet.work("a fox").done = True
            (view,) = listening.result(PATIENCE)
    assert view.job.state is State.STORED


def test_own_jobs_are_not_asked_for(two: tuple[Process, Process], monkeypatch: Any) -> None:
    worker, _ = two
    job_id = worker.submitted()
    monkeypatch.setattr(worker.history, "get", lambda *_: pytest.fail("it was asked for"))
    assert isinstance(worker.view(job_id).live, Running)
    assert worker.runner._sharing is not None and worker.runner._sharing._followed == {}


def test_a_click_on_stop_reaches_the_process_that_has_the_job(two: tuple[Process, Process]) -> None:
    worker, asked = two
    job_id = worker.submitted()
    assert asked.runner.cancel(job_id, ME) is CancelOutcome.UNCONFIRMED
    assert asked.view(job_id).cancelling or asked.view(job_id).job.state is State.CANCELLED
    assert asked.runner.cancel(job_id, ME)  # a second click
    assert asked.in_state(job_id, State.CANCELLED).settled
    assert worker.view(job_id).job.state is State.CANCELLED
    assert worker.puppet.work("a fox").cancels == 1
    assert asked.runner.cancel(job_id, ME) is CancelOutcome.ALREADY_COMPLETED


def test_check_again_goes_on_where_the_visitor_is(two: tuple[Process, Process]) -> None:
    worker, asked = two
    job_id, work = worker.submitted(), worker.puppet.work("a fox")
    work.media, work.done = MediaBroken(reason="reset"), True
    assert_says(asked.until(job_id, lambda view: view.settled).problem, MediaBroken, "kept")
    work.media = None
    asked.runner.check_again(job_id, ME)
    assert asked.in_state(job_id, State.STORED).problem is None
    assert worker.view(job_id).job.state is State.STORED and worker.view(job_id).problem is None
    assert work.posts == 1


def test_check_again_on_a_job_in_progress_elsewhere_changes_nothing(
    two: tuple[Process, Process],
) -> None:
    worker, asked = two
    job_id = worker.submitted()
    asked.runner.check_again(job_id, ME)
    assert worker.has(job_id) and not asked.has(job_id)


class WantsKey(Puppet):
    """Follows only for a visitor who brings a key."""

    async def resume(self, handle: Any, resources: Any) -> Any:
        if resources.fal_key is None:
            raise KeyMissing(backend=self.name, reason="no key")
        async for event in super().resume(handle, resources):
            yield event


def test_a_job_whose_key_died_with_its_process_waits_for_it(
    process: Callable[..., Process],
) -> None:
    puppet = WantsKey()
    gone, other, third = (process(puppet) for _ in range(3))
    gone.runner.set_key(ME, SecretStr("a:key"))
    job_id = gone.submitted()
    gone.cut_off()
    view = other.until(job_id, lambda view: view.settled)
    assert_says(view.problem, KeyMissing, "needs a fal key", "Enter a key")
    assert third.view(job_id).problem is not None
    puppet.work("a fox").done = True
    third.runner.set_key(ME, SecretStr("a:key"))  # wherever the visitor is now
    assert third.in_state(job_id, State.STORED).problem is None
    assert puppet.work("a fox").posts == 1


def test_marks_and_deletions_hold_everywhere(two: tuple[Process, Process]) -> None:
    worker, asked = two
    job_id = worker.submitted()
    asked.history.favourite(job_id, ME, True)
    worker.puppet.work("a fox").done = True
    assert worker.in_state(job_id, State.STORED).job.favourite
    asked.history.favourite(job_id, ME, False)
    assert not worker.view(job_id).job.favourite
    asked.history.delete(job_id, ME)
    with pytest.raises(StorageError):
        worker.view(job_id)
    worker.history.restore(job_id, ME)
    assert asked.view(job_id).job.images


# -- the database goes away ----------------------------------------------------


def test_an_outage_loses_nothing_that_is_paid_for(
    process: Callable[..., Process], postgres: PostgresServer
) -> None:
    one, other = process(lease=2.0), process(lease=2.0)
    done, going = one.submitted("done"), one.submitted("going")
    posting = one.submit("posting")
    one.in_state(posting, State.SUBMITTING)
    postgres.stop()
    try:
        for prompt in ("done", "posting"):
            one.puppet.work(prompt).answer = one.puppet.work(prompt).done = True
        with pytest.raises(StorageError):
            one.submit("nothing is sent")
        eventually(lambda: one.runner.board.newest(done).retrying)
        time.sleep(2.5)  # longer than a lease
    finally:
        postgres.start()
    for job_id in (done, posting):
        assert one.in_state(job_id, State.STORED).problem is None
    time.sleep(1.5)  # the other waits at least until everybody could renew
    assert one.has(going) and not other.has(going)
    assert {prompt: work.posts for prompt, work in one.puppet.works.items()} == {
        "done": 1, "going": 1, "posting": 1,
    }  # fmt: skip


def test_a_commit_whose_answer_is_lost_is_not_a_failure(
    two: tuple[Process, Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, _ = two
    advance, failed = worker.history.advance, []

    def lose_the_answer(job_id: str, state: State, **values: Any) -> Any:
        job = advance(job_id, state, **values)
        if state not in failed and state in (State.SUBMITTED, State.COMPLETED):
            failed.append(state)
            raise StorageError
        return job

    monkeypatch.setattr(worker.history, "advance", lose_the_answer)
    worker.puppet.work("a fox").answer = worker.puppet.work("a fox").done = True
    job_id = worker.submit("a fox")
    assert worker.in_state(job_id, State.STORED).problem is None
    assert failed == [State.SUBMITTED, State.COMPLETED]


def test_one_bad_row_stops_no_take_over(
    two: tuple[Process, Process], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    gone, other = two
    bad, good = gone.submitted("bad"), gone.submitted("good")
    take_up = other.runner._leftovers.take_up

    async def stumble(job: Any) -> None:
        if job.id == bad:
            raise ZeroDivisionError
        await take_up(job)

    assert other.runner._sharing is not None
    monkeypatch.setattr(other.runner._sharing, "_take_up", stumble)
    gone.cut_off()
    eventually(lambda: other.has(good))
    assert not other.has(bad) and bad in caplog.text


def test_the_standard_lease_outlasts_its_renewals() -> None:
    assert leases.SECONDS == 30.0
    assert replace(leases.Lease("w"), seconds=1.0).seconds == 1.0


# -- whose money ---------------------------------------------------------------


@pytest.mark.parametrize("key", [None, SecretStr("id:secret")], ids=["the owner's", "a visitor's"])
def test_a_job_on_a_visitors_own_key_is_never_sent_on_the_owners(
    two: tuple[Process, Process], puppet: Puppet, key: SecretStr | None
) -> None:
    """A key is in the memory of one process: another would pay for what nobody reserved."""
    gone, other = two
    for each in two:
        each.runner.terms = Terms(Decimal(1))
    gone.runner.set_key(ME, key)
    gone.runner._start = lambda *_: None  # type: ignore[method-assign]  # killed before it is sent
    job_id = gone.submit("a fox")
    gone.close()
    puppet.work("a fox").answer = True
    if key is None:
        other.in_state(job_id, State.SUBMITTED)
        assert puppet.keys == [None]
    else:
        assert_says(other.in_state(job_id, State.FAILED).problem, NotSent, "was closed")
        assert puppet.work("a fox").posts == 0
