"""The ledger of the owner's money: reserved before it is spent, and never more than the budget."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from shutil import copytree, rmtree
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from generation.allowance import Charge, Limits
from generation.errors import (
    AdapterUnavailable,
    BalanceExhausted,
    BudgetSpent,
    ContentRefused,
    DatabaseBusy,
    InvalidRequest,
    JobCancelled,
    JobExpired,
    JobFailed,
    KeyMissing,
    KeyRejected,
    KeyRevoked,
    MediaExpired,
    NoImages,
    NotSent,
    OutcomeUnknown,
    PlaygroundError,
    RateLimited,
    RequestRejected,
    SpendingStopped,
    TooManyRequests,
)
from generation.request import GenerationRequest
from generation.result import GenerationResult, ImageFile
from history.database import open_engine, url_of
from history.journal import Ids, Journal
from history.leases import Alone
from history.records import Job, State
from history.spending import Spending, open_spending
from history.steps import JobSteps
from history.store import History

NOON = datetime(2030, 5, 6, 12, tzinfo=UTC)
REQUEST = GenerationRequest(prompt="a fox")
HANDLE = {"request_id": "r"}
CENT = Decimal("0.01")
NOTHING = Decimal(0)
ANY = Limits()


class Ledger(JobSteps):
    """The journal alone, so that a test says when a job was asked for."""

    def __init__(self, folder: Path, address: str | None = None) -> None:
        self.engine = open_engine(url_of(folder, address))
        super().__init__(Journal(self.engine), Alone())
        self.spending = Spending(self.engine)
        self._ids = Ids(self._journal.newest_id())

    def ask(
        self,
        usd: Decimal = CENT,
        *,
        budget: Decimal = Decimal(1),
        owner: str = "me",
        at: datetime = NOON,
        limits: Limits = ANY,
        images: int = 1,
    ) -> str:
        job = Job(self._ids.next(), owner, "hosted", REQUEST, State.INTENT, at, at)
        self._journal.add(job, Charge(images, usd, limits, budget))
        return job.id

    def sent(self, usd: Decimal = CENT) -> str:
        job = self.ask(usd)
        self.advance(job, State.SUBMITTING)
        return job

    def accepted(self, usd: Decimal = CENT) -> str:
        job = self.sent(usd)
        self.advance(job, State.SUBMITTED, handle=HANDLE)
        return job

    def finished(self, units: float | None, usd: Decimal = CENT) -> str:
        job = self.accepted(usd)
        self.advance(job, State.COMPLETED, result=result(units))
        return job

    def spent(self, at: datetime = NOON) -> Decimal:
        return self.spending.today(at).usd


def result(units: float | None) -> GenerationResult:
    return GenerationResult(images=(ImageFile(url="x"),), seed=1, billable_units=units)


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest) -> str | None:
    """Of a server's database, or of none: then it is a file."""
    if request.param == "sqlite":
        return None
    server: str = request.getfixturevalue("server_database")
    return server


@pytest.fixture
def ledger(data_folder: Path, address: str | None) -> Iterator[Ledger]:
    opened = Ledger(data_folder, address)
    yield opened
    opened.engine.dispose()


# -- one job -------------------------------------------------------------------


def test_money_is_held_before_anything_is_sent(ledger: Ledger) -> None:
    ledger.ask(CENT)
    day = ledger.spending.today(NOON)
    assert (day.jobs, day.images, day.billed_usd, day.held_usd) == (1, 1, NOTHING, CENT)


def test_a_result_is_settled_with_what_was_billed(ledger: Ledger) -> None:
    ledger.finished(units=0.5)
    day = ledger.spending.today(NOON)
    assert (day.billed_usd, day.held_usd) == (Decimal("0.00425"), NOTHING)


def test_a_bill_above_the_estimate_counts_as_it_is(ledger: Ledger) -> None:
    ledger.finished(units=2)
    assert ledger.spent() == Decimal("0.017")


def test_a_result_without_a_count_keeps_the_estimate(ledger: Ledger) -> None:
    ledger.finished(units=None)
    assert ledger.spending.today(NOON).held_usd == CENT


def test_millionths_are_rounded_up(ledger: Ledger) -> None:
    ledger.finished(units=0.0001)
    assert ledger.spent() == Decimal("0.000001")


