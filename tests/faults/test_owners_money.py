"""The owner's key behind a public page: 200 at once at the limit, and what each ending costs."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from backends.demo import DemoBackend
from generation.allowance import Left, Limits, Terms
from generation.errors import (
    AllowanceError,
    BudgetSpent,
    NotAllowedHere,
    SpendingStopped,
    TooManyRequests,
)
from generation.parsing import Parsed, parse_request
from history.records import State
from history.spending import open_spending
from tests.faults.bench import OWNER, Bench
from tests.faults.puppet import Puppet
from tests.standins import fal_faults as faults
from tests.standins.fault_table import Fault

ROOT = Path(__file__).resolve().parents[2]
PRICE = Decimal("0.0085")  # the most that one small image can cost
BILLED = Decimal("0.000027")  # 64 × 48 pixels as the stand-in counts them, rounded up
YOURS = SecretStr("visitor-id:visitor-secret")
FIVE = "5/minute, 15/hour, 50/day"


def public(bench: Bench, budget: Decimal = Decimal(1), limits: str = "none") -> Bench:
    """As a public page runs it."""
    bench.runner.terms = Terms(budget, Limits.parse(limits), unchecked=False, mature=False)
    return bench


@pytest.fixture
def shop(bench: Bench) -> Bench:
    return public(bench)


def outcome(bench: Bench) -> str:
    try:
        bench.submit()
    except AllowanceError as exc:
        return type(exc).__name__
    return "accepted"


def spent(bench: Bench) -> Decimal:
    return bench.history.spending.today().usd


# -- the limit -----------------------------------------------------------------


def test_two_hundred_at_once_at_the_limit_overspend_by_nothing(bench: Bench) -> None:
    afforded = 20
    public(bench, afforded * PRICE + PRICE / 2)
    bench.fal.hold()  # nothing is given back meanwhile
    with ThreadPoolExecutor(32) as pool:
        asked = [pool.submit(outcome, bench) for _ in range(200)]
        outcomes = Counter(each.result() for each in asked)
    assert outcomes == Counter(accepted=afforded, BudgetSpent=200 - afforded)
    assert spent(bench) == afforded * PRICE
    bench.fal.release()
    for job in bench.history.search(OWNER, limit=500):
        assert bench.settled(job.id).job.state is State.STORED
    assert len(bench.seen.posts()) == len(bench.seen.paid_jobs()) == afforded
    assert spent(bench) == afforded * BILLED


TAKE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from generation.allowance import Charge, Limits
from generation.errors import AllowanceError
from generation.request import GenerationRequest
from history.database import open_engine, url_of
from history.journal import Ids, Journal
from history.records import Job, State

journal = Journal(open_engine(url_of(Path(sys.argv[1]), sys.argv[4] or None), 30))
ids = Ids(None)
charge = Charge(1, Decimal("0.01"), Limits.parse(sys.argv[2]), Decimal(sys.argv[3]))
request = GenerationRequest(prompt="a fox")

def take(number):
    now = datetime.now(UTC)
    try:
        journal.add(Job(ids.next(), "me", "hosted", request, State.INTENT, now, now), charge)
    except AllowanceError as exc:
        return type(exc).__name__
    return "accepted"

print("ready", flush=True)
sys.stdin.readline()
with ThreadPoolExecutor(8) as pool:
    outcomes = list(pool.map(take, range(100)))
print(" ".join(outcomes))
"""


def taken_by_two_processes(folder: Path, address: str, limits: str, budget: str) -> Counter[str]:
    """What becomes of a hundred requests each of two processes that begin together."""
    command = [sys.executable, "-c", TAKE, str(folder), limits, budget, address]
    both = [
        subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for process in both:
        assert process.stdout and process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    return Counter(" ".join(process.communicate(timeout=60)[0] for process in both).split())


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest) -> str:
    """Of a server's database; empty: a file in the folder, as two programs open it."""
    return str(request.getfixturevalue("server_database")) if request.param != "sqlite" else ""


