"""Every visitor is alone with their work: another one tries all that the page serves.

`tests/process/crawler.py` finds what there is to call and calls it, as three kinds of stranger,
with every name that Ada's work has. Her words and bytes appear in no answer, and her history,
her files and her running job are afterwards what they were. At last Ada calls all of it
herself: what she isn't shown then, no stranger's silence proves.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.browser import Browser
from tests.process.crawler import BODIES, Crawler, Names, Unreviewed
from tests.process.playground import KEY, Playground, playground, wait_for
from tests.process.signing import sign_in
from tests.standins.fal_process import FalProcess, fal_process
from tests.standins.hub_weights import lora, weights
from tests.standins.oauth import Account, OpenIdProvider

SMALL = {"width": 64, "height": 64}
WORD = f"canary{secrets.token_hex(8)}"
SLOWLY = ("--queue-seconds", "0.03", "--job-seconds", "0.01")  # held, a job is in the queue
SESSIONS = ["ada-read", "ada-runs"]


@dataclass(frozen=True)
class Work:
    """What Ada has: its names, and pieces of it that nobody else may see."""

    ada: Browser
    names: Names
    pieces: dict[str, bytes]

    def seen_in(self, answers: list[bytes]) -> set[str]:
        return {name for name, piece in self.pieces.items() if any(piece in a for a in answers)}


@dataclass(frozen=True)
class Place:
    page: Playground
    routes: Path
    provider: OpenIdProvider
    fal: FalProcess
    work: Work

    def stranger(self, kind: str) -> httpx.Client:
        """A browser that has been here, one that is signed in, a program without cookies."""
        if kind == "no cookies":
            forgets = {"request": [lambda asked: asked.headers.pop("cookie", None)]}
            return self.page.http(event_hooks=forgets)
        with Browser(self.page) as browser:
            if kind == "signed in":
                self.provider.user = Account("0b0b", "bob")
                sign_in(browser)
            return self.as_(browser)

    def as_(self, browser: Browser) -> httpx.Client:
        return self.page.http(cookies=browser.http.cookies)

    def crawler(self, http: httpx.Client) -> Crawler:
        return Crawler(self.page, self.routes, http, self.work.names)

    def rows(self) -> list[Any]:
        """Ada's jobs as the database has them."""
        with sqlite3.connect(self.page.data_dir / "history.sqlite3") as database:
            return database.execute(
                "SELECT * FROM jobs WHERE owner = 'user:ada0' ORDER BY id"
            ).fetchall()

    def files(self) -> set[tuple[str, int]]:
        folders = ("images", "public-adapters/uploads")
        found = [p for each in folders for p in (self.page.data_dir / each).rglob("*")]
        kept = [path for path in found if path.is_file() and path.suffix not in (".webp", ".part")]
        return {(str(path), path.stat().st_mtime_ns) for path in kept}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("page")
    routes = directory / "routes.json"
    public = {"FAL_KEY": KEY, "PLAYGROUND_MODE": "public", "ROUTES": str(routes)}
    program = ("-m", "tests.process.listing_app")
    with (
        fal_process(tmp_path_factory.mktemp("fal"), *SLOWLY) as fal,
        OpenIdProvider(Account("ada0", "ada")) as provider,
        playground(
            directory, public, fal.environment, provider.environment, program=program
        ) as page,
        Browser(page) as ada,
    ):
        sign_in(ada)
        fal.hold()
        yield Place(page, routes, provider, fal, work_of(ada))


def work_of(ada: Browser) -> Work:
    """A finished job, one that runs, uploads of both kinds, an event nobody has listened to."""
    ada.serve("account", "set_key", {"key": f"{WORD}:{WORD}"}).raise_for_status()
    (image,), _ = ada.call("generate", prompt=f"a {WORD}", backend="demo", image_size=SMALL)
    (row,) = ada.history()
    picture = ada.http.get(f"/media/{row['id']}/0").content
    small = ada.http.get(f"/media/{row['id']}/0/preview").content
    note = f"the note says {WORD}-note".encode()
    files = {"files": ("note.txt", note)}, {"files": ("recipe.png", picture)}
    uploads = [ada.http.post("/gradio_api/upload", files=each).json()[0] for each in files]
    style = weights("style.safetensors", lora(2, layers=1))
    content = style.read(0, style.length)
    kept = ada.http.post(f"/adapter?name={WORD}-style.safetensors", content=content).json()
    running = join(ada, "generate", SESSIONS[1], prompt=f"a {WORD} that runs", backend="hosted",
                   image_size=SMALL)  # fmt: skip
    at_rest = ["SUBMITTED", "STORED"]
    wait_for("rest", lambda: [row["status"] for row in ada.history()] == at_rest)
    jobs = ada.history()
    unread = join(ada, "history", SESSIONS[0], limit=10)
    names = Names(
        jobs=[each["id"] for each in jobs],
        files=[image["path"], *uploads],
        adapters=[kept["reference"]],
        sessions=SESSIONS,
        events=[running, unread],
    )
    middle = len(picture) // 2
    pieces = {
        "words": WORD.encode(),
        "image": picture[middle : middle + 64],
        "preview": small[-64:],
        "upload": note,
        "adapter": f"{WORD}-style".encode(),
    }
    return Work(ada, names, pieces)


