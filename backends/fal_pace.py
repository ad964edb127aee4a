"""How often the endpoint is asked about a job, and how long its silence is waited out."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from generation.errors import JobExpired, JobOverdue, KeyRevoked

KEY_REFUSED: Final = (401, 403)
NOT_THERE: Final = (404, 410)
REFUSALS: Final = 2  # in a row until a key counts as revoked,
ABSENCES: Final = 6  # and a job as lost: a queue that has just taken it may not know it yet


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds between questions and until patience ends; tests shorten them."""

    poll: float = 0.25
    poll_slow: float = 1.0
    steady: float = 4.0  # asked at `poll` for so long: most images take two seconds
    miss: float = 0.25  # doubled with each failed poll in a row
    miss_slow: float = 10.0
    deadline: float = 30 * 60
    retry_after: int = 5  # a 429 that asks for more is shown instead of waited out
    submit: float = 60.0  # for the one post and its whole answer,
    answer: float = 30.0  # for a status or a cancel,
    result: float = 180.0  # for a result, which may hold the images themselves,
    media: float = 60.0  # and for one image


class Patience:
    """The questions about one job: how many failed in a row, and since when it is followed."""

    def __init__(self, pace: Pace, request_id: str) -> None:
        self._pace = pace
        self._request_id = request_id
        self._started = time.monotonic()
        self._pause = pace.poll
        self._misses = 0
        self._kind: tuple[int, ...] = ()
        self._alike = 0

    async def answered(self) -> None:
        """Wait until it is time for the next question."""
        self._misses = self._alike = 0
        if time.monotonic() - self._started >= self._pace.steady:
            self._pause = min(self._pause * 1.3, self._pace.poll_slow)
        await self._wait(self._pause)

    async def failed(self, exc: Exception) -> None:
        """Wait until the question can be asked again.

        Raises:
            KeyRevoked, JobExpired: by an answer that stayed the same.
            JobOverdue: nothing for too long.
        """
        self._misses += 1
        self._give_up_after(exc)
        await self._wait(min(self._pace.miss * 2 ** min(self._misses, 20), self._pace.miss_slow))

    def _give_up_after(self, exc: Exception) -> None:
        """Other failures in between start the count again: only an answer speaks for itself."""
        code = getattr(exc, "status_code", None)
        kind = next((codes for codes in (KEY_REFUSED, NOT_THERE) if code in codes), ())
        self._alike = self._alike + 1 if kind == self._kind else 1
        self._kind = kind
        if kind is KEY_REFUSED and self._alike >= REFUSALS:
            raise KeyRevoked() from exc
        if kind is NOT_THERE and self._alike >= ABSENCES:
            raise JobExpired(request_id=self._request_id) from exc

    async def _wait(self, seconds: float) -> None:
        if time.monotonic() - self._started > self._pace.deadline:
            raise JobOverdue(minutes=round(self._pace.deadline / 60))
        await asyncio.sleep(seconds)
