"""What it costs to show images, and how soon a click shows.

    python -m benchmarks.gallery [--only cpu|click] [--rounds 5] [--showings 10] [--clicks 25]

**cpu**: CPU milliseconds (user + system, whole server process) to show four
1024² images once. Ours is the page's stage as the page asks for it: `changes`
renders the panel out of the journal, then the four images and the strip's
preview are fetched from our /media route, which serves the files as they are.
Against it stands a `gr.Gallery` given the same four pictures as PIL images,
`format="png"` and Gradio's default, WebP: one event, then the four files that
Gradio wrote. In favour of Gradio its pictures are decoded before the clock
starts, and the bytes' way from the endpoint to the disk is counted for neither:
that is storing, not showing. Servers take turns; the target is ours / PNG ≤ 0.1.

**click**: milliseconds from the click on Generate (the event's own time stamp)
to the first state of the new job on the stage, seen by a MutationObserver in
Chromium, with the hosted backend and fal's stand-in. One job at a time, after a
first one that isn't counted; the target is a median of at most 200 ms.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import httpx

from benchmarks._clicks import time_clicks
from benchmarks._common import ROOT, Server, Spread, clean_environment, gradio_server, print_table
from benchmarks._page import PageUser
from benchmarks._pictures import photograph, store_job
from benchmarks._servers import playground, stand_in

PICTURES = 4
PREVIEWS = 1  # of the first image, in the strip
JOB_SECONDS = 0.3


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=("cpu", "click"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--showings", type=int, default=10, help="in each round, of each kind")
    parser.add_argument("--clicks", type=int, default=25)
    options = parser.parse_args(arguments)
    if options.only != "click":
        _report_cpu(measure_cpu(options.rounds, options.showings))
    if options.only != "cpu":
        _report_clicks(measure_clicks(options.clicks))


# -- showing -------------------------------------------------------------------

OURS, PNG, WEBP = "our stage, /media", 'gr.Gallery(format="png")', "gr.Gallery() (WebP)"


def measure_cpu(rounds: int, showings: int) -> dict[str, list[float]]:
    """Milliseconds for one showing: a value for each round, by kind."""
    found: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as name, ExitStack() as servers:
        folder = Path(name)
        pictures = [photograph(seed) for seed in range(PICTURES)]
        job = store_job(folder / "ours" / "data", pictures)
        ours = servers.enter_context(playground(folder / "ours"))
        theirs = servers.enter_context(_gallery(folder, pictures))
        client = servers.enter_context(httpx.Client(trust_env=False, timeout=60))
        kinds: dict[str, tuple[Server, Callable[[], None]]] = {
            OURS: (ours, _stage(client, ours, job)),
            PNG: (theirs, _event(client, theirs, "png")),
            WEBP: (theirs, _event(client, theirs, "webp")),
        }
        for number in range(rounds + 1):
            for kind, (server, show) in kinds.items():
                spent = _cpu_of(server, show, showings)
                found[kind] += [spent] if number else []  # the first round warms up
    return found


def _gallery(folder: Path, pictures: Sequence[bytes]) -> AbstractContextManager[Server]:
    home, shown = folder / "theirs", folder / "theirs" / "pictures"
    shown.mkdir(parents=True)
    for number, picture in enumerate(pictures):
        (shown / f"{number}.png").write_bytes(picture)
    command = [str(ROOT / "benchmarks" / "_gallery_page.py"), str(shown)]
    return gradio_server(command, home, clean_environment())


def _cpu_of(server: Server, show: Callable[[], None], showings: int) -> float:
    before = server.cpu()
    for _ in range(showings):
        show()
    return 1000 * (server.cpu() - before) / showings


def _stage(client: httpx.Client, server: Server, job: str) -> Callable[[], None]:
    """A page that has just been opened asks for what there is, and for its pictures."""
    config = client.get(f"{server.url}/config").raise_for_status().json()
    tab = PageUser(httpx.AsyncClient(), config, seed=7)
    paths = [f"{job}/{index}" for index in range(PICTURES)] + [f"{job}/0/preview"] * PREVIEWS

    def show() -> None:
        answer = client.post(f"{server.url}{tab.route}", json=tab.question(since=0))
        assert job in answer.raise_for_status().text
        for path in paths:
            assert client.get(f"{server.url}/media/{path}").raise_for_status().content

    return show


def _event(client: httpx.Client, server: Server, name: str) -> Callable[[], None]:
    def show() -> None:
        body = {"data": [], "session_hash": "benchmark"}
        answer = client.post(f"{server.url}/gradio_api/run/{name}", json=body)
        [shown] = answer.raise_for_status().json()["data"]
        assert len(shown) == PICTURES
        for each in shown:
            path = each["image"]["path"]
            url = f"{server.url}/gradio_api/file={path}"
            assert client.get(url).raise_for_status().content
            os.unlink(path)  # a new image isn't in Gradio's cache yet

    return show


def _report_cpu(found: dict[str, list[float]]) -> None:
    spreads = {kind: Spread(tuple(values)) for kind, values in found.items()}
    print("Server CPU to show four 1024² images once, ms: median (min–max); target: ratio ≤ 0.1")
    rows = [
        (kind, len(each.values), each.show(0), f"{spreads[OURS].median / each.median:.3f}")
        for kind, each in spreads.items()
    ]
    print_table(("", "rounds", "CPU ms", "ours / this"), rows)


# -- clicking ------------------------------------------------------------------


def measure_clicks(clicks: int) -> list[float]:
    """Milliseconds from each click to the new job's first state."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            stand_in(folder / "fal", JOB_SECONDS) as fal,
            playground(folder / "app", fal.environment) as app,
        ):
            return time_clicks(app.url, clicks)


def _report_clicks(times: list[float]) -> None:
    spread = Spread(tuple(times))
    print("From the click on Generate to the new job on the stage, ms; target: median ≤ 200")
    print_table(
        ("clicks", "median (min–max)", "p95"),
        [(len(times), spread.show(0), f"{spread.percentile(95):.0f}")],
    )


if __name__ == "__main__":
    main()
