"""What visitors spend of the owner's money, and the switch that stops it while the page runs.

python -m deploy.spending show|stop|resume
"""

from __future__ import annotations

import argparse
import sys

from generation.errors import PlaygroundError
from generation.pricing import format_usd
from history.spending import Spending, open_spending
from settings import read_settings


def main() -> None:
    """Do what the command line says, on the database that the settings name."""
    parser = argparse.ArgumentParser(prog="python -m deploy.spending", description=__doc__)
    parser.add_argument("action", choices=("show", "stop", "resume"))
    action = parser.parse_args().action
    settings = read_settings()
    try:
        with open_spending(settings.data_dir, settings.database_url) as spending:
            if action == "stop":
                spending.stop()
            elif action == "resume":
                spending.resume()
            print(report(spending))
    except PlaygroundError as exc:
        sys.exit(str(exc))


def report(spending: Spending) -> str:
    """Today's sums, and whether the switch is on."""
    day = spending.today()
    state = "stopped" if spending.stopped else "allowed"
    return (
        f"{day.day} (UTC): {format_usd(day.usd)}, of which {format_usd(day.billed_usd)} billed and "
        f"{format_usd(day.held_usd)} held for jobs that may be billed; {day.jobs} jobs, "
        f"{day.images} images. Spending is {state}."
    )


if __name__ == "__main__":
    main()
