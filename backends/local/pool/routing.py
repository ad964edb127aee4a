"""Which replica a job goes to: one that holds its adapters, unless another is much freer."""

from __future__ import annotations

import random
import time
from collections import Counter
from itertools import takewhile
from typing import Final

from ray.serve.request_router import (
    FIFOMixin,
    MultiplexMixin,
    PendingRequest,
    ReplicaID,
    RequestRouter,
    RunningReplica,
)

RECENT: Final = 2.0  # seconds until a replica's own word of what it holds is here
ASKED: Final = 3  # replicas, best first, before the choice is made again


class AffinityRouter(FIFOMixin, MultiplexMixin, RequestRouter):  # type: ignore[misc]
    """Runs where requests come in, one in each proxy; named in the deployment's options.

    For a replica that holds its adapters a job waits at most twice as long as for
    another, and one job longer: popular adapters spread, the others stay. (Serve's own
    router stays with a holder until that is full, whoever is idle, and when all are
    full it looks again after up to half a second, in which a GPU could make an image.)
    """

    def initialize_state(self, **_options: object) -> None:
        """Called once by Serve, instead of an `__init__`."""
        self._sent = Sent()
        self._adapters: dict[str, tuple[ReplicaID, float]] = {}  # where and when a set went last

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """The best replicas, each a rank of its own: Serve takes the first that isn't full."""
        job, key = _names(pending_request)
        self._sent.forget(job)
        self._sent.give_up()
        order = sorted(candidate_replicas, key=lambda replica: self._cost(replica, key))[:ASKED]
        if order and job:
            self._sent.maybe(job, order[0].replica_id)
        if order and key:
            self._adapters[key] = (order[0].replica_id, time.monotonic())
        return [[replica] for replica in order]

    def on_request_routed(
        self, pending_request: PendingRequest, replica_id: ReplicaID, result: object
    ) -> None:
        """A replica took it."""
        self._sent.surely(_names(pending_request)[0], replica_id)

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """It ended, in whatever way."""
        self._sent.forget(internal_request_id)

    def _cost(self, replica: RunningReplica, key: str) -> tuple[float, bool, int, float]:
        """Jobs in front, then adapters that might have to go; chance decides the rest."""
        name, held = replica.replica_id, replica.multiplexed_model_ids
        told = self.replica_queue_len_cache.get(name) or 0  # with other proxies' jobs, if lately
        load = max(told, self._sent.count(name))
        holds = key in held or self._went_to(key) == name
        return ((load - 1) / 2 if holds else load, not holds, len(held), random.random())

    def _went_to(self, key: str) -> ReplicaID | None:
        """The replica that has a set by now, though it hasn't said so yet."""
        replica, when = self._adapters.get(key, (None, 0.0))
        if replica is not None and time.monotonic() - when > RECENT:
            del self._adapters[key]
            return None
        return replica


class Sent:
    """The jobs that this router sent to replicas, counted at once: many go out before Serve
    has counted the first. One that was meant to go and never did is forgotten after a while."""

    def __init__(self) -> None:
        self._at: dict[str, ReplicaID] = {}
        self._counts: Counter[ReplicaID] = Counter()
        self._unsure: dict[str, float] = {}  # when, by the monotonic clock; oldest first

    def count(self, replica: ReplicaID) -> int:
        """The jobs that are there or on their way."""
        return self._counts[replica]

    def maybe(self, job: str, replica: ReplicaID) -> None:
        """A job will go to a replica, unless that is full or nobody waits for it any more."""
        self._put(job, replica)
        self._unsure[job] = time.monotonic()

    def surely(self, job: str, replica: ReplicaID) -> None:
        """It is there."""
        self.forget(job)
        self._put(job, replica)

    def give_up(self) -> None:
        """On what should have arrived by now."""
        long_ago = time.monotonic() - RECENT
        for job in list(takewhile(lambda job: self._unsure[job] < long_ago, self._unsure)):
            self.forget(job)

    def forget(self, job: str) -> None:
        """It is nowhere."""
        self._unsure.pop(job, None)
        if (replica := self._at.pop(job, None)) is not None:
            self._counts[replica] -= 1

    def _put(self, job: str, replica: ReplicaID) -> None:
        self._at[job] = replica
        self._counts[replica] += 1


def _names(request: PendingRequest | None) -> tuple[str, str]:
    """The job's and its adapters'; empty where there are none."""
    if request is None:
        return "", ""
    return request.metadata.internal_request_id, request.metadata.multiplexed_model_id
