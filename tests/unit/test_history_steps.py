"""The way of a job: only legal states are ever stored, whoever asks for what."""

from __future__ import annotations

import atexit
import io
import shutil
import tempfile
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from PIL import Image

from generation.errors import (
    JobExpired,
    JobFailed,
    KeyRevoked,
    NotInHistory,
    OutcomeUnknown,
    PlaygroundError,
)
from generation.imagefile import CheckedImage, check_image
from generation.request import GenerationRequest, LoraRef
from generation.result import GenerationResult, ImageFile, make_receipt
from history.records import TRANSITIONS, IllegalTransition, State, sources
from history.store import History

HANDLE = {"request_id": "r-1", "status_url": "https://queue.fal.run/r-1/status"}
ERROR = JobFailed(reason="out of memory", billing="not charged")
EXPIRED = JobExpired(request_id="r-1")


def picture() -> CheckedImage:
    out = io.BytesIO()
    Image.new("RGB", (16, 12), "teal").save(out, "PNG")
    return check_image(out.getvalue())


REQUEST = GenerationRequest(
    prompt="a fox", seed=2**64 - 1, loras=(LoraRef(path="owner/pixel-art", scale=0.8),)
)
RESULT = GenerationResult(images=(ImageFile(url="https://v3.fal.media/1.png"),), seed=7)
PICTURE = picture()
RECEIPT = make_receipt(REQUEST, RESULT, [PICTURE.info], backend="hosted", billed=True)


@pytest.fixture
def history(any_history: History) -> History:
    return any_history


def needs(state: State) -> dict[str, Any]:
    """What `advance` wants with a state."""
    wanted: dict[State, dict[str, Any]] = {
        State.SUBMITTED: {"handle": HANDLE},
        State.COMPLETED: {"result": RESULT},
        State.FAILED: {"error": ERROR},
        State.UNKNOWN: {"error": OutcomeUnknown(reason="timeout")},
    }
    return wanted.get(state, {})


def bring_to(history: History, *states: State) -> str:
    job = history.create("me", "hosted", REQUEST)
    for state in states:
        history.advance(job.id, state, **needs(state))
    return job.id


def taken_up(history: History, job_id: str) -> None:
    """By whoever goes on with a job that waited."""
    if history.leases:
        assert history.leases.claim(job_id)


SUBMITTED = (State.SUBMITTING, State.SUBMITTED)
COMPLETED = (*SUBMITTED, State.COMPLETED)
WAYS: dict[State, tuple[State, ...]] = {
    State.INTENT: (),
    State.SUBMITTING: (State.SUBMITTING,),
    State.SUBMITTED: SUBMITTED,
    State.COMPLETED: COMPLETED,
    State.FAILED: (State.FAILED,),
    State.CANCELLED: (State.CANCELLED,),
    State.UNKNOWN: (State.SUBMITTING, State.UNKNOWN),
}


@pytest.mark.parametrize("target", list(State))
@pytest.mark.parametrize("start", list(WAYS))
def test_every_step_is_either_in_the_table_or_refused(
    history: History, start: State, target: State
) -> None:
    job_id = bring_to(history, *WAYS[start])
    reopening = start is State.FAILED  # its error here is final
    if target in TRANSITIONS[start] and target is not State.STORED and not reopening:
        assert history.advance(job_id, target, **needs(target)).state is target
    else:
        with pytest.raises(ValueError):
            history.advance(job_id, target, **needs(target))
        assert history.get(job_id, "me").state is start


def test_a_job_keeps_everything_it_was_given(history: History) -> None:
    job = history.create("me", "hosted", REQUEST, notices=("One adapter was listed twice.",))
    assert job == history.get(job.id, "me")
    history.advance(job.id, State.SUBMITTING)
    history.advance(job.id, State.SUBMITTED, handle=HANDLE)
    done = history.advance(job.id, State.COMPLETED, result=RESULT)
    assert (done.request, done.handle, done.result) == (REQUEST, HANDLE, RESULT)
    assert done.notices == ("One adapter was listed twice.",)
    stored = history.store(job.id, [PICTURE], RECEIPT)
    assert stored == history.get(job.id, "me")
    assert (stored.state, stored.receipt, stored.error) == (State.STORED, RECEIPT, None)
    assert stored.created == job.created < stored.updated
    assert stored.created.utcoffset() is not None


