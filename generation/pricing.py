"""What a request costs on the hosted endpoint.

Prices in US dollars from fal's page of the model, read in November 2026.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from generation.request import GenerationRequest

PER_MEGAPIXEL: Final = Decimal("0.0085")
PER_EXPANSION: Final = Decimal("0.0025")


@dataclass(frozen=True, slots=True)
class Cost:
    """An estimate in US dollars: the pixels of all images, and the prompt expansion."""

    megapixels: Decimal
    images: Decimal
    expansion: Decimal

    @property
    def total(self) -> Decimal:
        """Dollars for the whole request."""
        return self.images + self.expansion


def estimate_cost(request: GenerationRequest) -> Cost:
    """What the endpoint will bill for `request`, if it bills by exact megapixels."""
    width, height = request.pixels
    megapixels = Decimal(width * height * request.num_images) / 1_000_000
    return Cost(megapixels, megapixels * PER_MEGAPIXEL, _expansion(request.enable_prompt_expansion))


def upper_estimate(request: GenerationRequest) -> Decimal:
    """The most that `request` can cost in dollars: each image as whole megapixels, begun or full.

    fal names a price per megapixel and doesn't say how it rounds.
    """
    width, height = request.pixels
    megapixels = math.ceil(width * height / 1_000_000) * request.num_images
    return megapixels * PER_MEGAPIXEL + _expansion(request.enable_prompt_expansion)


def cost_of_units(billable_units: float, expanded: bool) -> Decimal:
    """Dollars for the units that the result's header `x-fal-billable-units` counts."""
    return Decimal(str(billable_units)) * PER_MEGAPIXEL + _expansion(expanded)


def format_usd(amount: Decimal | float) -> str:
    """Dollars with as many digits as a single image needs: $0.0085, $1.20."""
    return f"${amount:.4f}" if amount < 1 else f"${amount:.2f}"


def _expansion(enabled: bool) -> Decimal:
    return PER_EXPANSION if enabled else Decimal(0)
