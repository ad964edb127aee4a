"""`app.py`, which writes down every route that it serves, in the file ROUTES."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from gradio.routes import App

import app

_create_app = App.create_app


def create_app(*args: Any, **options: Any) -> App:
    made = _create_app(*args, **options)
    Path(os.environ["ROUTES"]).write_text(json.dumps(sorted(listed(made.routes))))
    return made


def listed(routes: Any, prefix: str = "") -> list[tuple[str, str, list[str]]]:
    """Method, path and query of each route; what is mounted or included is followed."""
    found = []
    for route in routes:
        path = prefix + getattr(route, "path", "")
        inner = getattr(route, "original_router", route)
        if getattr(inner, "routes", None):
            found += listed(inner.routes, path)
        else:
            asked = getattr(getattr(route, "dependant", None), "query_params", [])
            methods = sorted(getattr(route, "methods", None) or [f"MOUNT {route!r}"])
            found += [(method, path, [each.name for each in asked]) for method in methods]
    return found


if __name__ == "__main__":
    App.create_app = staticmethod(create_app)  # type: ignore[method-assign]
    app.main()