def test_two_processes_share_one_budget(data_folder: Path, address: str) -> None:
    outcomes = taken_by_two_processes(data_folder, address, "none", "0.305")
    assert outcomes == Counter(accepted=30, BudgetSpent=170)
    with open_spending(data_folder, address) as spending:
        assert spending.today().usd == Decimal("0.30")


def test_two_processes_share_one_visitors_limits(data_folder: Path, server_database: str) -> None:
    outcomes = taken_by_two_processes(data_folder, server_database, "5/minute, 15/hour", "100")
    assert outcomes == Counter(accepted=5, TooManyRequests=195)


def test_the_limits_hold_over_a_restart(bench: Bench) -> None:
    public(bench, 2 * PRICE, "3/hour")
    assert [outcome(bench) for _ in range(2)] == ["accepted"] * 2
    for job in bench.history.search(OWNER):
        bench.settled(job.id)
    bench.restart()
    public(bench, PRICE, "3/hour")  # some of it is spent, so that no whole image fits
    assert outcome(bench) == "BudgetSpent"
    public(bench, Decimal(1), "3/hour")
    assert [outcome(bench) for _ in range(2)] == ["accepted", "TooManyRequests"]


# -- what each ending costs ----------------------------------------------------


def test_a_result_costs_what_was_billed(shop: Bench) -> None:
    view = shop.run(image_size={"width": 1000, "height": 1000}, num_images=2)
    assert view.job.receipt and Decimal(str(view.job.receipt.cost_usd)) == spent(shop) == 2 * PRICE


@pytest.mark.parametrize("units", ["NaN", "inf", "-5", "1e300", "many"])
def test_a_count_that_makes_no_sense_is_none(shop: Bench, units: str) -> None:
    shop.fal.inject(faults.with_headers("result", (("x-fal-billable-units", units),)))
    assert shop.run().job.state is State.STORED
    assert spent(shop) == PRICE


@pytest.mark.parametrize(
    ("fault", "state", "kept"),
    [
        (faults.tls_failure(times=9), State.FAILED, False),
        (faults.rejected_key(), State.FAILED, False),
        (faults.exhausted_balance(), State.FAILED, False),
        (faults.content_policy_violation(), State.FAILED, True),
        (faults.reset_after_accept("submit"), State.UNKNOWN, True),
        (faults.answer("submit", 502, {}), State.UNKNOWN, True),
        (faults.job_fails(), State.FAILED, False),
        (faults.job_fails(error_type="something_new"), State.FAILED, True),
        (faults.no_images(), State.FAILED, True),
    ],
)
def test_only_what_surely_was_free_is_given_back(
    shop: Bench, fault: Fault, state: State, kept: bool
) -> None:
    shop.fal.inject(fault)
    view = shop.run()
    assert view.job.state is state
    assert spent(shop) == (PRICE if kept else 0), view.problem
    shop.restart()
    assert spent(shop) == (PRICE if kept else 0)


def test_a_job_of_a_closed_page_that_was_never_sent_is_given_back(shop: Bench) -> None:
    charge = shop.runner.terms.charge(parse_request({"prompt": "x"}).request, billed=True)
    shop.history.create(OWNER, "hosted", parse_request({"prompt": "x"}).request, (), charge)
    assert spent(shop) == PRICE
    shop.restart()
    assert spent(shop) == 0


# -- whose money ---------------------------------------------------------------


def test_a_visitors_own_key_is_neither_counted_nor_stopped(bench: Bench) -> None:
    public(bench, Decimal(0), "1/day")
    bench.history.spending.stop()
    assert outcome(bench) == "SpendingStopped"
    bench.runner.set_key(OWNER, YOURS)
    assert [bench.run().job.state for _ in range(3)] == [State.STORED] * 3
    assert spent(bench) == 0
    assert bench.runner.allowance("hosted", OWNER) is None
    bench.runner.set_key(OWNER, None)
    bench.history.spending.resume()
    assert outcome(bench) == "BudgetSpent"  # and not what was made on the other key
    assert {header(post, "authorization") for post in bench.seen.posts()} == {
        f"Key {YOURS.get_secret_value()}"
    }


