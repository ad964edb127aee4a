"""One exchange after another on a connection: read, carry out, spoil, answer; all in the ledger.

The order matters: the ledger says `accepted` before the first byte of the answer goes out, so
that it is right even when the client is killed at any moment.
"""

import asyncio
import contextlib
from dataclasses import replace

from .fal_answers import deliver, reshaped
from .fal_routes import Call, Route, find
from .fault_table import Fault, FaultTable
from .ledger import Exchange, Ledger
from .wire import Answer, Head, HttpConnection

CONTROL = "control"
"""The stage of the stand-in's own routes, which are not part of what it saw."""


class Exchanges:
    """Serves connections by the routes, with the faults."""

    def __init__(self, routes: tuple[Route, ...], faults: FaultTable, ledger: Ledger) -> None:
        self._routes = routes
        self._faults = faults
        self._ledger = ledger
        self.stopping = asyncio.Event()

    async def serve(self, scheme: str, connection: HttpConnection) -> None:
        with contextlib.suppress(OSError):
            reusable = True
            while reusable and (head := await connection.next_head()) is not None:
                await self._exchange(f"{scheme}://{head.host}", head, connection)
                reusable = connection.reusable() and not self.stopping.is_set()
        connection.close()

    async def _exchange(self, base: str, head: Head, connection: HttpConnection) -> None:
        route, names = find(self._routes, head)
        request_id = names.get("request_id")
        fault = self._faults.take(route.stage, request_id)
        number = self._enter(route, head, request_id, fault)
        body = await self._read(connection, fault, number)
        if body is None:
            return
        answer = self._answer(route, Call(head, body, base, names), fault)
        said = None if fault and fault.kind == "reset_after_accept" else answer.status
        known = answer.request_id or request_id
        self._amend(number, accepted=answer.accepted, request_id=known, status=said)
        answered = await deliver(connection, answer, fault, self.stopping)
        self._amend(number, answered=answered)

    def _enter(
        self, route: Route, head: Head, request_id: str | None, fault: Fault | None
    ) -> int | None:
        if route.stage == CONTROL:
            return None
        request = Exchange(route.stage, head.method, head.host, head.target, head.headers)
        kind = fault.kind if fault else None
        return self._ledger.open(replace(request, request_id=request_id, fault=kind))

    def _amend(self, number: int | None, **changes: object) -> None:
        if number is not None:
            self._ledger.amend(number, **changes)

    async def _read(
        self, connection: HttpConnection, fault: Fault | None, number: int | None
    ) -> bytes | None:
        """The whole body, or None where the fault or the client cut it off."""
        cut = fault is not None and fault.kind in ("reset_before_reading", "reset_mid_upload")
        body, whole = await connection.read_body(fault.amount if cut and fault else None)
        received = whole and not cut
        self._amend(number, body=body, accepted_bytes=len(body), received=received)
        if not received:
            connection.reset()
            return None
        return body

    def _answer(self, route: Route, call: Call, fault: Fault | None) -> Answer:
        if fault and fault.kind == "answer" and not fault.handled:
            return reshaped(Answer(), fault)
        return reshaped(route.guard(call.head) or route.handler(call), fault)