def test_what_a_state_needs_must_be_given(history: History) -> None:
    job_id = bring_to(history, State.SUBMITTING)
    with pytest.raises(IllegalTransition):  # no handle, now or before
        history.advance(job_id, State.SUBMITTED)
    for state in (State.COMPLETED, State.FAILED, State.UNKNOWN, State.STORED):
        with pytest.raises(ValueError):
            history.advance(job_id, state)
    with pytest.raises(ValueError):
        history.store(bring_to(history, *COMPLETED), [], RECEIPT)


def test_backends_without_a_handle_go_straight_to_completed(history: History) -> None:
    job_id = bring_to(history, State.SUBMITTING, State.COMPLETED)
    assert history.store(job_id, [PICTURE], RECEIPT).state is State.STORED


def test_a_result_is_never_cancelled(history: History) -> None:
    with pytest.raises(IllegalTransition, match="COMPLETED"):
        history.advance(bring_to(history, *COMPLETED), State.CANCELLED)


def test_only_a_lost_track_can_be_checked_again(history: History) -> None:
    lost, failed = bring_to(history, *SUBMITTED), bring_to(history, *SUBMITTED)
    assert history.advance(lost, State.FAILED, error=EXPIRED).can_check_again
    assert not history.advance(failed, State.FAILED, error=ERROR).can_check_again
    again = history.advance(lost, State.SUBMITTED)
    assert (again.state, again.handle, again.error) == (State.SUBMITTED, HANDLE, None)
    with pytest.raises(IllegalTransition):
        history.advance(failed, State.SUBMITTED, handle=HANDLE)


def test_an_unknown_outcome_can_be_resolved_by_a_handle(history: History) -> None:
    job_id = bring_to(history, State.SUBMITTING, State.UNKNOWN)
    with pytest.raises(IllegalTransition):
        history.advance(job_id, State.SUBMITTED)
    assert history.advance(job_id, State.SUBMITTED, handle=HANDLE).error is None


def test_a_note_says_what_a_job_waits_for(history: History) -> None:
    job_id = bring_to(history, *SUBMITTED)
    noted = history.note(job_id, KeyRevoked())
    assert isinstance(noted.error, KeyRevoked)
    assert noted.state is State.SUBMITTED
    assert noted.row()["error"]["type"] == "KeyRevoked"
    taken_up(history, job_id)
    assert history.advance(job_id, State.COMPLETED, result=RESULT).error is None
    with pytest.raises(IllegalTransition):
        history.note(bring_to(history, State.CANCELLED), KeyRevoked())


def test_a_wish_to_cancel_is_one_wish(history: History) -> None:
    job_id = bring_to(history, *SUBMITTED)
    assert history.request_cancel(job_id).cancel_requested
    assert history.request_cancel(job_id).cancel_requested
    ended = bring_to(history, State.FAILED)
    assert not history.request_cancel(ended).cancel_requested


@pytest.mark.parametrize("way", [(), (State.SUBMITTING,), (State.SUBMITTING, State.COMPLETED)])
def test_work_without_a_trace_starts_over(history: History, way: tuple[State, ...]) -> None:
    rewound = history.rewind(bring_to(history, *way))
    assert (rewound.state, rewound.result) == (State.INTENT, None)


@pytest.mark.parametrize("way", [SUBMITTED, COMPLETED, WAYS[State.UNKNOWN], WAYS[State.FAILED]])
def test_work_with_a_trace_never_starts_over(history: History, way: tuple[State, ...]) -> None:
    job_id = bring_to(history, *way)
    with pytest.raises(IllegalTransition):
        history.rewind(job_id)
    assert history.get(job_id, "me").state is way[-1]


def test_unfinished_is_everything_that_still_concerns_somebody(history: History) -> None:
    ids = {state: bring_to(history, *way) for state, way in WAYS.items()}
    unfinished = history.unfinished()
    assert {job.state for job in unfinished} == {state for state in State if not state.is_final}
    assert [job.id for job in unfinished] == sorted(job.id for job in unfinished)
    history.delete(ids[State.SUBMITTED], "me")
    assert ids[State.SUBMITTED] in {job.id for job in history.unfinished()}


