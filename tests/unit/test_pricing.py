"""What a request costs, against figures worked out by hand from fal's page of the model."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from generation.parsing import parse_request
from generation.pricing import cost_of_units, estimate_cost, format_usd

# $0.0085 per megapixel of 10^6 pixels, times the images; $0.0025 more with prompt expansion.
BY_HAND: list[tuple[dict[str, Any], str]] = [
    ({"image_size": "square_hd"}, "0.008912896"),  # 1.048576 MP
    ({"image_size": "square"}, "0.002228224"),  # 0.262144 MP
    ({"image_size": "portrait_4_3"}, "0.006684672"),  # 0.786432 MP
    ({"image_size": "landscape_4_3"}, "0.006684672"),
    ({"image_size": "portrait_16_9"}, "0.005013504"),  # 0.589824 MP
    ({"image_size": "landscape_16_9"}, "0.005013504"),
    ({"image_size": {"width": 1000, "height": 1000}}, "0.0085"),
    ({"image_size": {"width": 2048, "height": 2048}, "num_images": 4}, "0.142606336"),
    ({"image_size": {"width": 1, "height": 1}}, "0.0000000085"),
    ({"image_size": "square_hd", "num_images": 3}, "0.026738688"),
    ({"image_size": "square_hd", "enable_prompt_expansion": True}, "0.011412896"),
    # Per request, not per image.
    (
        {"image_size": "square_hd", "num_images": 4, "enable_prompt_expansion": True},
        "0.038151584",
    ),
]


@pytest.mark.parametrize(("values", "dollars"), BY_HAND)
def test_by_hand(values: dict[str, Any], dollars: str) -> None:
    assert estimate_cost(parse_request({"prompt": "x", **values}).request).total == Decimal(dollars)


def test_about_118_square_megapixels_for_a_dollar() -> None:
    one = estimate_cost(
        parse_request({"prompt": "x", "image_size": {"width": 1000, "height": 1000}}).request
    )
    assert round(1 / one.total) == 118


@pytest.mark.parametrize(
    "values",
    [
        {"num_inference_steps": 1},
        {"acceleration": "high"},
        {"loras": [{"path": "a/b"}, {"path": "c/d"}]},
        {"output_format": "webp"},
        {"enable_safety_checker": False},
        {"sync_mode": True},
    ],
)
def test_what_costs_nothing(values: dict[str, Any]) -> None:
    plain = estimate_cost(parse_request({"prompt": "x"}).request)
    assert estimate_cost(parse_request({"prompt": "x", **values}).request) == plain


def test_the_parts() -> None:
    values = {"prompt": "x", "num_images": 2, "enable_prompt_expansion": True}
    cost = estimate_cost(parse_request(values).request)
    assert cost.megapixels == Decimal("1.572864")
    assert cost.images == Decimal("0.013369344")
    assert cost.expansion == Decimal("0.0025")
    assert cost.total == Decimal("0.015869344")


def test_the_vendors_own_count() -> None:
    assert cost_of_units(1.048576, expanded=False) == Decimal("0.008912896")
    assert cost_of_units(0.1, expanded=True) == Decimal("0.00335")
    assert cost_of_units(0, expanded=False) == 0


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (Decimal("0.0085"), "$0.0085"),
        (Decimal("0.008912896"), "$0.0089"),
        (0, "$0.0000"),
        (0.142606336, "$0.1426"),
        (1, "$1.00"),
        (Decimal("12.346"), "$12.35"),
    ],
)
def test_shown(amount: Decimal | float, shown: str) -> None:
    assert format_usd(amount) == shown
