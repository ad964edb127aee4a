"""The faults that the fal stand-in can be told to commit, as values, and their table.

A `Fault` names the stage it strikes, its kind, and how often. Five families of kinds:

- *connect*: before any request;
- *reading*: the request is cut off;
- *answering*: the answer says something else;
- *delivering*: the answer arrives in another way, or not at all;
- *job*: the work itself goes wrong, and every answer about it tells so consistently.

`fal_faults` has a function for each usual one.
"""

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from .pending import Pending
from .wire import Headers

Stage = Literal[
    "connect", "submit", "status", "result", "cancel", "media", "upload", "token", "job"
]

CONNECT = {"tls_failure"}
READING = {"reset_before_reading", "reset_mid_upload"}
ANSWERING = {"answer", "patch", "headers", "truncated_json", "jpeg_as_png"}
DELIVERING = {
    "slow", "drip", "truncated_body", "oversized_declared", "oversized_streamed",
    "reset_after_accept",
}  # fmt: skip
JOB = {
    "fails", "never_completes", "rising_position", "no_images", "fewer_images", "black", "flagged",
    "expired",
}  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong at one stage; which fields count depends on the kind."""

    stage: Stage
    kind: str
    times: int | None = 1
    request_id: str | None = None
    status: int = 200
    headers: Headers = ()
    body: bytes = b""
    handled: bool = False
    """For `answer`: the request is carried out before its answer is replaced."""
    amount: int = 0
    """Bytes or images, as the kind has it."""
    seconds: float = 0.0
    error: str | None = None
    error_type: str | None = None

    def __post_init__(self) -> None:
        allowed = {"connect": CONNECT, "job": JOB}.get(self.stage, READING | ANSWERING | DELIVERING)
        if self.kind not in allowed:
            raise ValueError(f"no fault {self.kind!r} at stage {self.stage!r}")

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"body": base64.b64encode(self.body).decode()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        body = base64.b64decode(values.get("body", ""))
        headers = tuple((k, v) for k, v in values.get("headers", ()))
        return cls(**{**values, "body": body, "headers": headers})


class FaultTable(Pending[Fault]):
    """The faults still to strike."""

    def take(self, stage: str, request_id: str | None = None) -> Fault | None:
        """The next fault for this exchange."""
        return self.next(lambda f: f.stage == stage and f.request_id in (None, request_id))

    def take_each(self, stage: str) -> tuple[Fault, ...]:
        """The next fault of every kind at a stage: a job may be born with several."""
        with self._lock:
            first: dict[str, int] = {}
            for index, (fault, _) in enumerate(self._pending):
                if fault.stage == stage:
                    first.setdefault(fault.kind, index)
            return tuple(self._use(index) for index in sorted(first.values(), reverse=True))
