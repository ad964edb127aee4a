"""One quiet line for a visitor of a public page: what is left of what the owner gives."""

from __future__ import annotations

from decimal import ROUND_FLOOR, Decimal

from generation.allowance import Allowance
from ui.markup import Html, tag
from ui.texts import Language, say


def allowance_line(found: Allowance, tongue: Language) -> Html:
    """Images left in the period that is tightest, and today's dollars where it costs some."""
    parts = []
    if found.images is not None:
        left, allowed = found.images.images, found.images.allowed
        parts.append(say(tongue, f"left.{found.images.period}", left=left, allowed=allowed))
    if found.stopped:
        parts.append(say(tongue, "left.stopped"))
    elif found.usd is not None:
        cents = found.usd.quantize(Decimal("0.01"), ROUND_FLOOR)
        parts.append(say(tongue, "left.budget", amount=f"${cents}"))
    return tag("p", " · ".join(parts), title=say(tongue, "left.note"))