def join(browser: Browser, name: str, session: str, **values: Any) -> str:
    """Put an event of a session into Gradio's queue, as a page's script does."""
    (number,) = [d["id"] for d in browser._config["dependencies"] if d["api_name"] == name]
    info = browser.http.get("/gradio_api/info").json()["named_endpoints"][f"/{name}"]
    data = [values.get(p["parameter_name"], p["parameter_default"]) for p in info["parameters"]]
    body = {"fn_index": number, "data": data, "session_hash": session}
    event: str = browser.http.post("/gradio_api/queue/join", json=body).json()["event_id"]
    return event


@pytest.mark.parametrize("kind", ["anonymous", "signed in", "no cookies"])
def test_a_stranger_sees_and_changes_nothing(kind: str, place: Place) -> None:
    rows, files = place.rows(), place.files()
    assert len(rows) == 2
    with place.stranger(kind) as http:
        crawler = place.crawler(http)
        crawler.crawl()
    assert len(crawler.answers) > 500
    assert place.work.seen_in(crawler.answers) == set()
    assert place.rows() == rows
    assert place.files() >= files
    assert place.work.ada.call("restore", image=file(place.work.names.files[2]))


DISGUISED = [
    "/gradio_api/queue/data?session%5Fhash={session}",
    "/gradio_api/queue/data?session_hash=mine&session_hash={session}",
    "/gradio_api/queue/data?session_hash={session}&session_hash={session}",
    "/gradio_api/queue//data?session_hash={session}",
    "/gradio_api/call/history/{event}/",
    "/gradio_api/call/v2/history/{event}",
    "/gradio_api/call/history/{event}?session_hash={session}",
    "/gradio_api/file={file}?",
    "/gradio_api/file=/tmp/..{file}",
    "/gradio_api/file={folder}/./{name}",
    "/gradio_api/file%3D{file}",
    "/gradio_api/%66ile={file}",
    "/gradio_api/file/{file}",
]


@pytest.mark.parametrize("target", DISGUISED)
def test_another_spelling_opens_nothing(target: str, place: Place) -> None:
    path, names = Path(place.work.names.files[1]), place.work.names
    spelt = target.format(session=names.sessions[0], event=names.events[1], file=path,
                          folder=path.parent, name=path.name)  # fmt: skip
    with place.stranger("anonymous") as http:
        crawler = place.crawler(http)
        crawler.ask("GET", spelt)
    assert place.work.seen_in(crawler.answers) == set()


def test_a_session_in_an_escaped_or_another_body(place: Place) -> None:
    with Browser(place.page) as stranger:
        number = stranger.component("live")
        form = {"component_id": str(number), "fn_name": "changes", "session_hash": SESSIONS[0]}
        as_form = {"files": {"data": ("x", b"{}")}, "data": form}
        target = "/gradio_api/component_server/"
        assert stranger.http.post(target, **as_form).status_code == 415  # type: ignore[arg-type]
        escaped = b'{"session\\u005fhash": "%s", "fn_index": 0, "data": [], "event_id": "%s"}' % (
            SESSIONS[0].encode(), place.work.names.events[1].encode()
        )  # fmt: skip
        json_type = {"Content-Type": "application/json"}
        for name in ("cancel", "queue/join", "run/predict"):
            answer = stranger.http.post(f"/gradio_api/{name}", content=escaped, headers=json_type)
            assert answer.status_code == 404


def test_a_program_without_cookies_gets_what_it_asked_for(place: Place) -> None:
    """gradio_client keeps none: each of its requests is somebody new."""
    client = place.page.client()
    images, receipt = client.predict(
        prompt="by a program", image_size=SMALL, backend="demo", api_name="/generate"
    )
    assert receipt["prompt"] == "by a program"
    assert Path(images[0]["image"] if "image" in images[0] else images[0]).read_bytes()
    with place.stranger("anonymous") as http:
        crawler = place.crawler(http)
        crawler.ask("GET", f"/gradio_api/file={place.work.names.files[0]}")
    assert place.work.seen_in(crawler.answers) == set()


def test_her_streams_were_left_to_her(place: Place) -> None:
    """After all that: her unread event, and the job that was running."""
    unread = heard(place.work.ada, SESSIONS[0])
    assert WORD in unread and "process_completed" in unread
    place.fal.release()
    done = heard(place.work.ada, SESSIONS[1])
    assert '"success":true' in done and "gradio.FileData" in done


def test_she_herself_is_shown_all_of_it(place: Place) -> None:
    """The crawler finds what is there to be found."""
    rows = place.rows()
    with place.as_(place.work.ada) as http:
        crawler = place.crawler(http)
        crawler.crawl()
    assert place.work.seen_in(crawler.answers) == set(place.work.pieces)
    assert place.rows() != rows


def test_a_new_route_must_be_reviewed(place: Place, tmp_path: Path) -> None:
    for method, path in (("GET", "/notes/{note}"), ("POST", "/notes")):
        routes = tmp_path / "routes.json"
        routes.write_text(json.dumps([(method, path, [])]))
        with place.page.http() as http, pytest.raises(Unreviewed, match="notes"):
            Crawler(place.page, routes, http, place.work.names).crawl()


def test_nothing_is_reviewed_that_is_not_there(place: Place) -> None:
    served = {path.rstrip("/") for _, path, _ in json.loads(place.routes.read_text())}
    assert served >= BODIES.keys()


def heard(browser: Browser, session: str) -> str:
    return browser.http.get(f"/gradio_api/queue/data?session_hash={session}").text


def file(path: str) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}
