"""What a visitor may take: limits by minute, hour and day, and what is the owner's to allow."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from generation.allowance import PERIODS, PRIVATE, Left, Limits, Terms, duration
from generation.errors import InvalidRequest, NotAllowedHere, TooManyRequests
from generation.pricing import estimate_cost, upper_estimate
from generation.request import MAX_PIXELS, GenerationRequest, ImageSize
from settings import Settings, help_text

NOW = datetime(2030, 5, 6, 12, 0, tzinfo=UTC)
LIMITS = Limits.parse("5/minute, 15/hour, 50/day")


def ago(seconds: float, images: int = 1) -> tuple[datetime, int]:
    return NOW - timedelta(seconds=seconds), images


# -- reading them --------------------------------------------------------------


@pytest.mark.parametrize("text", ["5/minute, 15/hour, 50/day", "1/day", "none", "7/hour, 3/minute"])
def test_limits_are_written_as_they_are_read(text: str) -> None:
    assert str(Limits.parse(text)) == text


def test_spaces_do_not_matter() -> None:
    assert Limits.parse(" 5 / minute,15/hour ") == Limits((("minute", 5), ("hour", 15)))


@pytest.mark.parametrize(
    "text", ["", "5", "5/week", "0/day", "-1/day", "5/day,", "5/day, 6/day", "1e3/day", "five/day"]
)
def test_limits_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must read like"):
        Limits.parse(text)


# -- counting ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("used", "images", "wait"),
    [
        ([], 5, None),
        ([ago(1, 4)], 1, None),
        ([ago(1, 4)], 2, "59 s"),
        ([ago(59.5, 5)], 1, "1 s"),
        ([ago(60, 5)], 5, None),
        # The first to leave are the oldest, whatever their order.
        ([ago(10, 2), ago(40, 3)], 3, "20 s"),
        ([ago(10, 2), ago(40, 3)], 4, "50 s"),
        # The hour is full, the minute is not.
        ([ago(600 + n * 100, 3) for n in range(5)], 1, "44 min"),
        ([ago(3600, 15)], 5, None),
        # Both are: it is possible when the later one is over.
        ([ago(5, 5), ago(1800, 10)], 1, "30 min"),
        ([ago(7200 + n * 3600, 5) for n in range(10)], 1, "13 h"),
    ],
)
def test_images_count_until_they_are_old_enough(
    used: list[tuple[datetime, int]], images: int, wait: str | None
) -> None:
    if wait is None:
        LIMITS.check(images, used, NOW)
        return
    with pytest.raises(TooManyRequests) as caught:
        LIMITS.check(images, used, NOW)
    assert caught.value.facts["wait"] == wait
    assert f"in {wait}" in caught.value.remedy and "fal key" in caught.value.remedy


def test_more_at_once_than_is_ever_allowed_says_how_many() -> None:
    with pytest.raises(InvalidRequest, match="num_images: must be at most 3 here"):
        Limits.parse("3/hour").check(4, [], NOW)


def test_without_limits_everything_goes() -> None:
    Limits().check(4, [ago(0, 1000)], NOW)
    assert Limits().left([ago(0, 1000)], NOW) is None


@given(
    asked=st.lists(st.tuples(st.floats(0, 7200), st.integers(1, 4)), max_size=60),
    allowed=st.integers(4, 12),
)
def test_no_hour_ever_holds_more_than_its_limit(
    asked: list[tuple[float, int]], allowed: int
) -> None:
    limits = Limits((("hour", allowed),))
    used: list[tuple[datetime, int]] = []
    for seconds, images in sorted(asked):
        now = NOW + timedelta(seconds=seconds)
        try:
            limits.check(images, used, now)
        except TooManyRequests:
            continue
        used.append((now, images))
    for end, _ in used:
        within = [n for when, n in used if end - PERIODS["hour"] < when <= end]
        assert sum(within) <= allowed


def test_what_is_left_is_told_by_the_tightest_longer_limit() -> None:
    assert LIMITS.left([], NOW) == Left(15, 15, "hour")
    assert LIMITS.left([ago(5, 3)], NOW) == Left(12, 15, "hour")
    assert LIMITS.left([ago(5000, 45)], NOW) == Left(5, 50, "day")
    assert LIMITS.left([ago(5, 99)], NOW) == Left(0, 15, "hour")
    assert Limits.parse("5/minute").left([ago(5, 3)], NOW) == Left(2, 5, "minute")


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "1 s"), (59.4, "1 min"), (61, "2 min"), (3599, "60 min"),
                          (3600, "1 h"), (3601, "2 h"), (86400, "24 h")]
)  # fmt: skip
def test_a_wait_is_rounded_up(seconds: float, said: str) -> None:
    assert duration(timedelta(seconds=seconds)) == said


# -- what a request may cost ---------------------------------------------------


@given(
    width=st.integers(1, 2048), height=st.integers(1, 2048), images=st.integers(1, 4),
    expanded=st.booleans(),
)  # fmt: skip
def test_the_upper_estimate_is_never_below_the_price(
    width: int, height: int, images: int, expanded: bool
) -> None:
    assert width * height <= MAX_PIXELS
    request = GenerationRequest(
        prompt="x",
        image_size=ImageSize(width=width, height=height),
        num_images=images,
        enable_prompt_expansion=expanded,
    )
    most = upper_estimate(request)
    assert estimate_cost(request).total <= most
    assert most <= estimate_cost(request).total + images * Decimal("0.0085")


@pytest.mark.parametrize(
    ("values", "dollars"),
    [
        ({"image_size": "square"}, "0.0085"),
        ({"image_size": ImageSize(width=1000, height=1000)}, "0.0085"),
        ({"image_size": "square_hd"}, "0.0170"),
        ({"image_size": "square", "num_images": 4}, "0.0340"),
        ({"image_size": "square", "num_images": 4, "enable_prompt_expansion": True}, "0.0365"),
    ],
)
def test_the_upper_estimate_by_hand(values: dict[str, object], dollars: str) -> None:
    request = GenerationRequest.model_validate({"prompt": "x", **values})
    assert upper_estimate(request) == Decimal(dollars)


# -- what the owner allows -----------------------------------------------------

SAFE = GenerationRequest(prompt="x")
UNSAFE = GenerationRequest(prompt="x", enable_safety_checker=False)


def test_the_safety_checker_is_the_owners() -> None:
    strict = Terms(unchecked=False)
    strict.check(SAFE)
    with pytest.raises(NotAllowedHere, match="enable_safety_checker can't be false"):
        strict.check(UNSAFE)
    assert strict.permitted(UNSAFE) == SAFE
    Terms().check(UNSAFE)
    assert Terms().permitted(UNSAFE) == UNSAFE


def test_a_private_page_counts_nothing() -> None:
    assert PRIVATE.charge(SAFE, billed=True) is None


def test_a_charge_is_by_what_is_asked_for() -> None:
    four = GenerationRequest(prompt="x", num_images=4)
    charge = Terms(Decimal(1), LIMITS).charge(four, billed=True)
    assert charge and (charge.images, charge.usd) == (4, Decimal("0.0340"))
    free = Terms(Decimal(1), LIMITS).charge(four, billed=False)
    assert free and (free.images, free.usd) == (4, Decimal(0))


# -- settings ------------------------------------------------------------------


def settings(**values: str) -> Settings:
    return Settings.model_validate({f"PLAYGROUND_{name}": value for name, value in values.items()})


def test_a_private_page_allows_everything() -> None:
    assert settings(MODE="private").terms() == PRIVATE


def test_a_public_page_is_never_without_a_budget() -> None:
    assert settings(MODE="public").terms() == Terms(
        Decimal("1.00"), LIMITS, unchecked=False, mature=False
    )


def test_the_owner_decides() -> None:
    decided = settings(
        MODE="public", DAILY_BUDGET="12.50", VISITOR_LIMITS="2/hour", ALLOW_UNCHECKED="true",
        ALLOW_MATURE="yes",
    )  # fmt: skip
    assert decided.terms() == Terms(Decimal("12.50"), Limits((("hour", 2),)))
    strict = settings(MODE="private", ALLOW_UNCHECKED="false", ALLOW_MATURE="0").terms()
    assert strict == Terms(unchecked=False, mature=False)


@pytest.mark.parametrize("budget", ["-1", "NaN", "Infinity", "a lot"])
def test_a_budget_is_an_amount(budget: str) -> None:
    with pytest.raises(ValidationError):
        settings(DAILY_BUDGET=budget)


def test_limits_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAYGROUND_VISITOR_LIMITS", "7/hour")
    assert Settings(_env_file=None).visitor_limits == Limits((("hour", 7),))
    monkeypatch.setenv("PLAYGROUND_VISITOR_LIMITS", "7/fortnight")
    with pytest.raises(ValidationError, match="must read like"):
        Settings(_env_file=None)


def test_the_help_shows_the_defaults() -> None:
    assert "[5/minute, 15/hour, 50/day]" in help_text() and "[1.00]" in help_text()
