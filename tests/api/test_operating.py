"""A public page as its owner runs it: healthz, metrics, log, and the page at /owner."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.api.browser import Browser, Said
from tests.process.playground import KEY, Playground, free_port, playground
from tests.standins import fal_faults as faults
from tests.standins.fal_process import FalProcess

SMALL = {"width": 64, "height": 64}
TOKEN = "correct horse battery staple"
PROMPT = "a canary that nobody else thinks of"
SCRIPT = "<script>alert(1)</script>"
METRICS = free_port()
SETTINGS = {
    "FAL_KEY": KEY,
    "PLAYGROUND_MODE": "public",
    "PLAYGROUND_VISITOR_LIMITS": "none",
    "PLAYGROUND_OWNER_TOKEN": TOKEN,
    "PLAYGROUND_METRICS_PORT": str(METRICS),
    "PLAYGROUND_LOG": "json",
}


@pytest.fixture(scope="module")
def running(fal: FalProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playground]:
    """A page on which two visitors have made an image, and one had no luck."""
    with playground(tmp_path_factory.mktemp("owned"), fal.environment, SETTINGS) as page:
        for backend in ("hosted", "demo"):
            with Browser(page) as browser:
                browser.call("generate", prompt=PROMPT, image_size=SMALL, backend=backend)
        with Browser(page) as browser:
            said = {"detail": f"{PROMPT} {SCRIPT}"}
            fal.inject(faults.answer("submit", 403, said))
            with pytest.raises(Said, match="may not use the endpoint"):
                browser.call("generate", prompt=PROMPT, image_size=SMALL)
            with pytest.raises(Said):
                browser.call("generate", prompt=PROMPT, enable_safety_checker=False)
        yield page
    assert "Traceback" not in page.log()


@pytest.fixture
def visitor(running: Playground) -> Iterator[httpx.Client]:
    with running.http() as http:
        yield http


@pytest.fixture
def owner(visitor: httpx.Client) -> httpx.Client:
    assert enter(visitor, TOKEN).status_code == 303
    return visitor


def enter(http: httpx.Client, token: str) -> httpx.Response:
    return http.post("/owner", data={"action": "enter", "token": token})


# -- healthz -------------------------------------------------------------------


def test_health_is_told_to_whoever_asks(visitor: httpx.Client) -> None:
    answer = visitor.get("/healthz")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    told = answer.json()
    assert told.pop("uptime_seconds") > 0 and re.fullmatch(r"\d+\.\d+\.\d+", told.pop("version"))
    assert told == {"status": "ok", "backend": "hosted", "backend_ready": True, "database": True}
    assert "set-cookie" not in answer.headers and not visitor.cookies
    assert visitor.post("/healthz").status_code == 405


def test_health_is_told_fast(visitor: httpx.Client) -> None:
    def seconds() -> float:
        began = time.perf_counter()
        visitor.get("/healthz")
        return time.perf_counter() - began

    assert min(seconds() for _ in range(20)) < 0.05


def test_health_keeps_to_the_hosts_of_the_page(visitor: httpx.Client) -> None:
    assert visitor.get("/healthz", headers={"Host": "rebound.example"}).status_code == 400
    assert visitor.get("/healthz", headers={"Host": "10.1.2.3:7860"}).status_code == 200


def test_without_a_database_it_is_of_no_use(running: Playground, visitor: httpx.Client) -> None:
    with away(running):
        answer = visitor.get("/healthz")
        assert answer.status_code == 503
        assert (answer.json()["status"], answer.json()["database"]) == ("unavailable", False)
    assert visitor.get("/healthz").status_code == 200


@contextmanager
def away(page: Playground) -> Iterator[None]:
    """As if its disk were unmounted."""
    file = page.data_dir / "history.sqlite3"
    aside = file.rename(file.with_suffix(".away"))
    try:
        yield
    finally:
        aside.rename(file)


# -- metrics and log -----------------------------------------------------------


def metrics() -> dict[str, dict[tuple[str, ...], float]]:
    text = httpx.get(f"http://127.0.0.1:{METRICS}/metrics", trust_env=False).text
    assert PROMPT not in text and KEY not in text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    return {
        name.removeprefix("playground_"): {
            tuple(value for _, value in sorted(sample.labels.items())): sample.value
            for sample in family.samples
            if not sample.name.endswith(("_bucket", "_created", "_sum"))
        }
        for name, family in families.items()
    }


def test_metrics_on_a_port_of_their_own(running: Playground) -> None:
    found = metrics()
    assert found["jobs_ended"] == {
        ("hosted", "stored"): 1,
        ("demo", "stored"): 1,
        ("hosted", "failed"): 1,
    }
    assert found["job_errors"] == {("hosted", "NotPermitted"): 1}
    assert found["refusals"] == {("NotAllowedHere",): 1}
    assert found["stored_seconds"] == {("hosted",): 1, ("demo",): 1}
    assert found["budget_usd"] == {(): 1}


def test_every_event_is_a_line_of_json(running: Playground) -> None:
    rows = [json.loads(line) for line in running.log().splitlines() if line.startswith("{")]
    assert {"time", "level", "logger", "message"} <= set.intersection(*map(set, rows))
    events = [row["event"] for row in rows if row.get("backend") == "hosted"]
    assert events.count("job created") == 2
    assert events.count("job stored") == events.count("job failed") == 1
    announced, *_ = rows
    assert "Visitors may spend $1.00 a day on FAL_KEY" in announced["message"]


def test_the_log_holds_no_prompt_key_token_or_visitor(
    running: Playground, owner: httpx.Client
) -> None:
    with Browser(running) as browser:
        browser.call("generate", prompt=PROMPT, image_size=SMALL, backend="demo")
        named = browser.http.cookies["playground_visitor"]
    assert len(named) == 43
    for secret in (PROMPT, KEY, TOKEN, named, named[:12]):
        assert secret not in running.log()


# -- the owner's page ----------------------------------------------------------


def test_a_stranger_is_asked_for_the_token(visitor: httpx.Client) -> None:
    answer = visitor.get("/owner")
    assert answer.status_code == 401
    assert "Owner token" in answer.text and "Spend" not in answer.text
    assert "set-cookie" not in answer.headers
    assert visitor.post("/owner", data={"action": "stop"}).status_code == 401
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


def test_a_pass_is_not_the_token_and_can_not_be_made_up(owner: httpx.Client) -> None:
    made = owner.cookies["playground_owner"]
    assert TOKEN not in made and owner.get("/owner").status_code == 200
    until, mark = made.split(".")
    for forged in ("", TOKEN, mark, f"{int(until) + 1}.{mark}", f"{until}.", f"{until}.é", "1.2"):
        header = {b"Cookie": f"playground_owner={forged}".encode()}
        assert httpx.get(owner.base_url.join("/owner"), headers=header).status_code == 401, forged


def test_the_pass_stays_in_this_browser_and_on_this_page(visitor: httpx.Client) -> None:
    cookie = enter(visitor, TOKEN).headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie
    assert visitor.post("/owner", data={"action": "leave"}).status_code == 303
    assert visitor.get("/owner").status_code == 401


def test_what_the_owner_sees(owner: httpx.Client) -> None:
    page = owner.get("/owner").text
    for said in ("Today (UTC)", "7 days", "30 days", "Left today", "$1.00", "no limit", "fal"):
        assert said in page, said
    assert "NotPermitted" in page and "Spending is allowed." in page
    assert PROMPT not in page and KEY not in page and "…" in page
    assert SCRIPT not in page and "&lt;script&gt;alert(1)" in page


def test_in_chinese_too(owner: httpx.Client) -> None:
    page = owner.get("/owner", headers={"Accept-Language": "zh-CN"}).text
    assert '<html lang="zh-CN">' in page and "停止花费" in page and "Stop spending" not in page


def test_the_switch_stops_the_next_job(running: Playground, owner: httpx.Client) -> None:
    def generate() -> Any:
        with Browser(running) as browser:
            return browser.call("generate", prompt=PROMPT, image_size=SMALL)

    assert owner.post("/owner", data={"action": "stop"}).headers["location"] == "owner"
    try:
        assert "Spending is stopped." in owner.get("/owner").text
        assert metrics()["spending_stopped"] == {(): 1}
        with pytest.raises(Said, match="has stopped spending"):
            generate()
    finally:
        owner.post("/owner", data={"action": "resume"})
    assert "Spending is allowed." in owner.get("/owner").text
    generate()


@pytest.mark.parametrize(
    "foreign", [{"Origin": "https://elsewhere.example"}, {"Sec-Fetch-Site": "cross-site"}]
)
def test_another_site_can_not_press_the_button(
    owner: httpx.Client, foreign: dict[str, str]
) -> None:
    answer = owner.post("/owner", data={"action": "stop"}, headers=foreign)
    assert answer.status_code == 403
    assert "Spending is allowed." in owner.get("/owner").text


def test_a_form_that_is_none_of_ours_does_nothing(owner: httpx.Client) -> None:
    huge = owner.post("/owner", content=b"action=stop&x=" + b"x" * 5000)
    assert huge.status_code == 303 and "Spending is allowed." in owner.get("/owner").text


def test_z_guessing_is_slowed_for_everybody(running: Playground, owner: httpx.Client) -> None:
    """Last: for a minute nobody else can enter. Who is in, stays in."""
    with running.http() as guesser:
        answers = [enter(guesser, f"guess number {number}") for number in range(12)]
        assert [answer.status_code for answer in answers] == [401] * 10 + [429] * 2
        assert 0 < int(answers[-1].headers["retry-after"]) <= 61
        assert enter(guesser, TOKEN).status_code == 429
    assert owner.get("/owner").status_code == 200


# -- other pages ---------------------------------------------------------------


def test_a_private_page_is_its_owners(page: Playground) -> None:
    with page.http() as http:
        answer = http.get("/owner")
        assert answer.status_code == 200 and "By the receipts." in answer.text
        assert "Stop spending" not in answer.text and "Leave" not in answer.text
        assert http.get("/owner", headers={"Host": "rebound.example"}).status_code == 400
