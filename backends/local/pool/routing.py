"""Which replica a job goes to: one that holds its adapters, unless another is much freer."""

from __future__ import annotations

import random
from typing import Final

from ray.serve.request_router import (
    FIFOMixin,
    MultiplexMixin,
    PendingRequest,
    ReplicaID,
    RequestRouter,
    RunningReplica,
)

WORTH: Final = 1.5  # jobs that one waits behind rather than reading adapters anew
ASKED: Final = 3  # replicas, best first, before the choice is made again


class AffinityRouter(FIFOMixin, MultiplexMixin, RequestRouter):
    """Runs where requests come in, one in each proxy; named in the deployment's options.

    Serve's own router asks a holder once and then turns to whoever holds the
    least: under load it held to little and left replicas idle (`benchmarks/scale.py`
    compares). Here a holder counts as `WORTH` jobs shorter than it is.
    """

    def initialize_state(self, **_options: object) -> None:
        """Called once by Serve, instead of an `__init__`."""
        self._sent: dict[str, ReplicaID] = {}

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """The best replicas, each a rank of its own: Serve takes the first that isn't full."""
        key = pending_request.metadata.multiplexed_model_id if pending_request else ""
        order = sorted(candidate_replicas, key=lambda replica: self._cost(replica, key))
        return [[replica] for replica in order[:ASKED]]

    def on_request_routed(
        self, pending_request: PendingRequest, replica_id: ReplicaID, result: object
    ) -> None:
        """A replica's own word that it holds a set takes a while: the next job may be faster."""
        if key := pending_request.metadata.multiplexed_model_id:
            self._sent[key] = replica_id

    def _cost(self, replica: RunningReplica, key: str) -> tuple[float, int, float]:
        """Jobs in front, then adapters that might have to go; chance decides the rest."""
        load = self.replica_queue_len_cache.get(replica.replica_id) or 0
        held = replica.multiplexed_model_ids
        holds = key in held or self._sent.get(key) == replica.replica_id
        return (load - WORTH * holds, len(held), random.random())
