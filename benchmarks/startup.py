"""What a start costs: `python app.py` against a Gradio page with one button.

    python -m benchmarks.startup [--runs 7]

Both run from the same interpreter with the same launch conditions (port by
environment, analytics and server-side rendering off, bytecode warm) and in
turns, so that other load on the machine meets both. A start ends with the first
HTTP 200 for `/`. CPU is user + system seconds of the whole process tree until
then; the ratio is that of the medians (target: at most 1.25). The playground
starts with an empty data folder (its database is made) and with one that it has
used before.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from benchmarks._common import ROOT, Server, Spread, clean_environment, gradio_server, print_table
from benchmarks._servers import playground

TARGET = 1.25
BARE = "bare Gradio, one button"
FRESH = "app.py, fresh data folder"
USED = "app.py, existing data folder"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print; one round before the first is not counted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=7, help="starts of each kind")
    options = parser.parse_args(arguments)
    starts: dict[str, list[Server]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.runs + 1):
            for kind, server in _round(Path(folder), number).items():
                starts[kind] += [server] if number else []
    _report(starts)


def _round(root: Path, number: int) -> dict[str, Server]:
    """One start of each kind, in an order that changes with every round."""
    kinds = (BARE, FRESH, USED)
    turn = number % len(kinds)
    return {kind: _start(kind, root, number) for kind in (*kinds[turn:], *kinds[:turn])}


def _start(kind: str, root: Path, number: int) -> Server:
    if kind == BARE:
        folder = root / "bare"
        folder.mkdir(exist_ok=True)
        command = [str(ROOT / "benchmarks" / "_bare_page.py")]
        with gradio_server(command, folder, clean_environment()) as server:
            return server
    with playground(root / (f"fresh-{number}" if kind == FRESH else "used")) as server:
        return server


def _report(starts: dict[str, list[Server]]) -> None:
    cpu = {kind: Spread(tuple(s.start_cpu for s in found)) for kind, found in starts.items()}
    wall = {kind: Spread(tuple(s.start_seconds for s in found)) for kind, found in starts.items()}
    rows = [
        (
            kind,
            len(starts[kind]),
            cpu[kind].show(),
            f"{cpu[kind].median / cpu[BARE].median:.2f}",
            wall[kind].show(),
            f"{wall[kind].median / wall[BARE].median:.2f}",
        )
        for kind in (BARE, FRESH, USED)
    ]
    print(f"Start to the first HTTP 200: median (min–max); target: CPU ratio ≤ {TARGET}")
    print_table(("", "starts", "CPU s", "ratio", "wall s", "ratio"), rows)


if __name__ == "__main__":
    main()
