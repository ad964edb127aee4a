"""`/_control/…`: the stand-in's ledger, clock and faults, for tests in another process."""

import json
from collections.abc import Callable
from typing import Any

from .fal_exchange import CONTROL
from .fal_jobs import JobBook
from .fal_routes import Call, Route
from .fault_table import Fault, FaultTable
from .ledger import Ledger
from .wire import Answer

Action = Callable[[Any], object]


class Control:
    """Each route takes JSON and answers with JSON."""

    def __init__(self, jobs: JobBook, faults: FaultTable, ledger: Ledger) -> None:
        self._jobs = jobs
        self._faults = faults
        self._ledger = ledger

    def routes(self) -> tuple[Route, ...]:
        clock = self._jobs.clock
        actions: dict[tuple[str, str], Action] = {
            ("GET", "ledger"): lambda _: self._ledger.rows(),
            ("GET", "jobs"): lambda _: self.jobs(),
            ("GET", "faults"): lambda _: [fault.to_json() for fault in self._faults.pending()],
            ("POST", "faults"): lambda rows: self.inject(*map(Fault.from_json, rows)),
            ("DELETE", "faults"): lambda _: self._faults.clear(),
            ("POST", "hold"): lambda _: clock.hold(),
            ("POST", "release"): lambda _: clock.release(),
            ("POST", "advance"): lambda seconds: clock.advance(float(seconds)),
            ("POST", "finish"): lambda request_id: self._jobs.finish(request_id),
        }
        return tuple(
            Route(method, f"/_control/{name}", CONTROL, _handler(action))
            for (method, name), action in actions.items()
        )

    def inject(self, *faults: Fault) -> None:
        """Faults of a job that exists are given to it, all others wait their turn."""
        for fault in faults:
            if fault.stage == "job" and fault.request_id:
                self._jobs.blight(fault.request_id, fault)
            else:
                self._faults.inject(fault)

    def jobs(self) -> list[dict[str, Any]]:
        return [
            {
                "request_id": job.request_id,
                "status": self._jobs.status(job),
                "cancelled": job.cancelled,
                "polls": job.polls,
                "fetches": job.fetches,
            }
            for job in self._jobs.all()
        ]


def _handler(action: Action) -> Callable[[Call], Answer]:
    def handle(call: Call) -> Answer:
        try:
            return Answer.json(200, action(json.loads(call.body or b"null")))
        except (ValueError, KeyError, TypeError) as exc:
            return Answer.json(400, {"detail": repr(exc)})

    return handle
