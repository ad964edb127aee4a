"""The page's side of the pool, in front of a proxy that does what the test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from backends.base import Resources
from backends.local.job import Job
from backends.local.pool.desk import MOST, PoolDesk
from backends.local.pool.reach import Reach
from backends.local.pool.wire import ADAPTERS, REPLICA, Order, adapters_key, frame
from backends.registry import available
from generation.errors import (
    BackendUnavailable,
    EngineCrashed,
    InvalidRequest,
    PoolLost,
    PoolUnreachable,
)
from generation.events import Event, Finished, Queued, Running
from generation.lora_file import LoraFile
from generation.result import GenerationResult, ImageFile
from settings import Settings
from tests.local.engine_bench import wanted
from tests.pool.harness import free_port

PATIENCE = 10.0  # seconds
DONE = Finished(GenerationResult(images=(ImageFile(data=b"\n image"),), seed=7))
Act = Callable[["Call"], Awaitable[None]]


class Call:
    """One request at the proxy."""

    def __init__(self, head: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        lines = head.splitlines()
        self.start = lines[0]
        self.headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        self.body = body
        self._writer = writer

    async def begin(self, status: str = "200 OK", header: str = f"{REPLICA}: r1") -> None:
        await self._send(f"HTTP/1.1 {status}\r\n{header}\r\ntransfer-encoding: chunked\r\n\r\n")

    async def say(self, *said: Event | BackendUnavailable | EngineCrashed | InvalidRequest) -> None:
        for one in said:
            data = frame(one)
            self._writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        await self._writer.drain()

    async def end(self) -> None:
        await self._send("0\r\n\r\n")

    async def _send(self, text: str) -> None:
        self._writer.write(text.encode())
        await self._writer.drain()


class Proxy:
    """Acts one call after the other; what the last act does goes on for all later ones."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.acts: list[Act] = []
        self.hung_up = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        call = Call(head, b"", writer)
        call.body = await reader.readexactly(int(call.headers.get("content-length", 0)))
        self.calls.append(call)
        await self.acts[min(len(self.calls), len(self.acts)) - 1](call)
        writer.write_eof()
        self.hung_up += await reader.read() == b""
        writer.close()


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    made = Proxy()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()


@pytest.fixture
async def desk(proxy: Proxy) -> AsyncIterator[PoolDesk]:
    made = PoolDesk(f"http://127.0.0.1:{proxy.port}/pool", pauses=(0.0, 0.0))
    yield made
    await made.close()


async def heard(desk: PoolDesk, job: Job | None = None, owner: str = "me") -> list[Event]:
    async with asyncio.timeout(PATIENCE):
        return [event async for event in desk.stream(job or Job(wanted()), owner)]


async def works(call: Call) -> None:
    await call.begin()
    await call.say(Queued(0), Running(1, 8), DONE)
    await call.end()


async def dies_in_the_middle(call: Call) -> None:
    await call.begin()
    await call.say(Queued(0), Running(1, 8))


async def refuses(call: Call) -> None:
    await call.begin("503 Service Unavailable", "server: proxy")
    await call.end()


# -- a job ---------------------------------------------------------------------


async def test_a_job_is_one_post_with_its_adapters_key(proxy: Proxy, desk: PoolDesk) -> None:
    proxy.acts = [works]
    job = Job(wanted(), ((LoraFile("o/a", local=Path("/data/a.safetensors")), 0.5),))
    assert await heard(desk, job) == [Queued(), Queued(0), Running(1, 8), DONE]
    (call,) = proxy.calls
    assert call.start == "POST /pool HTTP/1.1"
    assert call.headers[ADAPTERS] == adapters_key(job)
    assert Order.model_validate_json(call.body).job == job


async def test_without_adapters_any_replica_does(proxy: Proxy, desk: PoolDesk) -> None:
    proxy.acts = [works]
    await heard(desk)
    assert ADAPTERS not in proxy.calls[0].headers


async def test_the_pool_is_not_told_who_a_visitor_is(proxy: Proxy, desk: PoolDesk) -> None:
    proxy.acts = [works]
    await heard(desk, owner="a secret token")
    sent = json.dumps(proxy.calls[0].headers).encode() + proxy.calls[0].body
    assert b"secret" not in sent


async def test_events_come_as_they_happen(proxy: Proxy, desk: PoolDesk) -> None:
    go = asyncio.Event()

    async def slowly(call: Call) -> None:
        await call.begin()
        await call.say(Running(1, 8))
        await go.wait()
        await call.say(DONE)
        await call.end()

    proxy.acts = [slowly]
    async with asyncio.timeout(PATIENCE), aclosing(desk.stream(Job(wanted()), "me")) as told:  # type: ignore[type-var]
        assert [await anext(told), await anext(told)] == [Queued(), Running(1, 8)]
        go.set()
        assert await anext(told) == DONE


async def test_closing_the_stream_hangs_up(proxy: Proxy, desk: PoolDesk) -> None:
    async def waits(call: Call) -> None:
        await call.begin()
        await call.say(Running(1, 8))

    proxy.acts = [waits]
    async with asyncio.timeout(PATIENCE):
        async with aclosing(desk.stream(Job(wanted()), "me")) as told:  # type: ignore[type-var]
            assert [await anext(told), await anext(told)] == [Queued(), Running(1, 8)]
        while not proxy.hung_up:
            await asyncio.sleep(0.002)
    assert len(proxy.calls) == 1


