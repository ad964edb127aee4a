"""The faults of the stand-in Hub: values, their table, and a function for each usual one.

A fault strikes the exchanges of one stage (`*`: of all), where `path` is part of the target.
All functions take `times=` (the next n exchanges, None for always) and `path=`.
"""

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, TypedDict, Unpack
from urllib.parse import unquote

from .hub_answers import refusal
from .hub_answers import too_many_requests as limit_answer
from .pending import Pending
from .wire import Answer, Headers

Stage = Literal[
    "*", "list", "info", "tree", "paths", "auth", "refs", "whoami", "harnesses", "resolve",
    "cache", "cdn",
]  # fmt: skip
Kind = Literal[
    "answer", "headers", "truncated_json", "whole", "slow", "throttled", "truncated_body",
    "reset", "reset_midway", "hang",
]  # fmt: skip
HTML: Headers = (("Content-Type", "text/html; charset=utf-8"),)


@dataclass(frozen=True)
class HubFault:
    """One thing that goes wrong; which fields count depends on the kind."""

    stage: Stage
    kind: Kind
    times: int | None = 1
    path: str = ""
    status: int = 200
    headers: Headers = ()
    body: bytes = b""
    amount: int = 0
    """Bytes, or bytes a second."""
    seconds: float = 0.0

    def strikes(self, stage: str, target: str) -> bool:
        return self.stage in ("*", stage) and self.path in unquote(target)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"body": base64.b64encode(self.body).decode()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        body = base64.b64decode(values.get("body", ""))
        headers = tuple((k, v) for k, v in values.get("headers", ()))
        return cls(**{**values, "body": body, "headers": headers})


class HubFaults(Pending[HubFault]):
    """The faults still to strike."""

    def take(self, stage: str, target: str) -> HubFault | None:
        """The next fault for this exchange."""
        return self.next(lambda fault: fault.strikes(stage, target))


class Scope(TypedDict, total=False):
    """How often a fault strikes: the next `times` (None: always), a part of the target or any."""

    times: int | None
    path: str


# Answers that say something else


def answer(
    stage: Stage, status: int, body: bytes = b"", headers: Headers = (), **scope: Unpack[Scope]
) -> HubFault:
    """This answer in place of the real one."""
    return HubFault(stage, "answer", status=status, body=body, headers=headers, **scope)


def _saying(stage: Stage, said: Answer, **scope: Unpack[Scope]) -> HubFault:
    return answer(stage, said.status, said.body, said.headers, **scope)


def limited(
    stage: Stage, reset: int = 55, retry_after: str | None = None, **scope: Unpack[Scope]
) -> HubFault:
    """429 for `reset` seconds, with `Retry-After` where it is given: the Hub sends none."""
    bucket = "resolvers" if stage in ("resolve", "cache") else "api"
    return _saying(stage, limit_answer(bucket, reset, retry_after), **scope)


def unavailable(stage: Stage, status: int = 503, **scope: Unpack[Scope]) -> HubFault:
    """A 5xx of the Hub's own, as JSON."""
    return _saying(
        stage, refusal(status, "Internal Error - We're working hard to fix this"), **scope
    )


def html(stage: Stage, status: int = 200, **scope: Unpack[Scope]) -> HubFault:
    """A page in place of JSON or weights: a login wall, a proxy's error."""
    page = f"<!DOCTYPE html><html><head><title>{status}</title></head><body>Sorry</body></html>"
    return answer(stage, status, page.encode(), HTML, **scope)


def redirected(stage: Stage, location: str, **scope: Unpack[Scope]) -> HubFault:
    """302 to any address, such as one that must not be reached."""
    return answer(stage, 302, b"", (("Location", location),), **scope)


def with_headers(stage: Stage, headers: Headers, **scope: Unpack[Scope]) -> HubFault:
    """The real answer with these headers in place of its own; an empty value takes one away."""
    return HubFault(stage, "headers", headers=headers, **scope)


def truncated_json(stage: Stage, **scope: Unpack[Scope]) -> HubFault:
    """Valid HTTP, but the body stops half-way."""
    return HubFault(stage, "truncated_json", **scope)


def ignores_range(stage: Stage = "cdn", **scope: Unpack[Scope]) -> HubFault:
    """200 and the whole file, whatever range was asked for."""
    return HubFault(stage, "whole", **scope)


# Answers that arrive in another way


def slow(stage: Stage, seconds: float, **scope: Unpack[Scope]) -> HubFault:
    """The headers come `seconds` later."""
    return HubFault(stage, "slow", seconds=seconds, **scope)


def throttled(stage: Stage, bytes_a_second: int, **scope: Unpack[Scope]) -> HubFault:
    return HubFault(stage, "throttled", amount=bytes_a_second, **scope)


def truncated_body(stage: Stage, after: int, **scope: Unpack[Scope]) -> HubFault:
    """The headers announce the whole body, `after` bytes of it come, the connection closes."""
    return HubFault(stage, "truncated_body", amount=after, **scope)


def reset(stage: Stage, **scope: Unpack[Scope]) -> HubFault:
    """Reset with no byte of an answer."""
    return HubFault(stage, "reset", **scope)


def reset_midway(stage: Stage, after: int, **scope: Unpack[Scope]) -> HubFault:
    """Reset after `after` bytes of the body."""
    return HubFault(stage, "reset_midway", amount=after, **scope)


def hang(stage: Stage, **scope: Unpack[Scope]) -> HubFault:
    """No answer until the stand-in is told to `release`; then the real one."""
    return HubFault(stage, "hang", **scope)
