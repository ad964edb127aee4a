"""`app.py` with leases of LEASE_SECONDS: nobody waits half a minute for a take-over in a test."""

from __future__ import annotations

import os
from functools import partial

import app
from history.store import History

if __name__ == "__main__":
    seconds = float(os.environ["LEASE_SECONDS"])
    setattr(History, "open", partial(History.open, lease_seconds=seconds))  # noqa: B010
    app.main()