def test_what_takes_only_time_costs_nothing(ledger: Ledger) -> None:
    ledger.finished(units=3, usd=Decimal(0))
    day = ledger.spending.today(NOON)
    assert (day.jobs, day.usd) == (1, NOTHING)


@pytest.mark.parametrize(
    "error",
    [
        NotSent(reason="closed"),
        AdapterUnavailable(name="a", reason="b"),
        DatabaseBusy(),
        RequestRejected(status=422, reason="x", field="loras"),  # of an upload before the submit
    ],
)
def test_what_was_never_sent_is_given_back(ledger: Ledger, error: PlaygroundError) -> None:
    ledger.advance(ledger.ask(), State.FAILED, error=error)
    ledger.advance(ledger.ask(), State.CANCELLED)
    assert ledger.spent() == 0
    assert ledger.spending.today(NOON).jobs == 0


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (NotSent(reason="closed"), False),
        (KeyMissing(backend="hosted", reason="no key"), False),
        (KeyRejected(status=401, reason="x"), False),
        (BalanceExhausted(status=402, reason="x"), False),
        (RateLimited(status=429, reason="x", retry_after=1), False),
        (RequestRejected(status=422, reason="x", field="prompt"), True),
        (ContentRefused(status=422, reason="x"), True),
    ],
)
def test_a_refused_submit_is_given_back_unless_it_may_be_billed(
    ledger: Ledger, error: PlaygroundError, kept: bool
) -> None:
    ledger.advance(ledger.sent(), State.FAILED, error=error)
    assert ledger.spent() == (CENT if kept else 0)


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (JobFailed(reason="x", billing="not charged"), False),
        (JobFailed(reason="x", billing="may be billed"), True),
        (JobExpired(request_id="r"), True),
        (KeyRevoked(), True),
        (NoImages(), True),
        (JobCancelled(), True),
        (KeyRejected(status=401, reason="x"), True),  # of following it, not of sending it
    ],
)
def test_a_failed_job_is_given_back_only_if_it_surely_was_free(
    ledger: Ledger, error: PlaygroundError, kept: bool
) -> None:
    ledger.advance(ledger.accepted(), State.FAILED, error=error)
    assert ledger.spent() == (CENT if kept else 0)


def test_an_unknown_outcome_stays_counted_also_when_it_is_put_aside(ledger: Ledger) -> None:
    job = ledger.sent()
    ledger.advance(job, State.UNKNOWN, error=OutcomeUnknown(reason="reset"))
    assert ledger.spent() == CENT
    ledger.advance(job, State.CANCELLED)
    assert ledger.spent() == CENT


def test_a_cancelled_job_may_be_billed(ledger: Ledger) -> None:
    ledger.advance(ledger.accepted(), State.CANCELLED)
    assert ledger.spent() == CENT


def test_images_that_are_lost_were_paid_for(ledger: Ledger) -> None:
    job = ledger.finished(units=1)
    ledger.advance(job, State.FAILED, error=MediaExpired())
    other = ledger.finished(units=None)
    ledger.advance(other, State.FAILED, error=NotSent(reason="no"))
    assert ledger.spent() == Decimal("0.0085") + CENT


def test_a_job_that_is_found_again_is_settled(ledger: Ledger) -> None:
    job = ledger.accepted()
    ledger.advance(job, State.FAILED, error=KeyRevoked())
    ledger.advance(job, State.SUBMITTED)
    ledger.advance(job, State.COMPLETED, result=result(0.5))
    assert ledger.spent() == Decimal("0.00425")


def test_a_job_that_the_journal_refuses_reserves_nothing(ledger: Ledger) -> None:
    with pytest.raises(Exception, match="created|zone"):
        ledger.ask(at=NOON.replace(tzinfo=None))
    assert ledger.spent() == 0


# -- the budget ----------------------------------------------------------------


def test_the_budget_is_spent_to_the_last_cent_and_no_further(ledger: Ledger) -> None:
    for _ in range(3):
        ledger.ask(CENT, budget=3 * CENT)
    with pytest.raises(BudgetSpent) as caught:
        ledger.ask(Decimal("0.000001"), budget=3 * CENT)
    assert "$0.0000 is left" in caught.value.cause and "00:00 UTC" in caught.value.remedy
    assert ledger.spent() == 3 * CENT
    assert len(ledger.unfinished()) == 3