def test_unknown_jobs_are_named_as_such(history: History) -> None:
    nobody = "0" * 38
    calls: list[Callable[[], object]] = [
        lambda: history.advance(nobody, State.SUBMITTING),
        lambda: history.note(nobody, ERROR),
        lambda: history.request_cancel(nobody),
        lambda: history.rewind(nobody),
        lambda: history.store(nobody, [PICTURE], RECEIPT),
    ]
    for call in calls:
        with pytest.raises(NotInHistory):
            call()


def test_of_many_who_take_one_step_one_wins(history: History) -> None:
    job_id = bring_to(history)
    won, lost = [], []

    def step() -> None:
        try:
            won.append(history.advance(job_id, State.SUBMITTING))
        except IllegalTransition as exc:
            lost.append(exc)

    threads = [threading.Thread(target=step) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 11)


def test_sources_are_the_table_read_backwards() -> None:
    for start, targets in TRANSITIONS.items():
        for target in State:
            assert (target in targets) is (start in sources(target))


@cache
def empty_folder() -> str:
    """A data folder whose database is at the newest revision, to be copied."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)
    History.open(Path(folder)).close()
    return folder


class Way(RuleBasedStateMachine):
    """Any calls in any order: the stored state moves along the table or not at all."""

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        shutil.copytree(empty_folder(), self.folder.name, dirs_exist_ok=True)
        self.history = History.open(Path(self.folder.name))
        self.job = self.history.create("me", "hosted", REQUEST)
        self.before = self.job.state

    def teardown(self) -> None:
        if hasattr(self, "history"):
            self.history.close()
            self.folder.cleanup()

    def attempt(self, call: Any, *args: Any, **kwargs: Any) -> None:
        try:
            call(self.job.id, *args, **kwargs)
        except (IllegalTransition, ValueError):
            assert self.history.get(self.job.id, "me").updated == self.job.updated

    @rule(
        state=st.sampled_from(State),
        handle=st.sampled_from([None, HANDLE]),
        error=st.sampled_from([None, ERROR, EXPIRED]),
        with_result=st.booleans(),
    )
    def advance(
        self, state: State, handle: Any, error: PlaygroundError | None, with_result: bool
    ) -> None:
        result = RESULT if with_result else None
        self.attempt(self.history.advance, state, handle=handle, error=error, result=result)

    @rule(data=st.data())
    def proceed(self, data: st.DataObject) -> None:
        """A legal step, so that the far states are reached too."""
        targets = sorted(TRANSITIONS[self.job.state] - {State.STORED})
        if targets:
            state = data.draw(st.sampled_from(targets))
            self.attempt(self.history.advance, state, **needs(state))

    @rule(error=st.sampled_from([KeyRevoked(), EXPIRED]))
    def note(self, error: PlaygroundError) -> None:
        self.attempt(self.history.note, error)

    @rule()
    def cancel(self) -> None:
        self.attempt(self.history.request_cancel)

    @rule()
    def store(self) -> None:
        self.attempt(self.history.store, [PICTURE], RECEIPT)

    @rule()
    def rewind(self) -> None:
        self.attempt(self.history.rewind)

    @rule()
    def crash(self) -> None:
        self.history.close()
        self.history = History.open(Path(self.folder.name))

    @invariant()
    def is_sound(self) -> None:
        if not hasattr(self, "history"):
            return
        before, self.job = self.job, self.history.get(self.job.id, "me")
        now = self.job
        moved = now.state is not before.state
        rewound = before.can_rewind and now.state is State.INTENT
        assert not moved or now.state in TRANSITIONS[before.state] or rewound
        assert not (before.state is State.FAILED and moved) or before.can_check_again
        assert (now.state is State.STORED) is bool(now.images)
        assert now.state is not State.SUBMITTED or now.handle
        assert now.state is not State.COMPLETED or now.result
        assert now.state is not State.FAILED or now.error
        assert before.handle is None or now.handle is not None


TestWay = Way.TestCase
TestWay.settings = settings(
    max_examples=50,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)
