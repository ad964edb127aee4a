"""Faults 51 to 59: the process is killed, the disk is full, the database is in the way."""

from __future__ import annotations

import io
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client.exceptions import AppError
from PIL import Image

from tests.process.playground import KEY, ROOT, Playground, clean_environment, playground, wait_for
from tests.process.test_kill import AFTERWARDS, check_ending, run_driver
from tests.standins import fal_faults as faults
from tests.standins.fal_process import FalProcess, fal_process

SMALL = {"image_size": {"width": 96, "height": 64}}


@pytest.fixture(scope="module")
def fal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FalProcess]:
    with fal_process(tmp_path_factory.mktemp("fal"), "--job-seconds", "0.02") as process:
        yield process


@pytest.fixture(scope="module")
def page(fal: FalProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playground]:
    """A page whose disk can be filled; no test leaves it full."""
    directory = tmp_path_factory.mktemp("page")
    settings = {"FAL_KEY": KEY, "FAULTS": str(directory)}
    program = ("-m", "tests.process.faulty_app")
    with playground(directory, fal.environment, settings, program=program) as running:
        yield running
    assert "Traceback" not in running.log()


@contextmanager
def fault(page: Playground, name: str) -> Iterator[None]:
    file = page.directory / name
    file.touch()
    try:
        yield
    finally:
        file.unlink()


def refused(page: Playground, prompt: str) -> str:
    """What /generate says when it refuses."""
    with pytest.raises(AppError) as caught:
        page.client().predict(prompt=prompt, **SMALL, api_name="/generate")
    return str(caught.value)


def generated(page: Playground, prompt: str) -> str:
    """The file of one image."""
    images, _receipt = page.client().predict(prompt=prompt, **SMALL, api_name="/generate")
    (file,) = images
    return str(file)


def row_of(page: Playground, prompt: str) -> dict[str, Any]:
    (row,) = page.client().predict(query=prompt, api_name="/history")
    found: dict[str, Any] = row
    return found


def posted(fal: FalProcess, prompt: str) -> int:
    return sum(body["prompt"] == prompt for body in fal.ledger().submitted_bodies())


def is_whole(data: bytes) -> bool:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image.size == (96, 64)


# -- killed --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "boundary"),
    [
        (51, "before_submitting"),
        (52, "after_post"),
        (53, "polling"),
        (53, "downloading"),
        (53, "renaming"),
    ],
)
def test_row_51_to_53_killed(row: int, boundary: str, fal: FalProcess, tmp_path: Path) -> None:
    outcomes = [job for jobs in run_driver(fal, tmp_path, boundary, 1) for job in jobs]
    for job in outcomes:
        check_ending(job)
    expected = {51: "FAILED", 52: "UNKNOWN", 53: "STORED"}[row]
    assert expected in [job.row["after"] for job in outcomes]
    assert expected in AFTERWARDS.values()


# -- the disk ------------------------------------------------------------------


def test_row_54_disk_full_before_submit(page: Playground, fal: FalProcess) -> None:
    with fault(page, "no-room"):
        assert "The disk is full. Free some space" in refused(page, "row 54")
    assert posted(fal, "row 54") == 0
    assert page.client().predict(query="row 54", api_name="/history") == []
    generated(page, "row 54")
    assert posted(fal, "row 54") == 1


def test_row_55_disk_full_after_submit(page: Playground, fal: FalProcess) -> None:
    with fault(page, "no-space"):
        waiting = page.client().submit(prompt="row 55", **SMALL, api_name="/generate")
        row = wait_for("COMPLETED", lambda: in_state(page, "row 55", "COMPLETED"))
        shown = wait_for("the image", lambda: media(page, row["id"]))
        assert is_whole(shown.content) and shown.headers["cache-control"] == "no-store"
        assert not waiting.done() and not list(page.data_dir.glob(f"images/**/{row['id']}*"))
    images, receipt = waiting.result(timeout=30)
    assert is_whole(Path(images[0]).read_bytes()) and receipt["prompt"] == "row 55"
    assert in_state(page, "row 55", "STORED")
    assert posted(fal, "row 55") == 1


def in_state(page: Playground, prompt: str, state: str) -> dict[str, Any] | None:
    rows = page.client().predict(query=prompt, api_name="/history")
    return next((row for row in rows if row["status"] == state), None)


def media(page: Playground, job: str) -> httpx.Response | None:
    with page.http() as http:
        answer = http.get(f"/media/{job}/0")
    return answer if answer.status_code == 200 else None


# -- the database --------------------------------------------------------------