def test_what_is_given_back_can_be_spent(ledger: Ledger) -> None:
    job = ledger.ask(CENT, budget=CENT)
    with pytest.raises(BudgetSpent):
        ledger.ask(CENT, budget=CENT)
    ledger.advance(job, State.CANCELLED)
    ledger.ask(CENT, budget=CENT)


def test_a_day_begins_at_midnight_utc(ledger: Ledger) -> None:
    late = datetime(2030, 5, 6, 23, 59, 59, tzinfo=UTC)
    ledger.ask(CENT, budget=CENT, at=late)
    with pytest.raises(BudgetSpent):
        ledger.ask(CENT, budget=CENT, at=late)
    midnight = late + timedelta(seconds=1)
    job = ledger.ask(CENT, budget=CENT, at=midnight)
    with pytest.raises(BudgetSpent):
        ledger.ask(CENT, budget=CENT, at=midnight + timedelta(hours=23))
    ledger.advance(job, State.CANCELLED)
    assert (ledger.spent(late), ledger.spent(midnight)) == (CENT, NOTHING)


def test_without_a_budget_nothing_that_costs_is_taken(ledger: Ledger) -> None:
    with pytest.raises(BudgetSpent):
        ledger.ask(CENT, budget=Decimal(0))
    ledger.ask(Decimal(0), budget=Decimal(0))


def test_the_sums_are_in_the_database(
    ledger: Ledger, data_folder: Path, address: str | None
) -> None:
    ledger.ask(CENT, budget=CENT)
    ledger.engine.dispose()
    again = Ledger(data_folder, address)
    with pytest.raises(BudgetSpent):
        again.ask(CENT, budget=CENT)
    again.engine.dispose()


def test_what_was_spent_outlives_a_job_that_is_deleted(history: History) -> None:
    charge = Charge(1, CENT, ANY, Decimal(1))
    job = history.create("me", "hosted", REQUEST, (), charge)
    history.advance(job.id, State.SUBMITTING)
    history.advance(job.id, State.SUBMITTED, handle=HANDLE)
    history.advance(job.id, State.CANCELLED)
    history.delete(job.id, "me")
    assert history.purge(datetime.now(UTC) + timedelta(seconds=1)) == 1
    assert history.spending.today().usd == CENT


# -- one visitor ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "seconds"), [("2/minute", 60), ("2/hour", 3600), ("2/day", 86400)]
)
def test_a_visitor_has_so_many_images_in_a_period(
    ledger: Ledger, limits: str, seconds: int
) -> None:
    few = Limits.parse(limits)
    ledger.ask(limits=few)
    ledger.ask(limits=few, at=NOON + timedelta(seconds=1))
    last = NOON + timedelta(seconds=seconds) - timedelta(microseconds=1)
    with pytest.raises(TooManyRequests):
        ledger.ask(limits=few, at=last)
    ledger.ask(limits=few, at=last, owner="somebody else")
    ledger.ask(limits=few, at=NOON + timedelta(seconds=seconds))


def test_images_are_counted_not_requests(ledger: Ledger) -> None:
    few = Limits.parse("4/hour")
    ledger.ask(limits=few, images=3)
    with pytest.raises(TooManyRequests):
        ledger.ask(limits=few, images=2)
    ledger.ask(limits=few, images=1)
    with pytest.raises(InvalidRequest):
        ledger.ask(limits=Limits.parse("3/hour"), images=4, owner="new")


def test_a_refusal_counts_for_nothing(ledger: Ledger) -> None:
    few = Limits.parse("1/hour")
    ledger.ask(limits=few)
    for _ in range(3):
        with pytest.raises(TooManyRequests):
            ledger.ask(limits=few)
    assert ledger.spending.used("me", NOON) == [(NOON, 1)]
    assert ledger.spent() == CENT


# -- the switch ----------------------------------------------------------------


def test_the_switch_stops_the_next_job_and_lets_the_others_end(ledger: Ledger) -> None:
    running = ledger.accepted()
    ledger.spending.stop()
    ledger.spending.stop()
    with pytest.raises(SpendingStopped):
        ledger.ask()
    ledger.ask(Decimal(0))  # the machine's time isn't money
    ledger.advance(running, State.COMPLETED, result=result(0.5))
    assert ledger.spending.stopped
    ledger.spending.resume()
    assert not ledger.spending.stopped
    ledger.ask()


