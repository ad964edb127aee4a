"""What the log and the metrics tell of jobs is what happened to them, and nothing secret."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack
from decimal import Decimal
from typing import Any
from urllib.request import build_opener

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

import app
from generation.allowance import Limits, Terms
from generation.errors import DatabaseUnreachable, PlaygroundError
from history.records import State
from jobs.logs import JobLog, JsonLines, PlainLines, short
from jobs.metrics import Metrics
from jobs.telling import AdapterFetched, Happening
from settings import Settings
from tests.faults.bench import KEY, OWNER, Bench
from tests.process.playground import free_port
from tests.standins import fal_faults as faults

BILLED = 0.0000261120  # dollars for 64 × 48 pixels by the stand-in's own count
PROMPT = "a canary nobody else thinks of"


# -- metrics -------------------------------------------------------------------


@pytest.fixture
def metrics(bench: Bench) -> Metrics:
    counting = Metrics(bench.history, Decimal(1))
    bench.runner.terms = Terms(Decimal(1), Limits(), unchecked=False, mature=False)
    bench.listeners.append(counting)
    return counting


def samples(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    """By name and the values of its labels, in the order of their names."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name.removeprefix("playground_"), {})[labels] = sample.value
    return found


def now(metrics: Metrics) -> dict[str, dict[tuple[str, ...], float]]:
    return samples(generate_latest(metrics.registry).decode())


def test_the_metrics_are_what_happened(bench: Bench, metrics: Metrics) -> None:
    for _ in range(3):
        bench.run()
    bench.fal.inject(faults.rejected_key())
    bench.run()
    bench.fal.inject(faults.answer("submit", 500, b"{}"))
    unknown = bench.run()
    with pytest.raises(PlaygroundError):
        bench.submit(enable_safety_checker=False)
    found = now(metrics)
    assert found["jobs_started_total"] == {("hosted",): 5}
    assert found["jobs_ended_total"] == {
        ("hosted", "stored"): 3,
        ("hosted", "failed"): 1,
        ("hosted", "unknown"): 1,
    }
    assert found["job_errors_total"] == {
        ("hosted", "KeyRejected"): 1,
        ("hosted", "OutcomeUnknown"): 1,
    }
    assert found["refusals_total"] == {("NotAllowedHere",): 1}
    assert found["spend_usd_total"][("hosted", "owner")] == pytest.approx(3 * BILLED)
    assert found["jobs_open"] == {("hosted", "unknown"): 1}
    assert found["budget_usd"] == {(): 1}
    assert found["budget_billed_usd"][()] == pytest.approx(3 * BILLED, abs=3e-6)
    assert found["budget_reserved_usd"][()] == pytest.approx(0.0085)
    assert found["spending_stopped"] == {(): 0}
    assert found["database_up"] == {(): 1}
    for name in ("queue_seconds", "backend_seconds", "stored_seconds"):
        assert found[f"{name}_count"] == {("hosted",): 3}, name
    queued, made, stored = (
        found[f"{name}_sum"][("hosted",)]
        for name in ("queue_seconds", "backend_seconds", "stored_seconds")
    )
    assert 3 * 0.05 <= queued < made <= stored  # the stand-in's queue takes 0.05 s
    bench.runner.dismiss(unknown.job.id, OWNER)
    assert now(metrics)["jobs_ended_total"]["hosted", "cancelled"] == 1
    assert "jobs_open" not in now(metrics)


def test_a_visitors_key_pays_for_itself(bench: Bench, metrics: Metrics) -> None:
    bench.runner.set_key(OWNER, SecretStr(KEY))
    bench.run()
    assert now(metrics)["spend_usd_total"][("hosted", "visitor")] == pytest.approx(BILLED)
    assert ("hosted", "owner") not in now(metrics)["spend_usd_total"]


def test_a_restart_counts_no_job_twice(bench: Bench, metrics: Metrics) -> None:
    """Followed by another process to its end: there it is an end, and no start."""
    bench.fal.hold()
    job_id = bench.submitted()
    bench.restart()
    bench.fal.release()
    bench.settled(job_id)
    found = now(metrics)
    assert found["jobs_started_total"] == {("hosted",): 1}
    assert found["jobs_ended_total"] == {("hosted", "stored"): 1}
    assert "stored_seconds_count" not in found  # nobody here knows how long it took


