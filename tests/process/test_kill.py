"""SIGKILL at every boundary of a job: nothing accepted is lost, nothing is posted twice."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.process.kill_driver import BOUNDARIES
from tests.process.playground import KEY, ROOT, Playground, clean_environment, playground, wait_for
from tests.standins.fal_process import FalProcess, fal_process
from tests.standins.ledger import Exchange

ROUNDS = 20

# What the journal holds at the boundary, and whether fal has the job.
AT: dict[str, tuple[str, bool]] = {
    "before_submitting": ("INTENT", False),
    "before_post": ("SUBMITTING", False),
    "after_post": ("SUBMITTING", True),
    "polling": ("SUBMITTED", True),
    "completed": ("COMPLETED", True),
    "downloading": ("COMPLETED", True),
    "renaming": ("COMPLETED", True),
    "stored": ("STORED", True),
}
AFTERWARDS = {
    "INTENT": "FAILED",
    "SUBMITTING": "UNKNOWN",
    "SUBMITTED": "STORED",
    "COMPLETED": "STORED",
    "STORED": "STORED",
}


@dataclass(frozen=True)
class Outcome:
    """One job: what our journal says of it, and what the stand-in saw."""

    row: dict[str, Any]
    posts: int
    accepted: int


@pytest.fixture(scope="module")
def fal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FalProcess]:
    with fal_process(tmp_path_factory.mktemp("fal"), "--job-seconds", "0.02") as process:
        yield process


def run_driver(fal: FalProcess, directory: Path, boundary: str, rounds: int) -> list[list[Outcome]]:
    """Each round's jobs, with both sides' accounts."""
    command = [sys.executable, "-m", "tests.process.kill_driver", str(directory), boundary]
    environment = clean_environment(directory, {**fal.environment, "FAL_KEY": KEY})
    done = subprocess.run(
        [*command, str(rounds), fal._control],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = (directory / "report.jsonl").read_text("utf-8").splitlines()
    posts = fal.ledger().posts()
    return [[_outcome(row, posts) for row in json.loads(line)] for line in lines]


def _outcome(row: dict[str, Any], posts: list[Exchange]) -> Outcome:
    mine = [post for post in posts if _prompt(post) == row["prompt"]]
    return Outcome(row, len(mine), sum(post.accepted for post in mine))


def _prompt(post: Exchange) -> str | None:
    return json.loads(post.body)["prompt"] if post.received else None


def test_every_boundary_is_tried() -> None:
    assert AT.keys() == BOUNDARIES.keys()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("boundary", AT)
def test_killed_at(boundary: str, fal: FalProcess, tmp_path: Path) -> None:
    rounds = run_driver(fal, tmp_path, boundary, ROUNDS)
    assert len(rounds) == ROUNDS
    for jobs in rounds:
        for job in jobs:
            check_ending(job)
        state, accepted = AT[boundary]
        at_boundary = [j for j in jobs if (j.row["before"], j.accepted) == (state, int(accepted))]
        assert at_boundary, f"nobody was at the boundary: {jobs}"
    assert not list((tmp_path / "data").rglob("*.part"))


def check_ending(job: Outcome) -> None:
    """Both accounts agree, and what was paid for is here."""
    row = job.row
    assert job.posts <= 1, "posted twice"
    assert row["after"] == AFTERWARDS[row["before"]]
    if row["before"] == "INTENT":
        assert (job.posts, row["error"]) == (0, "NotSent")
        assert "nothing was sent" in row["said"] and "costs nothing twice" in row["said"]
    if row["after"] == "UNKNOWN":
        assert row["error"] == "OutcomeUnknown" and "may be billed" in row["said"]
    if row["after"] == "STORED":
        assert (job.accepted, row["images"], row["whole"], row["error"]) == (1, 2, True, None)


def only_row(page: Playground) -> dict[str, Any]:
    (row,) = page.client().predict(api_name="/history")
    found: dict[str, Any] = row
    return found


def test_a_killed_page_shows_the_image_after_a_restart(fal: FalProcess, tmp_path: Path) -> None:
    settings = {"FAL_KEY": KEY, "PLAYGROUND_BACKEND": "hosted"}
    prompt = "killed with its page open"
    fal.hold()
    try:
        with playground(tmp_path, fal.environment, settings) as page:
            page.client().submit(prompt=prompt, api_name="/generate")
            wait_for("SUBMITTED", lambda: is_submitted(page))
            page.kill()
    finally:
        fal.release()
    with playground(tmp_path, fal.environment, settings) as page:
        row = wait_for("STORED", lambda: stored_row(page))
        with page.http() as http:
            image = http.get(f"/media/{row['id']}/0")
        assert page.terminate() == 0 and "Traceback" not in page.log()
    assert image.status_code == 200 and image.content.startswith(b"\x89PNG")
    assert Counter(map(_prompt, fal.ledger().posts()))[prompt] == 1


def is_submitted(page: Playground) -> bool:
    rows = page.client().predict(api_name="/history")
    return [row["status"] for row in rows] == ["SUBMITTED"]


def stored_row(page: Playground) -> dict[str, Any] | None:
    row = only_row(page)
    return row if row["status"] == "STORED" else None