@contextmanager
def locked(page: Playground) -> Iterator[None]:
    """Another program writes, and takes its time."""
    database = page.data_dir / "history.sqlite3"
    with closing(sqlite3.connect(database, timeout=10, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            other.execute("ROLLBACK")


def test_row_56_database_locked(page: Playground, fal: FalProcess) -> None:
    with locked(page):
        began = time.monotonic()
        said = refused(page, "row 56")
        waited = time.monotonic() - began
    assert "locked by another program" in said and "nothing is sent while" in said
    assert 4.5 < waited < 40
    assert posted(fal, "row 56") == 0
    generated(page, "row 56")


def test_row_56_database_locked_once_the_request_is_out(page: Playground, fal: FalProcess) -> None:
    """The accepted job is committed as soon as that is possible, and nobody says otherwise."""
    fal.inject(faults.slow("submit", 0.7))
    waiting = page.client().submit(prompt="row 56 late", **SMALL, api_name="/generate")
    wait_for("the post", lambda: any(b["prompt"] == "row 56 late" for b in bodies(fal)))
    with locked(page):
        time.sleep(6.5)  # longer than the five seconds that a commit waits
    images, receipt = waiting.result(timeout=30)
    assert is_whole(Path(images[0]).read_bytes()) and receipt["prompt"] == "row 56 late"
    assert posted(fal, "row 56 late") == 1


def bodies(fal: FalProcess) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = fal.ledger().submitted_bodies()
    return found


def test_row_57_database_corrupt(fal: FalProcess, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "history.sqlite3").write_bytes(b"not a database at all" * 500)
    with playground(tmp_path, fal.environment, {"FAL_KEY": KEY}) as page:
        assert "damaged" in page.log() and "a new one was started" in page.log()
        assert "Traceback" not in page.log()
        assert "The history database was damaged" in opened(page)
        assert is_whole(Path(generated(page, "row 57")).read_bytes())
        assert row_of(page, "row 57")["status"] == "STORED"
    (aside,) = data.glob("history.damaged-*.sqlite3")
    assert aside.read_bytes() == b"not a database at all" * 500


def opened(page: Playground) -> str:
    """What the page is told when it has just been opened."""
    with page.http() as http:
        dependencies = http.get("/config").json()["dependencies"]
        loads = [d["id"] for d in dependencies if any(t[1] == "load" for t in d["targets"])]
        bodies = [{"fn_index": n, "data": ["hosted", {}], "session_hash": "new"} for n in loads]
        return "".join(http.post("/gradio_api/run/predict", json=body).text for body in bodies)


# -- who owns the jobs ---------------------------------------------------------


def test_row_58_two_instances_on_one_data_folder(page: Playground, tmp_path: Path) -> None:
    settings = {"PLAYGROUND_DATA_DIR": str(page.data_dir), "FAL_KEY": KEY}
    second = subprocess.run(
        [sys.executable, "app.py"],
        cwd=ROOT, env=clean_environment(tmp_path, settings),
        capture_output=True, text=True, timeout=90,
    )  # fmt: skip
    assert second.returncode == 1
    said = second.stderr.strip()
    assert said == (
        f"Another playground is using the data folder {page.data_dir}. "
        "Close it, or set PLAYGROUND_DATA_DIR to another folder."
    )
    generated(page, "row 58")


def joined(http: httpx.Client, prompt: str, session: str) -> None:
    """What the page's own client posts for an event in the queue."""
    config = http.get("/config").json()
    (index,) = [d["id"] for d in config["dependencies"] if d["api_name"] == "generate"]
    info = http.get("/gradio_api/info").json()["named_endpoints"]["/generate"]["parameters"]
    given = {"prompt": prompt} | SMALL
    data = [given.get(p["parameter_name"], p["parameter_default"]) for p in info]
    body = {"data": data, "fn_index": index, "session_hash": session}
    http.post("/gradio_api/queue/join", json=body).raise_for_status()


def test_row_59_tab_closed(page: Playground, fal: FalProcess) -> None:
    fal.hold()
    try:
        with page.http() as http:
            joined(http, "row 59", "closed")
            with http.stream("GET", "/gradio_api/queue/data?session_hash=closed") as events:
                started = (line for line in events.iter_lines() if "process_starts" in line)
                assert json.loads(next(started)[5:])["msg"] == "process_starts"
                wait_for("the post", lambda: posted(fal, "row 59"))
    finally:
        fal.release()
    row = wait_for("STORED", lambda: in_state(page, "row 59", "STORED"))
    shown = media(page, row["id"])
    assert shown is not None and is_whole(shown.content)
    assert posted(fal, "row 59") == 1


def test_a_setting_that_cannot_be_used_is_one_clear_sentence(tmp_path: Path) -> None:
    settings = {"PLAYGROUND_DATABASE_URL": "nonsense://user:password@nowhere/x"}
    done = subprocess.run(
        [sys.executable, "app.py"],
        cwd=ROOT, env=clean_environment(tmp_path, settings),
        capture_output=True, text=True, timeout=90,
    )  # fmt: skip
    assert done.returncode == 1
    said = "PLAYGROUND_DATABASE_URL can't be used: it isn't an address of SQLAlchemy's."
    assert done.stderr.startswith(said) and done.stderr.count("\n") == 1
    assert "password" not in done.stdout + done.stderr
