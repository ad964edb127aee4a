"""What the adapter picker adds to the Hub's own time, and whether its grid scrolls smoothly.

    python -m benchmarks.registry [--only calls|scroll] [--rounds 30] [--rides 3] [--cards 1000]

**calls**: milliseconds, every kind once a round and in turns, in one process whose
connections are warm, against the stand-in Hub with 1,100 repositories in another.
*Warm search* was made before, *restarted* is the same out of the copy on disk (target:
≤ 20 ms). *Cold search* has an empty cache, against `HfApi.list_models` for the same 100
rows with the same fields (target: ≤ 1.1 ×). *Reading a header* is that of a 190 MB adapter,
rank 32 on every module, read, judged and remembered, against one httpx request for the same
range of the same file, through the Hub's redirect to its CDN (target: ≤ 1.2 ×). *Bytes* are
all that the Hub and its CDN sent for the whole inspection, card and dates included, against
the file's size (target: ≤ 0.02).

The two ratios are measured twice. Once the stand-in takes 150 ms for a listing and 40 ms for
each request for a file, redirect and CDN alike: a near Hub that isn't busy, and where the
targets count. Once it answers at once, which no Hub does: what is left is the processor time
of either side, ours with the parsing, the verdict and the write to disk that the plain call
leaves to its caller.

**scroll**: a headless Chromium without a GPU shows a thousand cards in the Adapters tab of
the playground's own page and is scrolled from top to bottom, 120 pixels for each notch of the
wheel, as fast as it takes them (about 7,000 pixels a second), the pointer over the cards. A
frame is the time between two calls of `requestAnimationFrame`; long tasks are those of the
main thread above 50 ms, by the browser's own account (target: no frame above 50 ms). Both
count what else the machine is doing. So after each way down an empty page of the same height
is scrolled in the same way, and *longest CPU* is the processor time of the longest task of
the main thread, which leaves out the time that it waited for a processor.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

from benchmarks import _hub_calls as kinds
from benchmarks._common import Server, Spread, clean_environment, print_table, process
from benchmarks._hub_calls import Plan
from benchmarks._scrolling import Ride, chromium, ride_over_cards, ride_over_nothing
from benchmarks._servers import playground
from tests.standins import hub_faults as faults
from tests.standins.adapters import large
from tests.standins.hub_ledger import HubLedger
from tests.standins.hub_process import HubProcess, hub_process
from tests.standins.hub_repos import TURBO, Repo, RepoFile

REPOS: Final = 1100
LARGE: Final = "benchmark/large-adapter"
LIST_SECONDS, FILE_SECONDS = 0.15, 0.04
FRAME: Final = 50.0  # milliseconds
SLACK: Final = 0.5  # of a frame's time stamp
Times = dict[str, Spread]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=("calls", "scroll"))
    parser.add_argument("--rounds", type=int, default=30, help="of every call")
    parser.add_argument("--rides", type=int, default=3, help="ways down the thousand cards")
    parser.add_argument("--cards", type=int, default=1000)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with _hub(folder) as hub:
            if options.only != "scroll":
                measure_calls(hub, options.rounds)
            if options.only != "calls":
                measure_scrolling(hub, folder, options.rides, options.cards)


@contextmanager
def _hub(folder: Path) -> Iterator[HubProcess]:
    options = ("--repos", str(REPOS), "--lifetime", "1800")
    with hub_process(folder / "hub", *options) as hub:
        adapter = large()
        file = RepoFile(adapter.file_name, adapter.header(), adapter.size())
        hub.add_repo(Repo(LARGE, (file,), {"base_model": TURBO}))
        yield hub


# -- calls ---------------------------------------------------------------------


def measure_calls(hub: HubProcess, rounds: int) -> None:
    """Ours and theirs in turns, at a Hub's pace and without any; then the bytes."""
    plan = Plan(rounds, LARGE, large().file_name)
    slow: list[tuple[faults.Stage, float]] = [
        ("list", LIST_SECONDS),
        ("resolve", FILE_SECONDS),
        ("cdn", FILE_SECONDS),
    ]
    hub.inject(*(faults.slow(stage, seconds, times=None) for stage, seconds in slow))
    _report(
        _times(hub, plan), f"The Hub takes {LIST_SECONDS:g} s to list, {FILE_SECONDS:g} s a file"
    )
    hub.clear_faults()
    _report(_times(hub, plan), "The Hub answers at once (no target)")
    _report_bytes(hub, plan)


