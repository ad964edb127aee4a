"""A room of people, each making one image: what the playground adds to the endpoint's own time.

    python -m benchmarks.load [--users 25,50,100,200] [--rounds 3] [--arrivals together,spread,10]
                              [--way api|page] [--job-seconds 2.0]

One run holds the playground (hosted backend, public mode: each user has a
history), fal's stand-in, and the users, each a process of its own. For every
level and round the same jobs are made twice, in turns: through the playground,
and by a bare asyncio + httpx client that does the endpoint's share of the work
and nothing else (see `_users.py`). `--way api` calls the public Gradio endpoint
`/generate`; `--way page` sends what the page's script sends for one click.
Users arrive all at once (`together`), evenly over one job's duration (`spread`), or
evenly over so many seconds (`--arrivals 10`).

Overhead is the time from a user's arrival to the answer, less the job's own
seconds; `in hand` includes downloading the image. CPU is in milliseconds per
job, user + system. A job is lost if its user got no image, or if the endpoint
accepted it and /history doesn't show it as stored under the same request id; a
duplicate is a prompt that was posted to the endpoint more than once.

Each figure is the median of the rounds (min–max). Two warm-up runs are not
counted. Nothing runs longer than `LIMIT` of `_users.py` per run.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks._common import Server, Spread, print_table
from benchmarks._crowd import Books, Run, read_books, send_crowd
from benchmarks._servers import StandIn, playground, stand_in

TARGETS = (
    "targets: 0 lost, 0 duplicates, p95 overhead ≤ 0.5 s at 100 users, total ≤ 2 × bare at 200"
)
MODE = {
    "PLAYGROUND_MODE": "public",
    "PLAYGROUND_DAILY_BUDGET": "1000",
    "PLAYGROUND_VISITOR_LIMITS": "none",
}


@dataclass(frozen=True, slots=True)
class Level:
    """The rounds of one number of users and one way of arriving."""

    users: int
    arrivals: str
    app: tuple[Run, ...]
    bare: tuple[Run, ...]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every level, compare the books, print the tables."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory() as name, ExitStack() as servers:
        folder = Path(name)
        fal = servers.enter_context(stand_in(folder / "fal", options.job_seconds))
        app = servers.enter_context(playground(folder / "app", fal.environment | MODE))
        send = _sender(app, fal, options.job_seconds)
        for kind in (options.way, "bare"):
            send(kind, 10, "together", "warm-up")
        levels = [
            _level(send, options.way, int(users), arrivals, options.rounds)
            for arrivals in options.arrivals.split(",")
            for users in options.users.split(",")
        ]
        books = read_books(app, fal, max(level.users for level in levels))
    _report(levels, books, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--users", default="25,50,100,200", help="levels, with commas")
    parser.add_argument("--rounds", type=int, default=3, help="of each level")
    parser.add_argument("--arrivals", default="together,spread")
    parser.add_argument("--way", choices=("api", "page"), default="api")
    parser.add_argument("--job-seconds", type=float, default=2.0)
    return parser


Sender = Callable[[str, int, str, str], Run]


def _sender(app: Server, fal: StandIn, job_seconds: float) -> Sender:
    def send(kind: str, users: int, arrivals: str, label: str) -> Run:
        named = {"together": 0.0, "spread": job_seconds}
        window = named[arrivals] if arrivals in named else float(arrivals)
        label = f"{label} {arrivals} {kind} {users}"
        return send_crowd(kind, users, window, label, app, fal)

    return send


def _level(send: Sender, way: str, users: int, arrivals: str, rounds: int) -> Level:
    """Rounds of both kinds, first the one, then the other."""
    runs: dict[str, list[Run]] = {way: [], "bare": []}
    for number in range(rounds):
        kinds = (way, "bare") if number % 2 == 0 else ("bare", way)
        for kind in kinds:
            runs[kind].append(send(kind, users, arrivals, f"round {number}"))
    return Level(users, arrivals, tuple(runs[way]), tuple(runs["bare"]))


# -- the tables ----------------------------------------------------------------


def _report(levels: Sequence[Level], books: Books, options: argparse.Namespace) -> None:
    job = options.job_seconds
    print(f"Jobs of {job:g} s, {options.rounds} rounds, way {options.way!r}; {TARGETS}\n")
    for arrivals in dict.fromkeys(level.arrivals for level in levels):
        chosen = [level for level in levels if level.arrivals == arrivals]
        how = arrivals if arrivals.isalpha() else f"over {arrivals} s"
        print(f"Arriving {how}: seconds beyond the job's own {job:g} s")
        print_table(
            ("users", "lost", "dupl.", "median", "p95", "p95 in hand", "bare median", "bare p95"),
            [_overheads(level, books, job) for level in chosen],
        )
        print(f"Arriving {how}: total seconds, and CPU milliseconds per job")
        print_table(
            (
                "users", "total", "bare total", "ratio", "app", "stand-in", "users'",
                "bare stand-in", "bare client",
            ),
            [_costs(level) for level in chosen],
        )  # fmt: skip
    for error in [error for level in levels for run in level.app for error in run.errors][:10]:
        print("failed:", error[:300])


def _overheads(level: Level, books: Books, job: float) -> list[object]:
    def beyond(runs: Sequence[Run], percent: int, in_hand: bool = False) -> str:
        spreads = [Spread(run.in_hand if in_hand else run.answered) for run in runs]
        found = tuple(each.percentile(percent) - job for each in spreads if each.values)
        return Spread(found).show()

    prompts = [prompt for run in level.app for prompt in run.prompts]
    lost = sum(run.unanswered for run in level.app) + len(books.missing(prompts))
    return [
        level.users,
        lost,
        books.duplicates(prompts),
        beyond(level.app, 50),
        beyond(level.app, 95),
        beyond(level.app, 95, in_hand=True),
        beyond(level.bare, 50, in_hand=True),
        beyond(level.bare, 95, in_hand=True),
    ]


def _costs(level: Level) -> list[object]:
    total = Spread(tuple(run.total for run in level.app))
    bare = Spread(tuple(run.total for run in level.bare))

    def each(runs: Sequence[Run], name: str) -> str:
        return Spread(tuple(1000 * getattr(run, name) / level.users for run in runs)).show(0)

    return [
        level.users,
        total.show(),
        bare.show(),
        f"{total.median / bare.median:.2f}",
        each(level.app, "app_cpu"),
        each(level.app, "fal_cpu"),
        each(level.app, "users_cpu"),
        each(level.bare, "fal_cpu"),
        each(level.bare, "users_cpu"),
    ]


if __name__ == "__main__":
    main()