def test_every_label_is_one_of_few(bench: Bench, metrics: Metrics) -> None:
    bench.run(prompt=PROMPT)
    with pytest.raises(PlaygroundError):
        bench.runner.submit(bench.parsed(), OWNER, "no such backend")
    errors = {kind.__name__ for kind in PlaygroundError.tree()}
    states = {state.value.lower() for state in State}
    known = {"hosted", "owner", "visitor"} | errors | states
    for name, values in now(metrics).items():
        labels = {label for found in values for label in found}
        if not name.endswith("_bucket"):
            assert labels <= known, name
    assert now(metrics)["refusals_total"] == {("BackendUnavailable",): 1}


def test_without_its_database_it_says_so(
    bench: Bench, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.history.overview, "open_by_state", _away)
    found = now(metrics)
    assert found["database_up"] == {(): 0}
    assert "jobs_open" not in found and "budget_usd" not in found


def _away() -> None:
    raise DatabaseUnreachable


def test_a_private_page_has_no_budget(bench: Bench) -> None:
    assert not [name for name in now(Metrics(bench.history, None)) if name.startswith("budget")]


def test_an_adapter_is_counted_once_it_is_here(bench: Bench, metrics: Metrics) -> None:
    metrics(AdapterFetched(1000, 0.5))
    metrics(AdapterFetched(24, 1.5))
    found = now(metrics)
    assert found["adapter_bytes_total"] == {(): 1024}
    assert found["adapter_seconds_sum"] == {(): 2}


