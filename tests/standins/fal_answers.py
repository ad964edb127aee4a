"""How each kind of answering and delivering fault is carried out: two tables of functions."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from .fal_images import as_jpeg
from .fault_table import Fault
from .wire import Answer, HttpConnection, with_header

CHUNK = 64 * 1024


def _replaced(answer: Answer, fault: Fault) -> Answer:
    replaced = replace(answer, status=fault.status, headers=fault.headers, body=fault.body)
    return replace(replaced, stream=None)


def _patched(answer: Answer, fault: Fault) -> Answer:
    if answer.stream is not None:
        return answer
    merged = merge_patch(json.loads(answer.body), json.loads(fault.body))
    return replace(answer, body=json.dumps(merged).encode())


def merge_patch(value: Any, patch: Any) -> Any:
    """RFC 7396: objects merge key by key, null takes a key away, anything else replaces."""
    if not isinstance(patch, dict):
        return patch
    kept = dict(value) if isinstance(value, dict) else {}
    for key, change in patch.items():
        if change is None:
            kept.pop(key, None)
        else:
            kept[key] = merge_patch(kept.get(key), change)
    return kept


def _with_headers(answer: Answer, fault: Fault) -> Answer:
    headers = answer.headers
    for name, value in fault.headers:
        headers = with_header(headers, name, value)
    return replace(answer, headers=headers)


def _halved(answer: Answer, _: Fault) -> Answer:
    return replace(answer, body=answer.body[: len(answer.body) // 2])


def _mislabelled(answer: Answer, _: Fault) -> Answer:
    return replace(answer, body=as_jpeg(answer.body)) if answer.status == 200 else answer


RESHAPES: dict[str, Callable[[Answer, Fault], Answer]] = {
    "answer": _replaced,
    "patch": _patched,
    "headers": _with_headers,
    "truncated_json": _halved,
    "jpeg_as_png": _mislabelled,
}


def reshaped(answer: Answer, fault: Fault | None) -> Answer:
    """What the answer says once the fault has had its way."""
    reshape = RESHAPES.get(fault.kind) if fault else None
    return reshape(answer, fault) if fault and reshape else answer


Delivery = Callable[[HttpConnection, Answer, Fault, asyncio.Event], Awaitable[bool]]


async def pause(stopping: asyncio.Event, seconds: float) -> None:
    """Wait, but not past the stand-in's own end."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stopping.wait(), seconds)


async def _whole(connection: HttpConnection, answer: Answer) -> bool:
    if answer.stream is None:
        await connection.send_head(answer, len(answer.body))
        await connection.send(answer.body)
        return await connection.finish()
    await connection.send_head(answer, None)
    async for piece in answer.stream:
        if connection.gone():
            break
        await connection.send(piece)
    return await connection.finish()


async def _reset(
    connection: HttpConnection, answer: Answer, fault: Fault, stopping: asyncio.Event
) -> bool:
    connection.reset()
    return False


async def _late(
    connection: HttpConnection, answer: Answer, fault: Fault, stopping: asyncio.Event
) -> bool:
    await pause(stopping, fault.seconds)
    if connection.gone() or stopping.is_set():
        return await _reset(connection, answer, fault, stopping)
    return await _whole(connection, answer)


async def _dripped(
    connection: HttpConnection, answer: Answer, fault: Fault, stopping: asyncio.Event
) -> bool:
    await connection.send_head(answer, len(answer.body))
    for index in range(len(answer.body)):
        if connection.gone() or stopping.is_set():
            return False
        await connection.send(answer.body[index : index + 1])
        await pause(stopping, fault.seconds)
    return await connection.finish()


async def _cut_short(
    connection: HttpConnection, answer: Answer, fault: Fault, stopping: asyncio.Event
) -> bool:
    await connection.send_head(answer, len(answer.body))
    await connection.send(answer.body[: len(answer.body) // 2])
    connection.close()
    return False


async def _padded(
    connection: HttpConnection, answer: Answer, fault: Fault, stopping: asyncio.Event
) -> bool:
    declared = fault.amount if fault.kind == "oversized_declared" else None
    await connection.send_head(answer, declared)
    await connection.send(answer.body[: fault.amount])
    left = fault.amount - len(answer.body)
    while left > 0 and not connection.gone() and not stopping.is_set():
        await connection.send(bytes(min(left, CHUNK)))
        left -= CHUNK
    return left <= 0 and await connection.finish()


DELIVERIES: dict[str, Delivery] = {
    "reset_after_accept": _reset,
    "slow": _late,
    "drip": _dripped,
    "truncated_body": _cut_short,
    "oversized_declared": _padded,
    "oversized_streamed": _padded,
}


async def deliver(
    connection: HttpConnection, answer: Answer, fault: Fault | None, stopping: asyncio.Event
) -> bool:
    """Put the answer on the wire; whether it went out to the end with the client still there."""
    delivery = DELIVERIES.get(fault.kind) if fault else None
    if fault and delivery:
        return await delivery(connection, answer, fault, stopping)
    return await _whole(connection, answer)
