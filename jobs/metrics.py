"""Figures for Prometheus. Every label's values are few and known: no visitor, prompt or path.

What happened in this process is counted as it happens. What is true of the whole
playground, the open jobs and the owner's money, is read from the database when
somebody asks, and is the same from each process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from generation.errors import StorageError
from history.store import History
from jobs.telling import ENDS, AdapterFetched, Happening, JobStep, Refusal

SECONDS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600, 1800)
_ENDED: Final = frozenset(ENDS.values())


class Metrics:
    """A listener that counts, and its registry."""

    def __init__(self, history: History, budget: Decimal | None) -> None:
        self.registry = CollectorRegistry()
        self._started = self._counter("jobs_started", "Jobs created here", "backend")
        self._ended = self._counter("jobs_ended", "Jobs that ended here", "backend", "state")
        self._failed = self._counter("job_errors", "Why jobs ended badly", "backend", "error")
        self._refused = self._counter("refusals", "Requests that became no job", "error")
        self._spent = self._counter("spend_usd", "US dollars that results cost", "backend", "key")
        self._queued = self._histogram("queue_seconds", "From sent to in progress", "backend")
        self._made = self._histogram("backend_seconds", "From sent to the result", "backend")
        self._stored = self._histogram("stored_seconds", "From asked to stored", "backend")
        self._bytes = self._counter("adapter_bytes", "Bytes of adapters that jobs waited for")
        self._fetched = self._histogram("adapter_seconds", "That jobs waited for an adapter")
        self.registry.register(Now(history, budget))

    def serve(self, host: str, port: int) -> Callable[[], None]:
        """Answer Prometheus on a port of its own; what is returned ends that.

        Raises:
            OSError: the port is taken, or isn't ours to take.
        """
        server, thread = start_http_server(port, host, self.registry)

        def close() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return close

    def __call__(self, happening: Happening) -> None:
        """Count it: see `jobs.telling`."""
        match happening:
            case JobStep():
                self._count(happening)
            case Refusal(error):
                self._refused.labels(type(error).__name__).inc()
            case AdapterFetched(size, seconds):
                self._bytes.inc(size)
                self._fetched.observe(seconds)

    def _count(self, step: JobStep) -> None:
        backend = step.job.backend
        if step.what == "created":
            self._started.labels(backend).inc()
        elif step.what == "running" and step.since_sent is not None:
            self._queued.labels(backend).observe(step.since_sent)
        elif step.what == "completed":
            self._spent.labels(backend, "visitor" if step.own_key else "owner").inc(step.usd)
            if step.since_sent is not None:
                self._made.labels(backend).observe(step.since_sent)
        elif step.what in _ENDED:
            self._end(step)

    def _end(self, step: JobStep) -> None:
        backend = step.job.backend
        self._ended.labels(backend, step.what).inc()
        if step.error is not None:
            self._failed.labels(backend, type(step.error).__name__).inc()
        if step.what == "stored" and not step.resumed and step.since_begun is not None:
            self._stored.labels(backend).observe(step.since_begun)

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"playground_{name}", about, labels, registry=self.registry)

    def _histogram(self, name: str, about: str, *labels: str) -> Histogram:
        name = f"playground_{name}"
        return Histogram(name, about, labels, buckets=SECONDS, registry=self.registry)


@dataclass(frozen=True, eq=False)
class Now(Collector):
    """Gauges of the whole playground; without its database only that this is away."""

    history: History
    budget: Decimal | None

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing: registering asks no database."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """What is true now."""
        found: list[GaugeMetricFamily] = []
        with suppress(StorageError):
            found = [self._open(), *(self._money() if self.budget is not None else ())]
        yield _gauge("database_up", "Whether the database can be read", float(bool(found)))
        yield from found

    def _open(self) -> GaugeMetricFamily:
        labels = ("backend", "state")
        family = GaugeMetricFamily("playground_jobs_open", "Jobs that haven't ended", labels=labels)
        for (backend, state), count in self.history.overview.open_by_state().items():
            family.add_metric((backend, state.value.lower()), count)
        return family

    def _money(self) -> Iterator[GaugeMetricFamily]:
        spending = self.history.spending
        today = spending.today()
        about = "US dollars that visitors took today (UTC)"
        yield _gauge("budget_usd", "US dollars a day for all visitors", float(self.budget or 0))
        yield _gauge(
            "budget_billed_usd", f"{about}, by the vendor's count", float(today.billed_usd)
        )
        yield _gauge("budget_reserved_usd", f"{about}, not settled", float(today.held_usd))
        yield _gauge("spending_stopped", "Whether the owner stopped it", float(spending.stopped))


def _gauge(name: str, about: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"playground_{name}", about, value=value)
