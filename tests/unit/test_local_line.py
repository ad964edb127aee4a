"""The line in front of the local engine: who is next, what is told, who is refused."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.local.job import Job, Stop, Tell, estimated_seconds
from backends.local.line import Line, Ticket
from generation.errors import BackendUnavailable
from generation.events import Finished, Queued
from generation.lora_file import LoraFile
from generation.request import GenerationRequest, ImageSize
from generation.result import GenerationResult

PATIENCE = 10.0  # seconds


def wanted(**fields: Any) -> GenerationRequest:
    return GenerationRequest(**({"prompt": "a fox", "seed": 7} | fields))


class Bench:
    """A line whose engine holds each job, known by its prompt, until `go` lets it end."""

    def __init__(self, longest: int) -> None:
        self.begun: list[str] = []
        self.heard: dict[str, list[Any]] = defaultdict(list)
        self.line = Line(self._work, longest)
        self._go = threading.Semaphore(0)
        self._moved = threading.Condition()

    def send(self, prompt: str, owner: str = "", *adapters: str, **fields: Any) -> Ticket:
        loras = tuple((LoraFile(path=name, local=Path(name)), 1.0) for name in adapters)
        job = Job(wanted(prompt=prompt, **fields), loras)
        ticket = Ticket(job, lambda event: self._hear(prompt, event), owner)
        self.line.join(ticket)
        return ticket

    def hold(self) -> None:
        """Let one job occupy the engine."""
        self.send("running", "someone")
        self.until(lambda: self.begun == ["running"])

    def go(self, times: int) -> None:
        """Let so many jobs end."""
        ended = sum(isinstance(events[-1], Finished) for events in self.heard.values())
        self._go.release(times)
        self.until(
            lambda: (
                sum(isinstance(events[-1], Finished) for events in self.heard.values())
                == ended + times
            )
        )

    def positions(self, prompt: str) -> list[int | None]:
        return [event.position for event in self.heard[prompt] if isinstance(event, Queued)]

    def until(self, true: Callable[[], bool]) -> None:
        with self._moved:
            assert self._moved.wait_for(true, PATIENCE)

    def _hear(self, prompt: str, event: object) -> None:
        with self._moved:
            self.heard[prompt].append(event)
            self._moved.notify_all()

    def _work(self, job: Job, tell: Tell, stop: Stop) -> GenerationResult:
        with self._moved:
            self.begun.append(job.request.prompt)
            self._moved.notify_all()
        while not self._go.acquire(timeout=0.005):
            if stop():
                raise InterruptedError
        return GenerationResult(images=(), seed=0)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench(longest=12)
    yield made
    made.line.close()


# -- who is next ---------------------------------------------------------------


def test_a_visitors_first_job_comes_before_anothers_second(bench: Bench) -> None:
    bench.hold()
    for number in range(3):
        bench.send(f"ann {number}", "ann")
    bench.send("bob", "bob")
    bench.send("cy", "cy")
    bench.go(6)
    assert bench.begun == ["running", "ann 0", "bob", "cy", "ann 1", "ann 2"]


def test_jobs_with_the_same_adapters_run_together(bench: Bench) -> None:
    """Whatever their scales and in whatever order they are named; small jobs, so nobody minds."""
    bench.hold()
    small = ImageSize(width=64, height=64)
    bench.send("1", "ann", "a", "b", image_size=small)
    bench.send("2", "bob", "c", image_size=small)
    bench.send("3", "cy", "b", "a", image_size=small)
    bench.go(4)
    # What no file is missing for comes first; then whoever came first.
    assert bench.begun == ["running", "2", "1", "3"]


def test_large_jobs_wait_for_their_share(bench: Bench) -> None:
    bench.hold()
    for number in range(2):
        bench.send(f"large {number}", "ann", num_images=4)
    for number in range(5):
        bench.send(f"small {number}", "bob")
    bench.go(8)
    assert bench.begun.index("large 1") > bench.begun.index("small 2")


# -- what is told --------------------------------------------------------------


def test_positions_are_those_of_the_turns_and_told_when_they_change(bench: Bench) -> None:
    bench.hold()
    for number in range(2):
        bench.send(f"ann {number}", "ann")
    assert [bench.positions(f"ann {n}") for n in range(2)] == [[1], [2]]
    bench.send("bob", "bob")
    assert [bench.positions(name) for name in ("ann 0", "ann 1", "bob")] == [[1], [2, 3], [2]]
    bench.go(4)
    assert bench.positions("ann 1") == [2, 3, 2, 1, 0]
    assert bench.positions("ann 0") == [1, 0] and bench.positions("bob") == [2, 1, 0]


def test_who_gives_up_leaves_a_place(bench: Bench) -> None:
    bench.hold()
    ticket = bench.send("first", "ann")
    bench.send("second", "bob")
    bench.line.leave(ticket)
    bench.line.leave(ticket)  # a second time is no harm
    assert bench.positions("second") == [2, 1]
    bench.go(2)
    assert bench.begun == ["running", "second"]


# -- who is refused ------------------------------------------------------------


def test_one_visitor_gets_half_of_the_line(bench: Bench) -> None:
    bench.hold()
    for number in range(6):
        bench.send(f"ann {number}", "ann")
    with pytest.raises(BackendUnavailable, match="6 of your jobs wait already"):
        bench.send("one more", "ann")
    assert "one more" not in bench.heard
    bench.send("bob", "bob")
    bench.go(2)
    bench.send("ann again", "ann")


def test_a_full_line_refuses_with_its_length() -> None:
    bench = Bench(longest=3)
    bench.hold()
    for name in ("ann", "bob", "cy"):
        bench.send(name, name)
    with pytest.raises(BackendUnavailable, match="3 jobs wait already"):
        bench.send("di", "di")
    bench.line.close()
    with pytest.raises(BackendUnavailable, match="closing"):
        bench.send("di", "di")


def test_closing_gives_up_whoever_waits() -> None:
    bench = Bench(longest=4)
    bench.hold()
    ticket = bench.send("waiting", "ann")
    bench.line.close()
    assert bench.begun == ["running"] and ticket.given_up.is_set()
    assert isinstance(bench.heard["running"][-1], InterruptedError)


# -- how long a job takes ------------------------------------------------------


def test_an_estimate_is_the_arithmetic_of_the_request() -> None:
    """At 1024 × 1024: 8 forwards of 56.5 TFLOP, 10.5 to decode, 4 to encode, at 790 a second."""
    whole = estimated_seconds(wanted(image_size="square_hd"))
    assert whole == pytest.approx((8 * 56.5 + 10.5 + 4) / 790)
    half = estimated_seconds(wanted(image_size="square_hd", num_inference_steps=4))
    assert 0.5 < half / whole < 0.55
    four = estimated_seconds(wanted(image_size="square_hd", num_images=4))
    assert 3.95 < four / whole < 4
    quarter = estimated_seconds(wanted(image_size="square"))
    assert 0.2 < quarter / whole < 0.25  # attention grows with the square
    expanded = wanted(image_size="square_hd", enable_prompt_expansion=True)
    assert estimated_seconds(expanded) > whole