def test_the_switch_holds_for_every_process_and_over_a_restart(
    history: History, data_folder: Path
) -> None:
    """`history` is a running page's: it holds the folder, and the switch is turned beside it."""
    with open_spending(data_folder) as beside:
        beside.stop()
    charge = Charge(1, CENT, ANY, Decimal(1))
    with pytest.raises(SpendingStopped):
        history.create("me", "hosted", REQUEST, (), charge)
    history.close()
    with History.open(data_folder) as again, pytest.raises(SpendingStopped):
        again.create("me", "hosted", REQUEST, (), charge)


# -- any order of events -------------------------------------------------------

BUDGET = 5 * CENT
FREE = (KeyRejected(status=401, reason="x"), NotSent(reason="x"))
DOUBTFUL = (RequestRejected(status=422, reason="x", field="y"), ContentRefused(status=422))


class Life(RuleBasedStateMachine):
    """Bundles hold jobs; `held` is what each of them should count for."""

    intended: Bundle[str] = Bundle("intended")
    posted: Bundle[str] = Bundle("posted")
    taken: Bundle[str] = Bundle("taken")
    unknown: Bundle[str] = Bundle("unknown")
    empty: Path

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp()) / "data"
        copytree(self.empty, self.folder)
        self.held: dict[str, Decimal] = {}
        self.ledger = Ledger(self.folder)

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.engine.dispose()
            rmtree(self.folder.parent)

    @rule(target=intended, cents=st.integers(1, 4))
    def submit(self, cents: int) -> Any:
        fits = sum(self.held.values()) + cents * CENT <= BUDGET
        try:
            job = self.ledger.ask(cents * CENT, budget=BUDGET)
        except BudgetSpent:
            assert not fits
            return multiple()
        assert fits
        self.held[job] = cents * CENT
        return job

    @rule(target=posted, job=consumes(intended))
    def post(self, job: str) -> str:
        self.ledger.advance(job, State.SUBMITTING)
        return job

    @rule(job=consumes(intended))
    def give_up(self, job: str) -> None:
        self.ledger.advance(job, State.CANCELLED)
        self.held[job] = Decimal(0)

    @rule(target=taken, job=consumes(posted))
    def accept(self, job: str) -> str:
        self.ledger.advance(job, State.SUBMITTED, handle=HANDLE)
        return job

    @rule(job=consumes(posted), error=st.sampled_from(FREE))
    def refuse(self, job: str, error: PlaygroundError) -> None:
        self.ledger.advance(job, State.FAILED, error=error)
        self.held[job] = Decimal(0)

    @rule(job=consumes(posted), error=st.sampled_from(DOUBTFUL))
    def reject(self, job: str, error: PlaygroundError) -> None:
        self.ledger.advance(job, State.FAILED, error=error)

    @rule(target=unknown, job=consumes(posted))
    def lose_the_answer(self, job: str) -> str:
        self.ledger.advance(job, State.UNKNOWN, error=OutcomeUnknown(reason="reset"))
        return job

    @rule(job=consumes(unknown))
    def put_aside(self, job: str) -> None:
        self.ledger.advance(job, State.CANCELLED)

    @rule(job=consumes(taken), told=st.booleans())
    def finish(self, job: str, told: bool) -> None:
        units = 0.5 if told else None
        self.ledger.advance(job, State.COMPLETED, result=result(units))
        self.held[job] = Decimal("0.00425") if told else self.held[job]

    @rule(job=consumes(taken), free=st.booleans())
    def fail(self, job: str, free: bool) -> None:
        billing = "not charged" if free else "may be billed"
        self.ledger.advance(job, State.FAILED, error=JobFailed(reason="x", billing=billing))
        self.held[job] = Decimal(0) if free else self.held[job]

    @rule(job=consumes(taken))
    def cancel(self, job: str) -> None:
        self.ledger.advance(job, State.CANCELLED)

    @rule()
    def restart(self) -> None:
        self.ledger.engine.dispose()
        self.ledger = Ledger(self.folder)

    @invariant()
    def the_sum_is_right_and_within_the_budget(self) -> None:
        if hasattr(self, "ledger"):
            assert self.ledger.spent() == sum(self.held.values()) <= BUDGET


def test_the_sum_never_exceeds_the_budget(empty_data: Path) -> None:
    machine = type("LifeHere", (Life,), {"empty": empty_data})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=40, stateful_step_count=25, deadline=None)
    )
