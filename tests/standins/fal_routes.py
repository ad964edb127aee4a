"""Which request is which: fal's paths, the stage that each belongs to, who must show a key."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .wire import Answer, Head, header

APP = r"/(?P<app>[\w-]+/[\w.-]+)"
REQUEST = APP + r"/requests/(?P<request_id>[\w-]+)"


@dataclass(frozen=True)
class Call:
    """A request that has arrived whole. `base` is the scheme and host the client used."""

    head: Head
    body: bytes
    base: str
    names: Mapping[str, str]


Handler = Callable[[Call], Answer]
Guard = Callable[[Head], Answer | None]


def unguarded(_: Head) -> Answer | None:
    return None


@dataclass(frozen=True)
class Route:
    """`guard` refuses a request before its handler, for the want of a key."""

    method: str
    pattern: str
    stage: str
    handler: Handler
    guard: Guard = unguarded

    def match(self, head: Head) -> Mapping[str, str] | None:
        if head.method != self.method and (head.method, self.method) != ("HEAD", "GET"):
            return None
        found = re.fullmatch(self.pattern, head.path)
        return found.groupdict() if found else None


def not_found(call: Call) -> Answer:
    return Answer.json(404, {"detail": f"Path {call.head.path} not found"})


UNKNOWN = Route("", "", "unknown", not_found)
RUN = Route("", "", "run", not_found)
"""The synchronous service is not offered: it can't be resumed, so nobody here may use it."""


def find(routes: tuple[Route, ...], head: Head) -> tuple[Route, Mapping[str, str]]:
    """The first route that fits, and the names in its path."""
    if head.host in ("fal.run", "falrun.com"):
        return RUN, {}
    for route in routes:
        names = route.match(head)
        if names is not None:
            return route, names
    return UNKNOWN, {}


def key_guard(key: str | None) -> Guard:
    """fal's 401s. With `key` None any well-formed key is good."""

    def guard(head: Head) -> Answer | None:
        given = header(head.headers, "authorization")
        if given is None:
            app = "/".join(head.path.split("/")[1:3])
            said = f'Cannot access application "{app}".'
            return _unauthorized(f"{said} Authentication is required to access this application.")
        scheme, _, token = given.partition(" ")
        if scheme != "Key" or not token.strip():
            expected = "Expected '<key_id>:<key_secret>'."
            return _unauthorized(f"Invalid Key Authorization header format. {expected}")
        if key is not None and token != key:
            return _unauthorized("No user found for Key ID and Secret")
        return None

    return guard


def _unauthorized(said: str) -> Answer:
    return Answer.json(401, {"detail": said})
