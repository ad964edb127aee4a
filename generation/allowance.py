"""What visitors may take of what is the owner's: images by the hour, dollars by the day.

The owner's are the fal key of a public page and this machine's GPU. What is
taken is kept by `history.spending`; here is only what is allowed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, Self

from generation.errors import InvalidRequest, NotAllowedHere, TooManyRequests
from generation.pricing import upper_estimate
from generation.request import GenerationRequest

PERIODS: Final = {
    "minute": timedelta(minutes=1),
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
}
LONGEST: Final = max(PERIODS.values())
UNLIMITED: Final = "none"
_LIMIT: Final = re.compile(r"([1-9][0-9]{0,6}) */ *(minute|hour|day)")

Used = Sequence[tuple[datetime, int]]
"""When a visitor asked, and for how many images."""


@dataclass(frozen=True, slots=True)
class Left:
    """Images that a visitor may still ask for in this period, of so many allowed."""

    images: int
    allowed: int
    period: str


@dataclass(frozen=True, slots=True)
class Limits:
    """How many images one visitor may ask for in each period, such as `(("hour", 15),)`.

    Periods slide: what was asked for counts until it is that long ago.
    """

    allowed: tuple[tuple[str, int], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "5/minute, 15/hour, 50/day", or some of them; "none" is no limit.

        Raises:
            ValueError: it says something else, or a period twice.
        """
        if text.strip() == UNLIMITED:
            return cls()
        found = [_LIMIT.fullmatch(part.strip()) for part in text.split(",")]
        pairs = tuple((match[2], int(match[1])) for match in found if match)
        if len(dict(pairs)) < len(found):
            raise ValueError('must read like "5/minute, 15/hour, 50/day", or "none"')
        return cls(pairs)

    def __str__(self) -> str:
        return ", ".join(f"{count}/{period}" for period, count in self.allowed) or UNLIMITED

    def check(self, images: int, used: Used, now: datetime) -> None:
        """Refuse `images` more than were `used`.

        Raises:
            InvalidRequest: so many at once are never allowed.
            TooManyRequests: not yet; it says when, by the limit that takes longest.
        """
        waits = [(_wait(*limit, images, used, now), *limit) for limit in self.allowed]
        for _, _, allowed in waits:
            if images > allowed:
                raise InvalidRequest(field="num_images", problem=f"must be at most {allowed} here")
        wait, period, allowed = max(waits, default=(timedelta(), "day", 0))
        if wait:
            length = duration(PERIODS[period])
            raise TooManyRequests(allowed=allowed, period=length, wait=duration(wait))

    def left(self, used: Used, now: datetime) -> Left | None:
        """The limit of which the smallest share is left; None without limits.

        The minute's is told only where there is no other: it is over before it is read.
        """
        every = [
            Left(max(0, allowed - _taken(period, used, now)), allowed, period)
            for period, allowed in self.allowed
        ]
        longer = [left for left in every if left.period != "minute"]
        return min(longer or every, key=lambda left: left.images / left.allowed, default=None)


@dataclass(frozen=True, slots=True)
class Charge:
    """What one job takes of the owner's, and the limits that it must keep.

    `usd` is the most that it can cost, 0 where only this machine's time is taken;
    `budget` is in dollars a day (UTC), for all visitors together.
    """

    images: int
    usd: Decimal
    limits: Limits
    budget: Decimal


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left for a visitor: images, and dollars of everybody's budget where it costs."""

    images: Left | None
    usd: Decimal | None
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class Terms:
    """What the owner allows on this page. The default is a private page: everything, uncounted.

    `budget` is in US dollars a day; None: nobody but the owner is here.
    `unchecked`: the safety checker may be switched off. `mature`: adapters
    marked as mature may be searched for.
    """

    budget: Decimal | None = None
    limits: Limits = Limits()
    unchecked: bool = True
    mature: bool = True

    def check(self, request: GenerationRequest) -> None:
        """Raises NotAllowedHere for what the owner doesn't allow, on whosever key."""
        if self.permitted(request) != request:
            raise NotAllowedHere(field="enable_safety_checker", value="false")

    def permitted(self, request: GenerationRequest) -> GenerationRequest:
        """The request as it may be made here, for a page that restores one."""
        if self.unchecked or request.enable_safety_checker:
            return request
        return request.model_copy(update={"enable_safety_checker": True})

    def check_search(self, include_mature: bool) -> None:
        """Raises NotAllowedHere for a search that the owner doesn't allow."""
        if include_mature and not self.mature:
            raise NotAllowedHere(field="include_mature", value="true")

    def charge(self, request: GenerationRequest, *, billed: bool) -> Charge | None:
        """What a request takes of the owner's; None on a private page."""
        if self.budget is None:
            return None
        usd = upper_estimate(request) if billed else Decimal(0)
        return Charge(request.num_images, usd, self.limits, self.budget)


PRIVATE: Final = Terms()


def duration(time: timedelta) -> str:
    """A time in the one unit that fits, rounded up: 42 s, 12 min, 3 h."""
    seconds = math.ceil(time.total_seconds())
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{math.ceil(seconds / 60)} min"
    return f"{math.ceil(seconds / 3600)} h"


def _taken(period: str, used: Used, now: datetime) -> int:
    return sum(images for asked, images in used if asked > now - PERIODS[period])


def _wait(period: str, allowed: int, images: int, used: Used, now: datetime) -> timedelta:
    """Until so many of the oldest no longer count that `images` more fit; 0 if they fit now."""
    taken, wait = _taken(period, used, now), timedelta()
    for asked, gone in sorted(used):
        if taken + images <= allowed:
            break
        if asked > now - PERIODS[period]:
            taken, wait = taken - gone, asked + PERIODS[period] - now
    return wait