def _times(hub: HubProcess, plan: Plan) -> Times:
    found = json.loads(_said(hub, plan))
    return {kind: Spread(tuple(values)) for kind, values in found.items()}


def _said(hub: HubProcess, plan: Plan, *options: str) -> str:
    command = ["-m", "benchmarks._hub_calls", json.dumps(asdict(plan)), *options]
    environment = clean_environment(**hub.environment)
    with process(command, environment, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        said = running.stdout.read()
        if running.wait() != 0:
            raise RuntimeError("the calls failed; run benchmarks._hub_calls to see why")
    return said


def _report(times: Times, title: str) -> None:
    rows = [
        ("warm search", times[kinds.WARM].show(), "", "≤ 20 ms"),
        ("restarted, from disk", times[kinds.RESTARTED].show(), "", "≤ 20 ms"),
        ("cold search", times[kinds.COLD].show(1), _ratio(times, kinds.COLD), "≤ 1.1"),
        ("  one HfApi.list_models", times[kinds.PLAIN_LIST].show(1), "", ""),
        ("reading a header", times[kinds.HEADER].show(1), _ratio(times, kinds.HEADER), "≤ 1.2"),
        ("  one httpx Range request", times[kinds.PLAIN_RANGE].show(1), "", ""),
    ]
    print(f"{title}; ms: median (min–max) of {len(times[kinds.COLD].values)}")
    print_table(("", "ms", "ratio", "target"), rows)


def _ratio(times: Times, ours: str) -> str:
    plain = {kinds.COLD: kinds.PLAIN_LIST, kinds.HEADER: kinds.PLAIN_RANGE}[ours]
    return f"{times[ours].median / times[plain].median:.2f}"


def _report_bytes(hub: HubProcess, plan: Plan) -> None:
    before = len(hub.ledger())
    _said(hub, plan, "--inspect")
    requests = hub.ledger().since(before)
    sent, size = sum(request.sent_bytes for request in requests), large().size()
    stages = ", ".join(request.stage for request in requests)
    print(f"One inspection of a file of {size / 1e6:.0f} MB ({stages})")
    row = (f"{sent:,}", f"{_of(hub.ledger(), before, 'cdn'):,}", f"{sent / size:.5f}", "≤ 0.02")
    print_table(("bytes sent", "of the file", "ratio", "target"), [row])


def _of(ledger: HubLedger, number: int, stage: str) -> int:
    return sum(request.sent_bytes for request in ledger.since(number, stage))


# -- scrolling -----------------------------------------------------------------


def measure_scrolling(hub: HubProcess, folder: Path, rides: int, cards: int) -> None:
    """Ways down the grid and down an empty page, in turns."""
    environment = {**hub.environment, "PLAYGROUND_BACKEND": "demo"}
    print(f"Scrolling, milliseconds; target: no frame above {FRAME:g} ms")
    with playground(folder / "app", environment) as app:
        rows = [row for _ in range(rides) for row in _ride(app, cards)]
    head = ("", "cards", "frames", "p99", "longest", "> 50", "long tasks", "longest CPU", "load")
    print_table(head, rows)


def _ride(app: Server, cards: int) -> list[tuple[object, ...]]:
    with chromium() as browser:
        ours = ride_over_cards(browser, app.url, cards)
        load = os.getloadavg()[0]
        theirs = ride_over_nothing(browser, ours.height)
    return [_row("Adapters tab", ours, load), _row("  empty page", theirs, os.getloadavg()[0])]


def _row(name: str, ride: Ride, load: float) -> tuple[object, ...]:
    frames = Spread(ride.frames)
    late = sum(frame > FRAME + SLACK for frame in ride.frames)
    tasks = f"{len(ride.long_tasks)} ≤ {max(ride.long_tasks):.0f}" if ride.long_tasks else "0"
    longest = f"{max(ride.frames):.0f}"
    p99 = f"{frames.percentile(99):.0f}"
    shown = (name, ride.cards, len(ride.frames), p99, longest, late, tasks)
    return (*shown, f"{max(ride.task_cpu):.0f}", f"{load:.1f}")


if __name__ == "__main__":
    main()
