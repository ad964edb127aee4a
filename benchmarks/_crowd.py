"""Crowds of simulated users, what they met, and the books of both sides afterwards."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import httpx

from benchmarks._common import Server, clean_environment, process
from benchmarks._servers import StandIn
from benchmarks._users import COOKIE, Outcome, Plan, cookie_of


@dataclass(frozen=True, slots=True)
class Run:
    """One crowd: seconds of each answered user, and CPU seconds of each process meanwhile."""

    prompts: tuple[str, ...]
    answered: tuple[float, ...]
    in_hand: tuple[float, ...]
    total: float
    app_cpu: float
    fal_cpu: float
    users_cpu: float
    errors: tuple[str, ...]

    @property
    def unanswered(self) -> int:
        """Users who got no image."""
        return len(self.prompts) - len(self.in_hand)


def send_crowd(kind: str, users: int, window: float, label: str, app: Server, fal: StandIn) -> Run:
    """Let a crowd in and wait for its end. `kind` and `window` are `Plan`'s."""
    url = f"https://{fal.environment['FAL_QUEUE_RUN_HOST']}" if kind == "bare" else app.url
    plan = Plan(kind, url, users, window, label)
    command, pipe = ["-m", "benchmarks._users"], subprocess.PIPE
    environment = clean_environment(**fal.environment)
    with process(command, environment, stdin=pipe, stdout=pipe) as crowd:
        assert crowd.stdin is not None and crowd.stdout is not None
        print(json.dumps(asdict(plan)), file=crowd.stdin, flush=True)
        if crowd.stdout.readline() != "ready\n":
            raise RuntimeError(f"the users of {label!r} could not prepare")
        app_cpu, fal_cpu = app.cpu(), fal.cpu()
        print("go", file=crowd.stdin, flush=True)
        outcome = Outcome(**json.loads(crowd.stdout.readline()))
        app_cpu, fal_cpu = app.cpu() - app_cpu, fal.cpu() - fal_cpu
    return Run(
        prompts=tuple(plan.prompt(user) for user in range(users)),
        answered=tuple(each for each in outcome.answered if each is not None),
        in_hand=tuple(each for each in outcome.in_hand if each is not None),
        total=outcome.total,
        app_cpu=app_cpu,
        fal_cpu=fal_cpu,
        users_cpu=outcome.cpu,
        errors=tuple(outcome.errors),
    )


@dataclass(frozen=True, slots=True)
class Books:
    """By prompt: how often it was posted, its paid request ids, and those stored in /history."""

    posts: Counter[str]
    paid: dict[str, set[str]]
    stored: dict[str, str]

    def duplicates(self, prompts: Iterable[str]) -> int:
        """Posts beyond the first of each."""
        return sum(max(0, self.posts[prompt] - 1) for prompt in prompts)

    def missing(self, prompts: Iterable[str]) -> list[str]:
        """Accepted by the endpoint, and not stored under the id of that request."""
        paid = {prompt: self.paid.get(prompt, set()) for prompt in prompts}
        return [prompt for prompt, ids in paid.items() if ids - {self.stored.get(prompt)}]


def read_books(app: Server, fal: StandIn, users: int) -> Books:
    """The endpoint's ledger and every visitor's history."""
    posts: Counter[str] = Counter()
    paid: dict[str, set[str]] = {}
    for post in fal.ledger().posts():
        prompt = str(json.loads(post.body or b"{}").get("prompt"))
        posts[prompt] += 1
        if post.accepted and post.request_id:
            paid.setdefault(prompt, set()).add(post.request_id)
    return Books(posts, paid, _stored(app, users))


def _stored(app: Server, users: int) -> dict[str, str]:
    stored = {}
    for user in range(users):
        for row in _history(app.url, user):
            if row["status"] == "STORED" and row["images"]:
                stored[str(row["prompt"])] = str(row["receipt"]["request_id"])
    return stored


def _history(url: str, user: int) -> list[dict[str, Any]]:
    """All rows of one visitor, by the public API."""
    call = "/gradio_api/call/history"
    cookies = {COOKIE: cookie_of(user)}
    rows: list[dict[str, Any]] = []
    with httpx.Client(base_url=url, cookies=cookies, trust_env=False, timeout=60) as client:
        while True:
            data = ["", 200, rows[-1]["id"] if rows else None]
            joined = client.post(call, json={"data": data}).raise_for_status().json()
            said = client.get(f"{call}/{joined['event_id']}").raise_for_status().text
            if not said.startswith("event: complete"):
                raise RuntimeError(said[:300])
            [page] = json.loads(said.partition("data: ")[2].partition("\n")[0])
            rows += page
            if len(page) < 200:
                return rows
