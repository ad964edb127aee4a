"""How well jobs were sent to replicas that held their adapters, against the best possible."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Arrival:
    """A job at a replica: which one, with which adapters, and whether it held them."""

    replica: str
    key: str
    held: str

    @staticmethod
    def of(record: logging.LogRecord) -> Arrival | None:
        """What `PoolDesk` says at DEBUG."""
        debug = record.levelno == logging.DEBUG and isinstance(record.args, tuple)
        return Arrival(*map(str, record.args)) if debug and record.args else None


def best_share(reached: Sequence[Arrival], room: int) -> float:
    """What no routing could surpass: one that knows the future, and replicas that share what they
    hold; a set is read when it is asked for first, and when more are in use than there is room
    (`room` on each replica, and the one that is needed last goes: Bélády, 1966)."""
    keys = [one.key for one in reached]
    held: set[str] = set()
    hits = 0
    for number, key in enumerate(keys):
        hits += key in held
        held.add(key)
        later = keys[number + 1 :]
        while len(held) > room * _alive(number, reached):
            held.remove(max(held, key=lambda k: later.index(k) if k in later else len(later)))
    return hits / len(keys)


def _alive(number: int, reached: Sequence[Arrival]) -> int:
    """How many replicas have taken jobs and will take more."""
    so_far = {one.replica for one in reached[: number + 1]}
    return len(so_far & {one.replica for one in reached[number:]})
