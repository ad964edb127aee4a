"""Any order of answers, clicks, crashes and restarts: no paid job is lost, none is posted twice.

The endpoint is a puppet whose memory outlives the runner. Between two rules everything that
can happen by itself has happened, so a failure is found again by Hypothesis.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)
from hypothesis.stateful import run_state_machine_as_test as run_machine

from backends.base import CancelOutcome
from generation.errors import (
    DiskFull,
    JobExpired,
    JobFailed,
    JobOverdue,
    KeyRevoked,
    MediaBroken,
    NotSent,
    OutcomeUnknown,
    RateLimited,
    RequestRejected,
)
from generation.parsing import parse_request
from history.records import TRANSITIONS, IllegalTransition, Job, State
from history.store import History
from jobs import JobView, Runner, flight, runner
from tests.faults.puppet import Puppet, Work

OWNER = "me"
PATIENCE = 40.0
REFUSALS = (NotSent(reason="DNS"), RateLimited(status=429, reason="x", retry_after=9),
            RequestRejected(status=422, reason="x", field="prompt"))  # fmt: skip
HELD = (KeyRevoked(), JobOverdue(minutes=30))


class Witness(History):
    """A history that writes down the way of each job, and fails when told to."""

    ways: dict[str, list[State]]
    full: int = 0

    def _went(self, job: Job) -> Job:
        way = self.ways.setdefault(job.id, [])
        if not way or way[-1] is not job.state:
            way.append(job.state)
        return job

    def _room(self) -> None:
        if self.full:
            self.full -= 1
            raise DiskFull

    def create(self, *arguments: Any, **options: Any) -> Job:
        return self._went(super().create(*arguments, **options))

    def advance(self, *arguments: Any, **options: Any) -> Job:
        return self._went(super().advance(*arguments, **options))

    def store(self, *arguments: Any) -> Job:
        self._room()
        return self._went(super().store(*arguments))


class Life(RuleBasedStateMachine):
    """Bundles hold prompts, each of one job: `out` is posted, `there` is accepted."""

    out: Bundle[str] = Bundle("out")
    there: Bundle[str] = Bundle("there")
    ended: Bundle[str] = Bundle("ended")
    empty: Path

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp()) / "data"
        shutil.copytree(self.empty, self.folder)
        self.puppet = Puppet()
        self.ids: dict[str, str] = {}
        self.ways: dict[str, list[State]] = {}
        self.lost: set[str] = set()
        """Paid for, and the endpoint's answer never came: UNKNOWN is all that can be known."""
        self.open()

    def open(self) -> None:
        self.history = Witness.open(self.folder)
        self.history.ways = self.ways
        self.runner = Runner(self.history, {"puppet": self.puppet})
        self.runner.start()

    def crash(self) -> None:
        """As a kill does it: nothing is waited for, nothing is said to the endpoint."""
        self.runner.close()
        self.history.close()
        self.open()

    def teardown(self) -> None:
        if not hasattr(self, "runner"):
            return
        try:
            self.heal()
        finally:
            self.runner.close()
            self.history.close()
            shutil.rmtree(self.folder.parent)

    # -- what a test looks at --------------------------------------------------

    def work(self, prompt: str) -> Work:
        return self.puppet.work(prompt)

    def view(self, prompt: str) -> JobView:
        return self.runner.view(self.ids[prompt], OWNER)

    def state(self, prompt: str) -> State:
        return self.history.get(self.ids[prompt], OWNER).state

    def until(self, prompt: str, true: Callable[[JobView], bool]) -> JobView:
        give_up = time.monotonic() + PATIENCE
        while not true(view := self.view(prompt)):
            assert time.monotonic() < give_up, view
            time.sleep(0.001)
        return view

    def in_state(self, prompt: str, *states: State) -> JobView:
        return self.until(prompt, lambda view: view.job.state in states)

    def followed(self, prompt: str) -> bool:
        """Whether the runner is at it, rather than waiting for its visitor."""
        return self.state(prompt) is State.SUBMITTED and not self.view(prompt).settled

    # -- the endpoint and the visitor ------------------------------------------

    @rule(target=out)
    def submit(self) -> str:
        prompt = f"fox {len(self.ids)}"
        self.ids[prompt] = self.runner.submit(parse_request({"prompt": prompt}), OWNER, "puppet").id
        self.in_state(prompt, State.SUBMITTING)
        return prompt

    @rule(target=there, prompt=consumes(out))
    def accept(self, prompt: str) -> Any:
        if self.state(prompt) is not State.SUBMITTING:
            return multiple()
        self.work(prompt).answer = True
        self.in_state(prompt, State.SUBMITTED, State.CANCELLED)
        return prompt

    @rule(target=ended, prompt=consumes(out), error=st.sampled_from(REFUSALS))
    def refuse(self, prompt: str, error: Exception) -> str:
        if self.state(prompt) is State.SUBMITTING:
            self.work(prompt).answer = error
            self.in_state(prompt, State.FAILED)
        return prompt

    @rule(target=ended, prompt=consumes(out), paid=st.booleans())
    def lose_the_answer(self, prompt: str, paid: bool) -> str:
        if self.state(prompt) is State.SUBMITTING:
            self.work(prompt).paid = paid
            self.lost |= {prompt} if paid else set()
            self.work(prompt).answer = OutcomeUnknown(reason="reset")
            self.in_state(prompt, State.UNKNOWN)
        return prompt

    @rule(target=ended, prompt=consumes(out))
    def accept_and_crash_before_it_is_known(self, prompt: str) -> str:
        if self.state(prompt) is State.SUBMITTING:
            self.work(prompt).paid = True
            self.lost.add(prompt)
        self.crash()
        return prompt

    @rule(prompt=there, step=st.integers(1, 8))
    def progress(self, prompt: str, step: int) -> None:
        self.work(prompt).steps = step

    @rule(prompt=there, full=st.sampled_from([0, 0, 3]), crash=st.booleans())
    def complete(self, prompt: str, full: int, crash: bool) -> None:
        followed = self.followed(prompt)
        self.history.full = full
        self.work(prompt).done = True
        if crash:
            self.crash()
        if followed:
            self.in_state(prompt, State.STORED, State.CANCELLED)
        self.history.full = 0

    @rule(prompt=there, error=st.sampled_from(HELD))
    def interrupt(self, prompt: str, error: Any) -> None:
        """A key is revoked, or it takes too long: the job waits, and a click takes it up."""
        if self.followed(prompt):
            self.work(prompt).failure = error
            self.until(prompt, lambda view: view.settled)
            self.work(prompt).failure = None

    @rule(prompt=there)
    def break_the_image(self, prompt: str) -> None:
        if self.followed(prompt):
            self.work(prompt).media = MediaBroken(reason="reset")
            self.work(prompt).done = True
            self.until(prompt, lambda view: view.settled)
            self.work(prompt).media = None

    @rule(prompt=there)
    def forget_for_a_while(self, prompt: str) -> None:
        if self.followed(prompt):
            self.work(prompt).failure = JobExpired(request_id=prompt)
            self.in_state(prompt, State.FAILED, State.CANCELLED)
            self.work(prompt).failure = None

    @rule(prompt=there)
    def fail(self, prompt: str) -> None:
        if self.followed(prompt):
            self.work(prompt).failure = JobFailed(reason="CUDA", billing="not charged")
            self.in_state(prompt, State.FAILED, State.CANCELLED)

    @rule(prompt=there, outcome=st.sampled_from(CancelOutcome), stops=st.booleans())
    def cancel(self, prompt: str, outcome: CancelOutcome, stops: bool) -> None:
        """The endpoint's word and its deed are two things."""
        work = self.work(prompt)
        if not work.done:
            work.cancelling, work.cancelled = outcome, stops or work.cancelled
        cancels, followed = work.cancels, self.followed(prompt)
        self.runner.cancel(self.ids[prompt], OWNER)
        assert work.cancels <= cancels + 1
        if followed and (stops or outcome is CancelOutcome.REQUESTED):
            self.in_state(prompt, State.CANCELLED, State.STORED)

    @rule(prompt=there)
    def check_again(self, prompt: str) -> None:
        self.runner.check_again(self.ids[prompt], OWNER)
        self.runner.check_again(self.ids[prompt], OWNER)
        if self.work(prompt).done or self.work(prompt).cancelled:
            self.until(prompt, lambda view: view.settled)

    @rule(prompt=st.one_of(out, there, ended))
    def complete_twice(self, prompt: str) -> None:
        """Somebody tells of a completion that isn't the first: the journal doesn't take it."""
        job = self.history.get(self.ids[prompt], OWNER)
        if job.state.is_final or job.state is State.COMPLETED:
            assert job.result is not None or job.state is not State.COMPLETED
            with pytest.raises((IllegalTransition, ValueError)):
                self.history.advance(job.id, State.COMPLETED, result=job.result)

    @rule(prompt=st.one_of(there, ended))
    def dismiss(self, prompt: str) -> None:
        unknown = self.state(prompt) is State.UNKNOWN
        self.runner.dismiss(self.ids[prompt], OWNER)
        assert not unknown or self.state(prompt) is State.CANCELLED

    @rule()
    def restart(self) -> None:
        self.crash()

    # -- what always holds -----------------------------------------------------

    @invariant()
    def nothing_is_posted_twice(self) -> None:
        assert [p for p, work in self.puppet.works.items() if work.posts > 1] == []

    @invariant()
    def every_way_is_legal(self) -> None:
        for way in self.ways.values():
            for here, there in zip(way, way[1:], strict=False):
                assert there in TRANSITIONS[here], way

    @invariant()
    def every_paid_job_is_known(self) -> None:
        """By its handle, or as one whose outcome isn't known until its visitor dismisses it."""
        for prompt, work in self.puppet.works.items():
            if work.paid:
                job = self.history.get(self.ids[prompt], OWNER)
                unknown = job.state in (State.SUBMITTING, State.UNKNOWN, State.CANCELLED)
                assert job.handle == {"request_id": prompt} or (prompt in self.lost and unknown)

    @invariant()
    def a_stored_job_has_its_image(self) -> None:
        for job in self.history.search(OWNER):
            assert (job.state is State.STORED) == (len(job.images) == 1)
            if job.state is State.STORED:
                assert self.history.image_file(job.id, OWNER, 0).is_file()

    def heal(self) -> None:
        """With all troubles gone, a click on each: what is paid for is there, or was stopped."""
        for work in self.puppet.works.values():
            work.failure, work.media = None, None
            work.answer = work.answer or NotSent(reason="the end")
            work.done = work.paid
        self.crash()
        for prompt, job_id in self.ids.items():
            self.runner.check_again(job_id, OWNER)
            view = self.until(prompt, lambda view: view.settled)
            if view.job.handle:
                stopped = (State.CANCELLED, State.FAILED)
                assert view.job.state is State.STORED or view.job.state in stopped, view
                if view.job.state is State.FAILED:
                    assert isinstance(view.job.error, JobFailed), "the endpoint's own word"
        assert list(self.folder.rglob("*.part")) == []


def test_no_paid_job_is_lost_and_none_is_posted_twice(
    empty_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "LAST_POST", 0.0)
    monkeypatch.setattr(flight, "STORE_AGAIN", 0.002)
    monkeypatch.setattr(flight, "GRACE_QUEUED", 0.02)
    monkeypatch.setattr(flight, "GRACE_RUNNING", 0.02)
    monkeypatch.setattr(Life, "empty", empty_data, raising=False)
    run_machine(
        Life,
        settings=settings(
            max_examples=40,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
