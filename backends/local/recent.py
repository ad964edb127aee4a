"""The things used last, bounded by their size in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Keeps what was used last, up to `limit` bytes. What is larger by itself isn't kept."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[K, tuple[V, int]] = OrderedDict()

    @property
    def size(self) -> int:
        """Of all that is kept, in bytes."""
        return sum(size for _, size in self._kept.values())

    def get(self, key: K, size: int, make: Callable[[], V]) -> V:
        """What is kept under the key, or else what `make` makes, which is `size` bytes large."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key][0]
        self._make_room(size)  # before it is made, so that both never are there at once
        made = make()
        if size <= self._limit:
            self._kept[key] = (made, size)
        return made

    def clear(self) -> None:
        self._kept.clear()

    def _make_room(self, size: int) -> None:
        while self._kept and self.size + size > self._limit:
            self._kept.popitem(last=False)
