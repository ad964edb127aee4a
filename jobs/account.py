"""Who pays for a job: the owner of the page, within their terms, or the visitor."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from backends.base import Capabilities
from generation.allowance import Allowance, Charge, Terms
from generation.request import GenerationRequest
from history.spending import Spending


def charge_of(terms: Terms, able: Capabilities, request: GenerationRequest) -> Charge | None:
    """What a request takes of the owner's; None where that isn't counted."""
    return terms.charge(request, billed=able.billed) if able.rationed else None


def allowance(terms: Terms, able: Capabilities, spending: Spending, owner: str) -> Allowance | None:
    """What is left for a visitor on a backend; None where that isn't counted."""
    if terms.budget is None or able.problem or not able.rationed:
        return None
    now = datetime.now(UTC)
    images = terms.limits.left(spending.used(owner, now), now)
    if not able.billed:
        return Allowance(images, None)
    usd = max(Decimal(0), terms.budget - spending.today(now).usd)
    return Allowance(images, usd, spending.stopped)


def is_covered(terms: Terms, able: Capabilities, spending: Spending, job_id: str) -> bool:
    """Whether a job that another process wrote down can be sent by this one.

    It isn't where it was to go on a visitor's own key, which that process alone
    knew: sent from here, the owner would pay for what was never reserved.
    """
    counted = terms.budget is not None and able.rationed
    return not counted or spending.holds(job_id)
