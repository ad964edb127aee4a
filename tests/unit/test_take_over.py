"""What a visitor made becomes a user's: finished jobs, those under way, and the key."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr
from sqlalchemy import insert, select

from generation.errors import NotInHistory, StorageError
from generation.parsing import parse_request
from history.records import State
from history.schema import spending
from history.store import History
from jobs import JobView, Runner
from tests.faults.puppet import Puppet

OLD, NEW, OTHER = "visitor:old", "user:new", "visitor:other"


@pytest.fixture
def puppet() -> Puppet:
    return Puppet()


@pytest.fixture
def runner(history: History, puppet: Puppet) -> Iterator[Runner]:
    running = Runner(history, {"puppet": puppet})
    running.start()
    yield running
    for owner in (OLD, NEW, OTHER):  # closing waits for posts that nobody answered
        for job in running.history.search(owner):
            puppet.work(job.request.prompt).answer = True
    running.close()


def submit(runner: Runner, prompt: str, owner: str = OLD) -> str:
    return runner.submit(parse_request({"prompt": prompt}), owner, "puppet").id


def eventually(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def prompts(runner: Runner, owner: str) -> list[str]:
    return [job.request.prompt for job in runner.history.search(owner)]


def test_a_job_under_way_goes_on_for_its_new_owner(runner: Runner, puppet: Puppet) -> None:
    job = submit(runner, "running")
    puppet.work("running").answer = True
    eventually(lambda: runner.view(job, OLD).job.state is State.SUBMITTED)
    runner.take_over(OLD, NEW)
    puppet.work("running").steps = 3
    eventually(lambda: runner.view(job, NEW).live)
    assert [view.job.owner for view in runner.board.views(NEW)] == [NEW]
    assert runner.board.views(OLD) == [] and runner.board.get(job, OLD) is None
    puppet.work("running").done = True
    eventually(lambda: runner.view(job, NEW).job.state is State.STORED)
    assert runner.history.get(job, NEW).owner == NEW
    with pytest.raises(NotInHistory):
        runner.view(job, OLD)
    assert puppet.work("running").posts == 1


def test_the_new_owner_can_stop_it(runner: Runner, puppet: Puppet) -> None:
    job = submit(runner, "stopped")
    puppet.work("stopped").answer = True
    eventually(lambda: runner.view(job, OLD).job.state is State.SUBMITTED)
    runner.take_over(OLD, NEW)
    puppet.work("stopped").cancelled = True
    runner.cancel(job, NEW)
    eventually(lambda: runner.view(job, NEW).job.state is State.CANCELLED)


def test_a_page_that_waits_is_told(runner: Runner) -> None:
    submit(runner, "watched")

    async def wait() -> list[JobView]:
        waiting = asyncio.create_task(runner.board.changes(NEW, 1, timeout=20))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(runner.take_over, OLD, NEW)
        return await waiting

    assert [view.job.owner for view in asyncio.run(wait())] == [NEW]


def test_only_the_visitors_own_and_hidden_ones_too(runner: Runner) -> None:
    hidden, kept = submit(runner, "hidden"), submit(runner, "kept")
    submit(runner, "before", NEW)
    submit(runner, "others", OTHER)
    runner.history.delete(hidden, OLD)
    runner.take_over(OLD, NEW)
    assert prompts(runner, NEW) == ["before", "kept"]
    runner.history.restore(hidden, NEW)
    assert prompts(runner, NEW) == ["before", "kept", "hidden"]
    assert (prompts(runner, OLD), prompts(runner, OTHER)) == ([], ["others"])
    assert runner.view(kept, NEW).job.id == kept


def test_signing_in_gives_no_second_allowance(runner: Runner) -> None:
    job = submit(runner, "used")
    now = datetime.now(UTC)
    with runner.history._engine.begin() as connection:
        row = {"job_id": job, "owner": OLD, "created": now, "images": 3, "micro_usd": 0}
        connection.execute(insert(spending).values(**row, status="settled"))
    runner.take_over(OLD, NEW)
    with runner.history._engine.connect() as connection:
        assert connection.execute(select(spending.c.owner)).scalars().all() == [NEW]


def test_the_key_comes_along(runner: Runner) -> None:
    runner.set_key(OLD, SecretStr("a:b"))
    runner.take_over(OLD, NEW)
    assert runner.has_key(NEW) and not runner.has_key(OLD)
    runner.take_over(OTHER, NEW)
    assert runner.has_key(NEW), "one without a key takes none away"


def test_a_database_that_refuses_changes_nothing(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(runner, "stays")
    runner.set_key(OLD, SecretStr("a:b"))

    def refuse(old: str, new: str) -> None:
        raise StorageError()

    monkeypatch.setattr(runner.history, "give", refuse)
    with pytest.raises(StorageError):
        runner.take_over(OLD, NEW)
    assert runner.view(job, OLD).job.owner == OLD
    assert runner.has_key(OLD) and not runner.has_key(NEW)
