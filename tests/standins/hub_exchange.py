"""One exchange after another on a connection: read, answer, spoil, deliver; all in the ledger."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

from .fal_answers import pause
from .fal_routes import Call, Handler, Route
from .hub_answers import RateLimits, length, part, refusal, signed
from .hub_faults import HubFault, HubFaults
from .hub_gate import token_of
from .hub_ledger import HubLedger, HubRequest, token_hash
from .wire import Answer, Head, HttpConnection, header, with_header

CONTROL = "control"
"""The stage of the stand-in's own routes, which are not part of what it saw."""
BODY_LIMIT = 64 * 1024 * 1024
PIECE = 64 * 1024
TICK = 0.02
"""Seconds between the pieces of a throttled answer."""
BUCKETS = {"cdn": None, "unknown": None, "resolve": "resolvers", "cache": "resolvers"}


class HubExchanges:
    """Serves the connections of one listener by its routes, with the faults."""

    def __init__(
        self, routes: tuple[Route, ...], faults: HubFaults, ledger: HubLedger, limits: RateLimits
    ) -> None:
        self._routes = routes
        self._faults = faults
        self._ledger = ledger
        self._limits = limits
        self.stopping = asyncio.Event()
        self.released = asyncio.Event()

    async def serve(self, connection: HttpConnection) -> None:
        with contextlib.suppress(OSError):
            reusable = True
            while reusable and (head := await connection.next_head()) is not None:
                await self._exchange(head, connection)
                reusable = connection.reusable() and not self.stopping.is_set()
        connection.close()

    async def _exchange(self, head: Head, connection: HttpConnection) -> None:
        route, names = _find(self._routes, head)
        body, whole = await connection.read_body(BODY_LIMIT)
        if not whole:
            connection.reset()
            return
        call = Call(head, body, f"http://{head.host}", names)
        if route.stage == CONTROL:
            await self._deliver(connection, head, route.handler(call))
        else:
            await self._seen(route, call, connection)

    async def _seen(self, route: Route, call: Call, connection: HttpConnection) -> None:
        """Answer a request that counts: the ledger has it, faults may strike it."""
        head = call.head
        fault = self._faults.take(route.stage, head.target)
        number = self._ledger.open(_entry(route, call, fault))
        answer = self._answer(route, call, fault)
        await self._delay(fault)
        if self.stopping.is_set() or (fault and fault.kind == "reset"):
            connection.reset()
            return
        self._ledger.amend(number, status=answer.status)
        sent, answered = await self._deliver(connection, head, answer, fault, number)
        self._ledger.amend(number, sent_bytes=sent, answered=answered)

    async def _delay(self, fault: HubFault | None) -> None:
        if fault and fault.kind == "slow":
            await pause(self.stopping, fault.seconds)
        if fault and fault.kind == "hang":
            await self._hang()

    async def _hang(self) -> None:
        """Wait for `released` or the end; several wait for the same release."""
        self.released.clear()
        ends = [asyncio.ensure_future(e.wait()) for e in (self.released, self.stopping)]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()

    def _answer(self, route: Route, call: Call, fault: HubFault | None) -> Answer:
        bucket = BUCKETS.get(route.stage, "api")
        headers, refused = self._limits.count(bucket) if bucket else ((), None)
        answer = refused or _carried_out(route.handler, call, fault)
        told = {name.lower() for name, _ in answer.headers}
        fresh = tuple((name, value) for name, value in headers if name.lower() not in told)
        return replace(answer, headers=signed((*answer.headers, *fresh)))

    async def _deliver(
        self,
        connection: HttpConnection,
        head: Head,
        answer: Answer,
        fault: HubFault | None = None,
        number: int | None = None,
    ) -> tuple[int, bool]:
        """Bytes of the body that went out, and whether that was all and the client there."""
        size = length(answer)
        await connection.send_head(answer, size)
        if head.method == "HEAD":
            return 0, await connection.finish()
        cut = fault is not None and fault.kind in ("truncated_body", "reset_midway")
        until = min(fault.amount, size) if cut and fault else size
        sent = 0
        async for data in self._pieces(answer, until, fault):
            if connection.gone():
                break
            sent += len(data)
            if number is not None:
                self._ledger.sending(number, sent)
            await connection.send(data)
        if fault and fault.kind == "reset_midway":
            connection.reset()
        if sent < size:
            connection.close()
            return sent, False
        return sent, await connection.finish()

    async def _pieces(
        self, answer: Answer, until: int, fault: HubFault | None
    ) -> AsyncIterator[bytes]:
        """The first `until` bytes of the body, at the fault's pace, while the stand-in runs."""
        rate = fault.amount if fault and fault.kind == "throttled" else None
        piece = PIECE if rate is None else max(1, min(PIECE, int(rate * TICK)))
        for start in range(0, until, piece):
            if self.stopping.is_set():
                return
            data = part(answer, start, min(until, start + piece))
            yield data
            if rate is not None:
                await pause(self.stopping, len(data) / rate)


def _find(routes: tuple[Route, ...], head: Head) -> tuple[Route, dict[str, str]]:
    for route in routes:
        names = route.match(head)
        if names is not None:
            return route, {key: value for key, value in names.items() if value is not None}
    return UNKNOWN, {}


def _page_not_found(_: Call) -> Answer:
    return refusal(404, "Sorry, we can't find the page you are looking for.")


UNKNOWN = Route("", "", "unknown", _page_not_found)


def _entry(route: Route, call: Call, fault: HubFault | None) -> HubRequest:
    head, token = call.head, token_of(call.head)
    return HubRequest(
        stage=route.stage,
        method=head.method,
        host=head.host,
        target=head.target,
        headers=tuple((k, v) for k, v in head.headers if k.lower() != "authorization"),
        authorized=header(head.headers, "authorization") is not None,
        token=token_hash(token) if token else None,
        body=call.body.decode("utf-8", "replace"),
        fault=fault.kind if fault else None,
    )


def _carried_out(handler: Handler, call: Call, fault: HubFault | None) -> Answer:
    """What the handler says, once the fault has had its way with it."""
    if fault and fault.kind == "answer":
        return Answer(fault.status, fault.headers, fault.body)
    if fault and fault.kind == "whole":
        kept = tuple((k, v) for k, v in call.head.headers if k.lower() != "range")
        return handler(replace(call, head=replace(call.head, headers=kept)))
    answer = handler(call)
    if fault and fault.kind == "truncated_json":
        return Answer(answer.status, answer.headers, part(answer, 0, length(answer) // 2))
    return _with_headers(answer, fault) if fault and fault.kind == "headers" else answer


def _with_headers(answer: Answer, fault: HubFault) -> Answer:
    headers = answer.headers
    for name, value in fault.headers:
        headers = with_header(headers, name, value)
    return replace(answer, headers=tuple((k, v) for k, v in headers if v))
