"""Queries as the Hub reads them, and pages that a cursor in the `Link` header continues."""

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl, urlencode

from .fal_routes import Call
from .wire import Answer, Headers

Item = TypeVar("Item")


class BadQuery(ValueError):
    """A parameter that the Hub answers with 400."""


@dataclass(frozen=True)
class Query:
    """The parameters of a request, repeated ones in order; `name[]` is `name`."""

    pairs: tuple[tuple[str, str], ...]

    @classmethod
    def read(cls, text: str) -> "Query":
        pairs = parse_qsl(text, keep_blank_values=True)
        return cls(tuple((name.removesuffix("[]"), value) for name, value in pairs))

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.pairs if key == name]

    def get(self, name: str) -> str | None:
        return next(iter(self.all(name)), None)

    def flag(self, name: str) -> bool:
        return (self.get(name) or "").lower() in ("true", "1")

    def number(self, name: str, otherwise: int) -> int:
        value = self.get(name)
        if value is None:
            return otherwise
        if not value.isascii() or not value.isdigit():
            raise BadQuery(f"{name}: expected a number, received {value}")
        return int(value)


@dataclass(frozen=True)
class Pager(Generic[Item]):
    """Cuts a sorted sequence. `key`, as JSON, is what it is sorted by; no two items share one."""

    key: Callable[[Item], Any]
    descending: bool = False

    def answer(
        self,
        call: Call,
        items: Sequence[Item],
        size: int,
        shown: Callable[[Item], Any],
    ) -> Answer:
        """The page that the cursor asks for, `Link` leading to the next one if there is one."""
        query = Query.read(call.head.query)
        rest = self._after(items, query.get("cursor"))
        page = rest[:size]
        headers: Headers = ()
        if page and len(rest) > size:
            headers = (("Link", f'<{self._next(call, page[-1])}>; rel="next"'),)
        return Answer.json(200, [shown(item) for item in page], headers)

    def _after(self, items: Sequence[Item], cursor: str | None) -> Sequence[Item]:
        if cursor is None:
            return items
        last, keys = _decode(cursor), [self.key(item) for item in items]
        if keys and not _alike(last, keys[0]):
            raise BadQuery("Invalid cursor")
        later = [key < last if self.descending else key > last for key in keys]
        return items[later.index(True) :] if True in later else ()

    def _next(self, call: Call, last: Item) -> str:
        kept = parse_qsl(call.head.query, keep_blank_values=True)
        pairs = [(name, value) for name, value in kept if name != "cursor"]
        query = urlencode([*pairs, ("cursor", _encode(self.key(last)))])
        return f"{call.base}{call.head.path}?{query}"


def _alike(one: Any, other: Any) -> bool:
    """Whether two keys can be compared: the same types, in lists too."""
    if not isinstance(one, list) or not isinstance(other, list):
        return type(one) is type(other)
    return [type(value) for value in one] == [type(value) for value in other]


def _encode(key: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode()


def _decode(cursor: str) -> Any:
    try:
        return json.loads(base64.urlsafe_b64decode(cursor))
    except ValueError as exc:
        raise BadQuery("Invalid cursor") from exc