def header(exchange: Any, name: str) -> str:
    (value,) = [v for k, v in exchange.headers if k.lower() == name]
    return str(value)


def test_a_key_that_is_taken_back_in_time_is_still_the_one_that_pays(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a visitor could have what they never reserved, on the owner's key."""
    public(bench, Decimal(0))
    bench.runner.set_key(OWNER, YOURS)
    create = bench.history.create

    def forgetful(*values: Any) -> Any:
        bench.runner.set_key(OWNER, None)
        return create(*values)

    monkeypatch.setattr(bench.history, "create", forgetful)
    assert bench.run().job.state is State.STORED
    (post,) = bench.seen.posts()
    assert header(post, "authorization") == f"Key {YOURS.get_secret_value()}"


def on(bench: Bench, backend: str) -> Callable[[], Any]:
    request = Parsed(parse_request({"prompt": "a fox"}).request)
    return lambda: bench.runner.submit(request, OWNER, backend)


def test_a_gpu_is_rationed_by_images_alone(bench: Bench) -> None:
    public(bench, Decimal(0), "2/hour")
    bench.runner.backends["gpu"] = Puppet(billed=False)
    bench.history.spending.stop()
    for _ in range(2):
        on(bench, "gpu")()
    with pytest.raises(TooManyRequests):
        on(bench, "gpu")()
    left = bench.runner.allowance("gpu", OWNER)
    assert left and (left.images, left.usd, left.stopped) == (Left(0, 2, "hour"), None, False)


def test_what_costs_nobody_anything_has_no_limit(bench: Bench) -> None:
    public(bench, Decimal(0), "1/day")
    bench.runner.backends["demo"] = DemoBackend()
    for _ in range(5):
        on(bench, "demo")()
    assert bench.runner.allowance("demo", OWNER) is None


def test_a_private_page_is_not_counted(bench: Bench) -> None:
    bench.run()
    assert bench.history.spending.today().jobs == 0
    assert bench.runner.allowance("hosted", OWNER) is None


# -- what is said, and what is not allowed -------------------------------------


def test_what_is_left_is_told(shop: Bench) -> None:
    public(shop, Decimal("0.50"), FIVE)
    shop.run(num_images=3)
    left = shop.runner.allowance("hosted", OWNER)
    assert left and left.images == Left(12, 15, "hour")
    assert left.usd == Decimal("0.50") - spent(shop)
    other = shop.runner.allowance("hosted", "somebody else")
    assert other and (other.images, other.usd) == (Left(15, 15, "hour"), left.usd)


def test_the_switch_refuses_the_next_and_follows_what_is_running(shop: Bench) -> None:
    running = shop.submitted()
    shop.history.spending.stop()
    with pytest.raises(SpendingStopped):
        shop.submit()
    left = shop.runner.allowance("hosted", OWNER)
    assert left and left.stopped
    assert shop.settled(running).job.state is State.STORED
    shop.restart()
    public(shop)
    with pytest.raises(SpendingStopped):
        shop.submit()
    assert len(shop.seen.posts()) == 1


def test_the_safety_checker_stays_on_whosever_key_it_is(shop: Bench) -> None:
    shop.runner.set_key(OWNER, YOURS)
    with pytest.raises(NotAllowedHere):
        shop.submit(enable_safety_checker=False)
    assert shop.history.search(OWNER) == [] and shop.seen.posts() == []
    shop.runner.terms = Terms(Decimal(1))
    assert shop.run(enable_safety_checker=False).job.state is State.STORED


def test_a_larger_request_needs_a_larger_rest(shop: Bench) -> None:
    public(shop, 2 * PRICE)
    with pytest.raises(BudgetSpent, match=r"\$0.0170 is left, this needs up to \$0.1700"):
        shop.submit(image_size={"width": 2048, "height": 2048}, num_images=4)
    assert shop.run(image_size="square_hd").job.state is State.STORED