# -- what goes wrong -----------------------------------------------------------


async def test_a_job_whose_replica_died_runs_again(proxy: Proxy, desk: PoolDesk) -> None:
    proxy.acts = [dies_in_the_middle, works]
    told = await heard(desk)
    assert [type(event) for event in told] == [Queued, Queued, Running, Running, Running, Finished]
    assert "another" in str(told[3]) and told[-1] == DONE
    first, second = (Order.model_validate_json(call.body) for call in proxy.calls)
    assert first == second


@pytest.mark.parametrize(
    ("acts", "kind"),
    [
        ([dies_in_the_middle], PoolLost),
        ([refuses, dies_in_the_middle, refuses], PoolLost),
        ([refuses], PoolUnreachable),
    ],
)
async def test_a_job_is_tried_three_times_at_most(
    proxy: Proxy, desk: PoolDesk, acts: list[Act], kind: type[Exception]
) -> None:
    proxy.acts = acts
    with pytest.raises(kind):
        await heard(desk)
    assert len(proxy.calls) == 3


async def test_a_crash_is_tried_elsewhere_and_an_error_of_the_job_is_not(
    proxy: Proxy, desk: PoolDesk
) -> None:
    async def crashes(call: Call) -> None:
        await call.begin()
        await call.say(Running(1, 8), EngineCrashed(reason="a fault"))

    async def minds(call: Call) -> None:
        await call.begin()
        await call.say(InvalidRequest(field="image_size", problem="is too much"))

    proxy.acts = [crashes, minds]
    with pytest.raises(InvalidRequest, match="image_size: is too much"):
        await heard(desk)
    assert len(proxy.calls) == 2
    proxy.acts = [crashes]
    with pytest.raises(EngineCrashed, match="a fault"):
        await heard(desk)
    assert len(proxy.calls) == 5


async def test_nobody_there_is_said_with_the_reason() -> None:
    desk = PoolDesk(f"http://127.0.0.1:{free_port()}", pauses=())
    with pytest.raises(PoolUnreachable, match="takes no jobs: .*connect"):
        await heard(desk)
    await desk.close()


async def test_one_visitor_cannot_fill_the_pools_line(proxy: Proxy, desk: PoolDesk) -> None:
    stop = asyncio.Event()

    async def waits(call: Call) -> None:
        await stop.wait()

    proxy.acts = [waits]
    greedy = [asyncio.create_task(heard(desk)) for _ in range(MOST)]
    async with asyncio.timeout(PATIENCE):
        while len(proxy.calls) < MOST:
            await asyncio.sleep(0.002)
    with pytest.raises(BackendUnavailable, match=f"{MOST} of your jobs"):
        await heard(desk)
    greedy.pop().cancel()
    await asyncio.sleep(0.01)
    proxy.acts = [works]
    assert (await heard(desk))[-1] == DONE
    assert (await heard(desk, owner="another"))[-1] == DONE
    for task in greedy:
        task.cancel()
    stop.set()
    await asyncio.gather(*greedy, return_exceptions=True)


# -- ready or not --------------------------------------------------------------


def routes(known: dict[str, str]) -> Act:
    async def answer(call: Call) -> None:
        assert call.start == "GET /-/routes HTTP/1.1"
        text = json.dumps(known)
        await call._send(f"HTTP/1.1 200 OK\r\ncontent-length: {len(text)}\r\n\r\n{text}")

    return answer


async def settled(reach: Reach, calls: Callable[[], int]) -> BackendUnavailable | None:
    """What it says once it has an answer."""
    before = calls()
    assert reach.problem() is None, "asking must not wait"
    async with asyncio.timeout(PATIENCE):
        while calls() == before:
            await asyncio.sleep(0.002)
        await asyncio.sleep(0.1)
    return reach.problem()


@pytest.mark.parametrize(
    ("act", "problem"),
    [
        (routes({"/pool": "playground"}), None),
        (routes({"/": "playground"}), "nothing is deployed at /pool"),
        (refuses, "it answered 503"),
    ],
)
async def test_the_page_says_why_the_pool_takes_no_jobs(
    proxy: Proxy, act: Act, problem: str | None
) -> None:
    proxy.acts = [act]
    reach = Reach(f"http://127.0.0.1:{proxy.port}/pool")
    found = await settled(reach, lambda: len(proxy.calls))
    assert (found and found.facts["reason"]) == problem
    assert len(proxy.calls) == 1, "an answer is good for a while"


async def test_a_pool_that_comes_back_is_noticed(proxy: Proxy) -> None:
    proxy.acts = [refuses, routes({"/": "playground"})]
    reach = Reach(f"http://127.0.0.1:{proxy.port}", fresh=0.0)
    assert await settled(reach, lambda: len(proxy.calls)) is not None
    async with asyncio.timeout(PATIENCE):
        while reach.problem() is not None:
            await asyncio.sleep(0.002)


async def test_the_setting_makes_the_pool_the_local_backend() -> None:
    """Neither torch nor a GPU is looked for on the page's machine."""
    settings = Settings(
        ray_address=f"http://127.0.0.1:{free_port()}", local_device="cuda", _env_file=None
    )
    local = available(settings)["local"]
    async with asyncio.timeout(PATIENCE):
        while (problem := local.capabilities(Resources()).problem) is None:
            await asyncio.sleep(0.002)
    assert isinstance(problem, PoolUnreachable)
    await local.close()
