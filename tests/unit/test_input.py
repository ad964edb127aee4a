"""Faults 70 to 79: input is taken byte for byte, tidied and said so, or refused by name."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from html import escape
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from backends.base import Resources
from backends.hosted import HostedBackend
from generation.errors import InvalidRequest, RequestRejected
from generation.parsing import parse_request
from generation.request import MAX_LORAS, MAX_PROMPT, MAX_SEED, GenerationRequest
from generation.result import AppliedLora, Receipt
from history.records import Job, State, StoredImage
from jobs import JobView
from ui.history_tab import gallery
from ui.recipes import control_values, request_values
from ui.stage import job_panel, thumbnail
from ui.wiring import notice


def refused(**values: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        parse_request({"prompt": "a fox", **values})
    return caught.value


def taken(**values: Any) -> GenerationRequest:
    return parse_request({"prompt": "a fox", **values}).request


def lora(**values: Any) -> list[dict[str, Any]]:
    return [{"path": "owner/name", **values}]


STRANGE = [
    "狐狸，水墨",
    "שועל עם זנב ארוך",
    "ثعلب \u202eعكس\u202c",
    "🦊👩‍👩‍👧‍👦🏳️‍🌈",
    "e\u0301 is not \u00e9",
    "tab\there\nline",
    "{braces} ${dollars} `ticks` \\back",
    "\ufeffmark\u200bspace\u2028line",
]


@pytest.mark.parametrize("prompt", STRANGE)
def test_row_70_unicode_round_trips_byte_exact(prompt: str) -> None:
    assert taken(prompt=prompt).payload()["prompt"].encode() == prompt.encode()


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(str.strip))
def test_row_70_any_text_round_trips(prompt: str) -> None:
    request = taken(prompt=prompt)
    assert request.prompt == prompt
    assert parse_request(request_values(control_values(request))).request == request


def test_row_71_a_prompt_has_a_limit_before_spending() -> None:
    assert taken(prompt="x" * MAX_PROMPT).prompt == "x" * MAX_PROMPT
    error = refused(prompt="word " * 4000)
    assert error.cause == "prompt: holds 20,000 characters; 4,000 at most."
    assert "nothing was sent" in error.remedy


@pytest.mark.parametrize(
    ("given_", "kept"),
    [
        ("nul\x00 bell\x07 delete\x7f", "nul bell delete"),
        ("csi\x9b31m escape\x1b[0m", "csi31m escape[0m"),
        ("windows\r\nline", "windows\nline"),
    ],
)
def test_row_72_controls_are_cleaned(given_: str, kept: str) -> None:
    assert taken(prompt=given_).prompt == kept


@pytest.mark.parametrize(
    "values",
    [
        {"prompt": "half \ud83e"},
        {"prompt": "\udc00"},
        {"prompt": "\x00\x01 \n"},
        {"loras": [{"path": "https://x.example/\ud800"}]},
        {"loras": [{"path": "https://x.example/\x00"}]},
        {"loras": [{"path": "https://x.example/\nHost: evil"}]},
        {"loras": [{"path": "owner/name\x00"}]},
        {"seed": "1\x002"},
        {"output_format": "png\x00"},
    ],
)
def test_row_72_what_cannot_be_cleaned_is_refused(values: dict[str, Any]) -> None:
    assert refused(**values).facts["field"] in ("prompt", "loras.0.path", "seed", "output_format")


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -float("inf"), "nan", "inf", "NaN"])
def test_row_73_a_scale_that_is_no_number_is_refused(scale: object) -> None:
    error = refused(loras=lora(scale=scale))
    assert error.facts["field"] == "loras.0.scale"
    assert "finite" in error.cause or "between -4 and 4" in error.cause


@pytest.mark.parametrize("scale", [4.01, -4.5, 1e300, "5"])
def test_row_74_a_scale_out_of_range_names_the_range(scale: object) -> None:
    error = refused(loras=lora(scale=scale))
    assert error.cause.startswith("loras.0.scale: must be a number between -4 and 4 (got ")


def test_row_74_the_hosted_range_is_narrower_and_named() -> None:
    able = HostedBackend(SecretStr("id:secret")).capabilities(Resources())
    able.check(taken(loras=lora(scale=0)))
    able.check(taken(loras=lora(scale=4)))
    with pytest.raises(InvalidRequest, match="must be between 0 and 4 here .got -0.1."):
        able.check(taken(loras=[*lora(scale=1), {"path": "a/b", "scale": -0.1}]))


@pytest.mark.parametrize("seed", [2**32, 2**53 + 1, 2**63, MAX_SEED, "0", " 7 "])
def test_row_75_a_seed_is_kept_to_the_last_digit(seed: int | str) -> None:
    assert taken(seed=seed).payload()["seed"] == int(seed)
    assert taken(seed=str(seed)).seed == int(seed)


@pytest.mark.parametrize(
    "seed",
    [2**64, str(2**64), -1, "-1", 1.0, 1.5, "1.5", "1e3", 1e300, float("nan"), True, "0x10",
     "1_000", "１２", "seven", "9" * 50, [7]],
)  # fmt: skip
def test_row_75_a_seed_is_never_rounded(seed: object) -> None:
    assert refused(seed=seed).facts["field"] == "seed"


@pytest.mark.parametrize("seed", [None, ""])
def test_row_75_without_a_seed_one_is_drawn(seed: object) -> None:
    assert taken(seed=seed).seed is None
    drawn = {taken().with_seed().seed for _ in range(20)}
    assert len(drawn) > 1 and all(isinstance(number, int) for number in drawn)


def test_row_76_the_same_adapter_twice_is_one_with_a_notice() -> None:
    rows = [*lora(scale=1), {"path": " owner/name ", "scale": 2}, {"path": "a/b"}]
    parsed = parse_request({"prompt": "a fox", "loras": rows})
    kept = [(one.path, one.scale) for one in parsed.request.loras]
    assert kept == [("owner/name", 1), ("a/b", 1)]
    assert parsed.notices == ("owner/name was listed twice and is applied once.",)


def test_row_77_more_than_three_adapters_are_refused() -> None:
    rows = [{"path": f"owner/name-{number}"} for number in range(MAX_LORAS + 1)]
    assert refused(loras=rows).cause == "loras: holds 4 entries; 3 at most."
    assert len(taken(loras=rows[:MAX_LORAS]).loras) == MAX_LORAS


@pytest.mark.parametrize(
    "path",
    ["../secrets", "owner/../name", "owner/..", "/etc/passwd", "C:\\lora.safetensors", "~/lora",
     "file:///etc/passwd", "javascript:alert(1)", "data:text/html,x", "http://x.example/a",
     "ftp://x.example/a", "https://", "//x.example/a", "owner", "owner/name/file", "", " ",
     "owner\\name", "-owner/name", "owner/name?x"],
)  # fmt: skip
def test_row_78_other_addresses_are_refused(path: str) -> None:
    error = refused(loras=[{"path": path}])
    assert error.facts["field"] == "loras.0.path"
    assert "a Hugging Face id such as owner/name, or an https address" in error.cause


# -- row 79: text is text ------------------------------------------------------

SCRIPT = '<script>alert("1")</script><img src=x onerror=alert(2)>'
IMAGE = StoredImage(0, "images/2026-11/x-0.png", "0" * 64, 64, 64, "PNG", False, 1)


def job_of(prompt: str) -> Job:
    request = GenerationRequest(
        prompt=prompt,
        seed=1,
        loras=({"path": "https://x.example/<b>"},),
    )
    now = datetime.now(UTC)
    receipt = Receipt(
        request_id=prompt, backend="hosted", model=prompt, seed="1", prompt=prompt,
        expanded_prompt=prompt, image_size={"width": 64, "height": 64}, num_inference_steps=8,
        acceleration=prompt, loras=(AppliedLora(path=prompt, scale=1, file=prompt),),
        has_nsfw_concepts=(False,), timings={prompt: 1.0}, cost_usd=1, cost_is_estimate=False,
        ignored=("seed",), warnings=(prompt,),
    )  # fmt: skip
    return Job(
        id="0" * 38, owner="me", backend="hosted", request=request, state=State.STORED,
        created=now, updated=now, receipt=receipt, images=(IMAGE,),
    )  # fmt: skip


def assert_is_text(html: str) -> None:
    assert "<script" not in html and "<img src=x" not in html and "<b>" not in html
    assert escape(SCRIPT[:8]) in html


def test_row_79_a_script_is_shown_as_text_on_the_stage() -> None:
    job = job_of(SCRIPT)
    for view in (JobView(job), JobView(replace(job, state=State.SUBMITTED, images=()))):
        assert_is_text(job_panel(view, "en") + thumbnail(view, "en"))


def test_row_79_a_script_is_shown_as_text_in_the_history() -> None:
    assert_is_text(gallery([job_of(SCRIPT)], "en", first=True))


def test_row_79_a_script_in_an_error_is_text() -> None:
    error = RequestRejected(status=422, reason=SCRIPT, field=SCRIPT)
    failed = replace(job_of(SCRIPT), state=State.FAILED, images=(), error=error)
    assert_is_text(job_panel(JobView(failed, problem=error), "en"))
    assert_is_text(gallery([failed], "zh", first=True))
    assert_is_text(notice("en", error))


def test_row_79_a_script_in_a_control_value_is_text() -> None:
    assert_is_text(notice("en", refused(output_format=SCRIPT[:30])))
