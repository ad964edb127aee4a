"""Simulated users, in a process of their own: `python -m benchmarks._users`.

Reads a `Plan` as one JSON line, prepares, says `ready`, waits for another line,
lets all users arrive, and prints an `Outcome`. Each makes one job:

- `bare`: straight at the endpoint with asyncio and httpx, one client for all,
  as a script would. It posts, polls at the playground's own pace, fetches the
  result and downloads the image into memory.
- `api`: at the playground's `/generate`, one client each: POST, event stream,
  download of the image.
- `page`: what the page's own script sends, one client and one visitor's cookie
  each: the click, then waiting for `changes` until the job is settled, then the
  image.

Every user gives up after `LIMIT` seconds.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Protocol

import httpx

from benchmarks._page import PageUser
from benchmarks._servers import KEY
from generation.request import ENDPOINT

LIMIT: Final = 90.0
SEED: Final = 7  # the same for all, so that the stand-in draws its picture once
COOKIE: Final = "playground_visitor"


@dataclass(frozen=True, slots=True)
class Plan:
    """`url` is the endpoint's (`bare`) or the playground's. They arrive over `window` seconds.

    Each job's prompt is `label` and the user's number, by which it is found again.
    """

    kind: str
    url: str
    users: int
    window: float
    label: str

    def prompt(self, user: int) -> str:
        """The prompt of one user's job."""
        return f"{self.label}, user {user}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Seconds from each user's arrival to the answer and to the image in hand; None is a failure.

    `total` is from the first arrival to the last image, `cpu` this process's
    CPU seconds meanwhile.
    """

    answered: list[float | None]
    in_hand: list[float | None]
    total: float
    cpu: float
    errors: list[str] = field(default_factory=list)


class User(Protocol):
    """One person with one job."""

    async def prepare(self) -> None:
        """What happens before the job: the page is opened."""

    async def generate(self, prompt: str) -> str:
        """Returns the image's address when the job is done."""

    async def download(self, address: str) -> bytes:
        """The image's bytes."""


def cookie_of(user: int) -> str:
    """The visitor's token of a user: the same in every run."""
    return f"{user:043d}"


class BareUser:
    """A script's share of the work: no journal, no file, no page."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        from backends.hosted import Pace  # the only one of the three that needs fal_client

        self._client, self._url, self._pace = client, url, Pace()

    async def prepare(self) -> None:
        """Nothing."""

    async def generate(self, prompt: str) -> str:
        """Post, poll as `HostedBackend` does, fetch the result."""
        job = await self._json("POST", f"{self._url}/{ENDPOINT}", {"prompt": prompt, "seed": SEED})
        started, pause = time.monotonic(), self._pace.poll
        while (await self._json("GET", job["status_url"] + "?logs=1"))["status"] != "COMPLETED":
            if time.monotonic() - started >= self._pace.steady:
                pause = min(pause * 1.3, self._pace.poll_slow)
            await asyncio.sleep(pause)
        result = await self._json("GET", job["response_url"])
        return str(result["images"][0]["url"])

    async def download(self, address: str) -> bytes:
        """From the endpoint's media host."""
        return (await self._client.get(address)).raise_for_status().content

    async def _json(self, method: str, url: str, body: object = None) -> Any:
        return (await self._client.request(method, url, json=body)).raise_for_status().json()


class ApiUser:
    """A caller of the playground's public Gradio API."""

    def __init__(self, client: httpx.AsyncClient, values: dict[str, Any]) -> None:
        self._client, self._values = client, values

    async def prepare(self) -> None:
        """Nothing."""

    async def generate(self, prompt: str) -> str:
        """Post, then read the event stream to its end."""
        data = list((self._values | {"prompt": prompt, "seed": str(SEED)}).values())
        call = "/gradio_api/call/generate"
        joined = (await self._client.post(call, json={"data": data})).raise_for_status().json()
        event = ""
        async with self._client.stream("GET", f"{call}/{joined['event_id']}") as stream:
            async for line in stream.aiter_lines():
                key, _, value = line.partition(": ")
                event = value if key == "event" else event
                if key == "data" and event in ("complete", "error"):
                    break
        if event != "complete":
            raise RuntimeError(value)
        images, _receipt = json.loads(value)
        return f"/gradio_api/file={images[0]['path']}"

    async def download(self, address: str) -> bytes:
        """From Gradio's cache of files."""
        return (await self._client.get(address)).raise_for_status().content


# -- all of them together ------------------------------------------------------


async def run(plan: Plan, start: Callable[[], None]) -> Outcome:
    """Prepare all users, call `start` (which blocks until it's time), let them arrive."""
    users, clients = _users(plan)
    try:
        await asyncio.gather(*(user.prepare() for user in users))
        start()
        cpu, began = _cpu(), time.monotonic()
        done = await asyncio.gather(
            *(_one(user, plan, n) for n, user in enumerate(users)), return_exceptions=True
        )
        total, cpu = time.monotonic() - began, _cpu() - cpu
    finally:
        for client in clients:
            await client.aclose()
    times = [(None, None) if isinstance(each, BaseException) else each for each in done]
    return Outcome(
        answered=[answered for answered, _ in times],
        in_hand=[in_hand for _, in_hand in times],
        total=total,
        cpu=cpu,
        errors=[f"{type(e).__name__}: {e}" for e in done if isinstance(e, BaseException)],
    )


async def _one(user: User, plan: Plan, number: int) -> tuple[float, float]:
    await asyncio.sleep(plan.window * number / plan.users)
    began = time.monotonic()
    async with asyncio.timeout(LIMIT):
        address = await user.generate(plan.prompt(number))
        answered = time.monotonic() - began
        if not (await user.download(address)).startswith(b"\x89PNG"):
            raise RuntimeError("not a PNG")
    return answered, time.monotonic() - began


def _users(plan: Plan) -> tuple[list[User], list[httpx.AsyncClient]]:
    if plan.kind == "bare":
        client = httpx.AsyncClient(
            headers={"Authorization": f"Key {KEY}"},
            limits=httpx.Limits(max_connections=400, max_keepalive_connections=100),
            timeout=60,
        )
        return [BareUser(client, plan.url) for _ in range(plan.users)], [client]
    clients = [_visitor(plan.url, number) for number in range(plan.users)]
    if plan.kind == "page":
        config = httpx.get(f"{plan.url}/config", trust_env=False).raise_for_status().json()
        return [PageUser(client, config, SEED) for client in clients], clients
    info = httpx.get(f"{plan.url}/gradio_api/info", trust_env=False).raise_for_status().json()
    parameters = info["named_endpoints"]["/generate"]["parameters"]
    values = {each["parameter_name"]: each["parameter_default"] for each in parameters}
    return [ApiUser(client, values) for client in clients], clients


def _visitor(url: str, number: int) -> httpx.AsyncClient:
    cookies = {COOKIE: cookie_of(number)}
    return httpx.AsyncClient(base_url=url, cookies=cookies, trust_env=False, timeout=LIMIT)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """One plan from standard input, one outcome to standard output."""

    def start() -> None:
        print("ready", flush=True)
        sys.stdin.readline()

    plan = Plan(**json.loads(sys.stdin.readline()))
    print(json.dumps(asdict(asyncio.run(run(plan, start)))), flush=True)


if __name__ == "__main__":
    main()