def test_a_port_of_their_own(bench: Bench, metrics: Metrics) -> None:
    port = free_port()
    close = metrics.serve("127.0.0.1", port)
    try:
        with pytest.raises(OSError):
            metrics.serve("127.0.0.1", port)
        with build_opener().open(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            assert samples(answer.read().decode())["database_up"] == {(): 1}
    finally:
        close()
    with pytest.raises(OSError):
        build_opener().open(f"http://127.0.0.1:{port}/metrics", timeout=10)


def test_a_port_that_is_taken_is_said_in_words(bench: Bench, metrics: Metrics) -> None:
    port = free_port()
    settings = Settings(_env_file=None, metrics_port=port)
    with ExitStack() as ends:
        ends.callback(metrics.serve("127.0.0.1", port))
        with pytest.raises(SystemExit, match=f"The metrics can't be served on 127.0.0.1:{port}: "):
            app.listeners(settings, bench.history, ends)


# -- log -----------------------------------------------------------------------


class Lines:
    """What a logger writes, with one of our formatters."""

    def __init__(self, formatter: logging.Formatter) -> None:
        self._out = io.StringIO()
        self.handler = logging.StreamHandler(self._out)
        self.handler.setFormatter(formatter)

    def text(self) -> str:
        return self._out.getvalue()

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    ours = logging.getLogger("playground")
    level, handlers = ours.level, list(ours.handlers)
    ours.setLevel(logging.INFO)
    yield ours
    ours.setLevel(level)
    ours.handlers[:] = handlers


@pytest.fixture
def lines(logger: logging.Logger, bench: Bench) -> Lines:
    """JSON, as it is without PLAYGROUND_LOG_PROMPTS."""
    found = Lines(JsonLines(prompts=False))
    logger.addHandler(found.handler)
    bench.listeners.append(JobLog(prompts=False))
    return found


def test_a_job_is_told_step_by_step(bench: Bench, lines: Lines) -> None:
    job = bench.run(prompt=PROMPT).job
    rows = lines.rows()
    assert [row["event"] for row in rows] == [
        "job created",
        "job submitted",
        "job completed",
        "job stored",
    ]
    for row in rows:
        assert row["job"] == job.id and row["backend"] == "hosted" and row["level"] == "info"
        assert row["owner"] == short(OWNER) and len(row["owner"]) == 8
    assert [row["state"] for row in rows][-2:] == ["COMPLETED", "STORED"]
    assert rows[-2]["cost_usd"] == pytest.approx(BILLED)
    assert 0.15 <= rows[-1]["seconds"] < 60  # queued for 0.05 s, made in 0.1 s
    assert PROMPT not in lines.text() and KEY not in lines.text()


def test_a_failure_and_a_refusal_by_their_class(bench: Bench, lines: Lines) -> None:
    bench.fal.inject(faults.answer("submit", 403, {"detail": f"{KEY} may not: {PROMPT}"}))
    bench.run(prompt=PROMPT)
    with pytest.raises(PlaygroundError):
        bench.runner.submit(bench.parsed(), OWNER, PROMPT)
    failed, refused = lines.rows()[-2:]
    assert (failed["level"], failed["error"]) == ("warning", "NotPermitted")
    assert (refused["event"], refused["error"]) == ("request refused", "BackendUnavailable")
    assert PROMPT not in lines.text() and KEY not in lines.text()


def test_the_prompt_where_it_is_asked_for(bench: Bench, lines: Lines) -> None:
    bench.listeners[:] = [JobLog(prompts=True)]
    bench.run(prompt=PROMPT)
    assert [row.get("prompt") for row in lines.rows()] == [PROMPT, None, None, None]


def test_a_prompt_of_several_lines_is_one(bench: Bench, logger: logging.Logger) -> None:
    bench.listeners.append(JobLog(prompts=True))
    for formatter in (PlainLines(prompts=True), JsonLines(prompts=True)):
        found = Lines(formatter)
        logger.addHandler(found.handler)
        bench.run(prompt=f"a {type(formatter).__name__}\n12:00:00 job stored: job 0")
        assert len(found.text().splitlines()) == 4


def explode(formatter: logging.Formatter, logger: logging.Logger) -> str:
    lines = Lines(formatter)
    logger.addHandler(lines.handler)
    try:
        try:
            raise ValueError(f"prompt {PROMPT}")
        except ValueError as exc:
            raise RuntimeError(f"key {KEY}") from exc
    except RuntimeError:
        logger.exception("job %s", "06")
    return lines.text()


def test_an_unforeseen_error_is_told_by_type_and_place(logger: logging.Logger) -> None:
    for formatter in (JsonLines(prompts=False), PlainLines(prompts=False)):
        said = explode(formatter, logger)
        assert PROMPT not in said and KEY not in said
        for word in ("Traceback", "ValueError", "RuntimeError", "test_telling.py", "in explode"):
            assert word in said
    assert PROMPT in explode(JsonLines(prompts=True), logger)
    assert PROMPT in explode(PlainLines(prompts=True), logger)


def test_plain_lines_are_for_people(bench: Bench, logger: logging.Logger, lines: Lines) -> None:
    plain = Lines(PlainLines(prompts=False))
    logger.addHandler(plain.handler)
    job = bench.run().job
    last = plain.text().splitlines()[-1]
    assert f"job stored: job {job.id}, owner {short(OWNER)}, backend hosted" in last


def test_a_listener_that_fails_hurts_no_job_and_no_other(bench: Bench, lines: Lines) -> None:
    def broken(_happening: Happening) -> None:
        raise KeyError(PROMPT)

    bench.listeners.insert(0, broken)
    assert bench.run().job.state is State.STORED
    assert [row["event"] for row in lines.rows() if "event" in row][-1] == "job stored"
    assert "telling JobStep" in lines.text() and PROMPT not in lines.text()


def test_a_job_that_waits_is_told_once(bench: Bench, lines: Lines) -> None:
    bench.fal.inject(faults.rejected_key("status", times=None))
    job_id = bench.submit()
    bench.settled(job_id)
    bench.fal.clear_faults()
    bench.runner.check_again(job_id, OWNER)
    bench.in_state(job_id, State.STORED)
    events = [row["event"].removeprefix("job ") for row in lines.rows()]
    assert events.count("waiting") == 1 and events.count("resumed") == 1
    (waiting,) = [row for row in lines.rows() if row["event"] == "job waiting"]
    assert waiting["error"] == "KeyRevoked"
