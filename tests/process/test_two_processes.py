"""Two pages over one PostgreSQL and one folder: one dies or is paused, and no job suffers."""

from __future__ import annotations

import itertools
import json
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg
import pytest
from PIL import Image

from tests.process.playground import KEY, Playground, playground, wait_for
from tests.process.test_process_and_disk import joined
from tests.standins import fal_faults as faults
from tests.standins.fal_process import FalProcess, fal_process
from tests.standins.postgres import PostgresServer

LEASE = 3.0  # seconds
IN_PROGRESS = ("INTENT", "SUBMITTING", "SUBMITTED", "COMPLETED")


@dataclass
class Pair:
    """Two pages, the endpoint both use, and the database both write."""

    one: Playground
    other: Playground
    fal: FalProcess
    address: str
    folder: Path
    asked: set[str] = field(default_factory=set)

    def submit(self, page: Playground, *prompts: str) -> None:
        """As many visitors at once."""
        self.asked |= set(prompts)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda prompt: self._submit(page, prompt), prompts))

    def _submit(self, page: Playground, prompt: str) -> None:
        with page.http() as http:
            joined(http, prompt, session=prompt.replace(" ", "-"))

    def rows(self, page: Playground) -> dict[str, dict[str, Any]]:
        """What a page says of all jobs, by prompt."""
        found = page.client().predict(limit=200, api_name="/history")
        return {row["prompt"]: row for row in found}

    def states(self) -> dict[str, str]:
        """By the journal itself, whose reading costs no page anything."""
        return {prompt: state for prompt, state, _ in self._journal()}

    def workers(self) -> set[str]:
        return {worker for _, _, worker in self._journal() if worker}

    def _journal(self) -> list[tuple[str, str, str | None]]:
        with psycopg.connect(self.address) as connection:
            query = "SELECT request ->> 'prompt', state, worker FROM jobs"
            return connection.execute(query).fetchall()

    def posts(self) -> Counter[str]:
        posts = self.fal.ledger().posts()
        return Counter(json.loads(post.body)["prompt"] for post in posts if post.received)

    def rested(self) -> bool:
        return not set(self.states().values()) & set(IN_PROGRESS)

    def assert_nothing_suffered(self, page: Playground) -> dict[str, dict[str, Any]]:
        """Nothing paid is lost, nothing is posted twice, and every image is whole."""
        rows = self.rows(page)
        posts = {prompt: n for prompt, n in self.posts().items() if prompt in self.asked}
        assert rows.keys() == self.asked
        assert [prompt for prompt, count in posts.items() if count > 1] == []
        for prompt in posts:
            assert rows[prompt]["status"] in ("STORED", "UNKNOWN"), rows[prompt]
        for row in rows.values():
            assert (row["status"] == "STORED") == (len(row["images"]) == 1)
            for image in row["images"]:
                assert_whole(self.folder / image["file"], image)
        return rows


def assert_whole(path: Path, record: dict[str, Any]) -> None:
    assert sha256(path.read_bytes()).hexdigest() == record["sha256"]
    with Image.open(path) as image:
        image.load()


@pytest.fixture(scope="module")
def fal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FalProcess]:
    with fal_process(tmp_path_factory.mktemp("fal"), "--job-seconds", "0.3") as process:
        yield process


@pytest.fixture(scope="module")
def pair(
    fal: FalProcess,
    postgres: PostgresServer,
    empty_server_database: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    address = postgres.new_database(empty_server_database)
    shared = {
        "FAL_KEY": KEY,
        "PLAYGROUND_BACKEND": "hosted",
        "PLAYGROUND_DATABASE_URL": address,
        "PLAYGROUND_DATA_DIR": str(folder / "shared"),
        "LEASE_SECONDS": str(LEASE),
    }
    program = ("-m", "tests.process.shared_app")
    with ExitStack() as pages, ThreadPoolExecutor(2) as pool:

        def start(name: str) -> Playground:
            begun = playground(folder / name, fal.environment, shared, program=program)
            return pages.enter_context(begun)

        one, other = pool.map(start, ("one", "other"))
        yield Pair(one, other, fal, address, folder / "shared")


@pytest.fixture(autouse=True)
def _no_faults_left(fal: FalProcess) -> Iterator[None]:
    yield
    fal.clear_faults()
    fal.release()


@pytest.mark.timeout(110)
def test_one_is_paused_beyond_its_lease(pair: Pair, fal: FalProcess) -> None:
    prompts = [f"{n} of the paused" for n in range(6)]
    fal.hold()
    pair.submit(pair.one, *prompts)
    wait_for("handles", lambda: Counter(pair.states().values())["SUBMITTED"] == 6)
    (before,) = pair.workers()
    fal.inject(faults.slow("submit", 1.0))
    pair.submit(pair.one, "posted and paused")
    wait_for("the post", lambda: pair.posts()["posted and paused"])
    pair.one.process.send_signal(signal.SIGSTOP)
    try:
        wait_for("the other to take over", lambda: before not in pair.workers())
        wait_for("UNKNOWN", lambda: pair.states()["posted and paused"] == "UNKNOWN")
        assert set(pair.rows(pair.other)) == {*prompts, "posted and paused"}
        fal.release()
        wait_for("images", lambda: Counter(pair.states().values())["STORED"] == 6)
    finally:
        pair.one.process.send_signal(signal.SIGCONT)
    # The answer to its post was waiting for it: the only one who could know.
    wait_for("the answer", lambda: pair.states()["posted and paused"] == "STORED")
    pair.submit(pair.one, "awake again")
    wait_for("rest", lambda: "awake again" in pair.states() and pair.rested())
    rows = pair.assert_nothing_suffered(pair.one)
    assert {row["status"] for row in rows.values()} == {"STORED"}
    assert rows == pair.rows(pair.other)
    assert not list(pair.folder.rglob("*.part"))
    assert "Traceback" not in pair.one.log() + pair.other.log()


@pytest.mark.timeout(110)
def test_one_is_killed_under_load(pair: Pair, fal: FalProcess) -> None:
    names = (f"{n} of {who}" for n, who in itertools.product(range(12), ("one", "other")))
    prompts = list(names)
    pair.submit(pair.one, *prompts[0:12:2])
    pair.submit(pair.other, *prompts[1:12:2])
    fal.hold()  # what is accepted from here on is in progress when its process dies
    pair.submit(pair.one, *prompts[12::2])
    pair.submit(pair.other, *prompts[13::2])
    wait_for("the posts", lambda: pair.posts().keys() >= set(prompts))
    wait_for("handles", lambda: "SUBMITTING" not in pair.states().values())
    fal.inject(*[faults.slow("submit", 2.0)] * 2)
    last = {"being posted", "being posted too"}
    pair.submit(pair.one, *last)
    wait_for("the last posts", lambda: last <= pair.posts().keys())
    pair.one.kill()
    fal.release()
    pair.submit(pair.other, "afterwards")
    wait_for("rest", lambda: "afterwards" in pair.states() and pair.rested())
    rows = pair.assert_nothing_suffered(pair.other)
    unknown = {prompt for prompt, row in rows.items() if row["status"] == "UNKNOWN"}
    assert unknown == last
    assert "Traceback" not in pair.other.log()
