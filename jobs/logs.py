"""What the playground logs: a line per event on stderr, to be read by people or by programs.

No prompt, key, token, address of an adapter or name of a visitor is in it. What an
unforeseen exception says may hold any of them, so it is logged by its type and
place alone. `PLAYGROUND_LOG_PROMPTS` adds the prompts and those words.
"""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Iterator
from copy import copy
from datetime import UTC, datetime
from hashlib import sha256
from types import TracebackType
from typing import Any, Final, Literal

from jobs.telling import AdapterFetched, Happening, JobStep, Refusal

log = logging.getLogger("playground.jobs")

Style = Literal["plain", "json"]
_LEVELS: Final = {
    "failed": logging.WARNING,
    "unknown": logging.WARNING,
    "submitting": logging.DEBUG,
    "running": logging.DEBUG,
}
_Raised = tuple[type[BaseException], BaseException, TracebackType | None]


def configure(style: Style, *, prompts: bool) -> None:
    """Log to stderr from now on: our own events, and warnings of everybody else.

    Loggers with handlers of their own, as uvicorn's, go on as they are.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines(prompts) if style == "json" else PlainLines(prompts))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("playground").setLevel(logging.INFO)


class PlainLines(logging.Formatter):
    """`12:03:11 job stored: job 06…, owner 2d7f1b04, backend hosted, seconds 3.2`."""

    def __init__(self, prompts: bool) -> None:
        super().__init__("%(asctime)s %(message)s", "%H:%M:%S")
        self._prompts = prompts

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return _raised(ei, self._prompts)

    def format(self, record: logging.LogRecord) -> str:
        """The message, followed by its facts."""
        facts = _facts(record)
        said = ", ".join(
            f"{name} {_on_one_line(value)}" for name, value in facts.items() if name != "event"
        )
        fresh = copy(record)
        fresh.exc_text = None  # how another handler told the exception
        line = super().format(fresh)
        return f"{line}: {said}" if said else line


class JsonLines(PlainLines):
    """One object a line: time (UTC), level, logger, message, then the event's own facts."""

    def format(self, record: logging.LogRecord) -> str:
        """A line of JSON."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_facts(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class JobLog:
    """Logs what happens to jobs."""

    def __init__(self, *, prompts: bool) -> None:
        self._prompts = prompts

    def __call__(self, happening: Happening) -> None:
        """Log it: see `jobs.telling`."""
        match happening:
            case JobStep():
                level = _LEVELS.get(happening.what, logging.INFO)
                _say(level, f"job {happening.what}", self._of_step(happening))
            case Refusal(error):
                _say(logging.INFO, "request refused", {"error": type(error).__name__})
            case AdapterFetched(size, seconds):
                _say(logging.INFO, "adapter fetched", {"bytes": size, "seconds": round(seconds, 3)})

    def _of_step(self, step: JobStep) -> dict[str, Any]:
        job = step.job
        facts = {
            "job": job.id,
            "owner": short(job.owner),
            "backend": job.backend,
            "state": job.state.value,
            "seconds": None if step.since_begun is None else round(step.since_begun, 3),
            "error": step.error and type(step.error).__name__,
            "cost_usd": step.usd if step.what == "completed" else None,
            "prompt": job.request.prompt if self._prompts and step.what == "created" else None,
        }
        return {name: value for name, value in facts.items() if value is not None}


def short(owner: str) -> str:
    """Eight hex digits that tell visitors apart and don't say who they are."""
    return sha256(owner.encode()).hexdigest()[:8]


def _on_one_line(value: Any) -> str:
    """Whatever a prompt holds, it can't look like a line of the log."""
    text = str(value)
    return text if text.isprintable() else repr(text)


def _say(level: int, event: str, facts: dict[str, Any]) -> None:
    log.log(level, event, extra={"facts": {"event": event, **facts}})


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    facts: dict[str, Any] = getattr(record, "facts", {})
    return facts


def _raised(raised: _Raised, words: bool) -> str:
    """A traceback; without `words` each exception is its type and the places it came through."""
    if words:
        return "".join(traceback.format_exception(*raised)).rstrip()
    return "Traceback (most recent call last):\n" + "\n".join(_chain(raised[1])).rstrip()


def _chain(exc: BaseException) -> Iterator[str]:
    """The cause first, as Python shows it."""
    before = exc.__cause__ or (None if exc.__suppress_context__ else exc.__context__)
    if before is not None:
        yield from _chain(before)
    yield "".join(traceback.format_tb(exc.__traceback__)) + type(exc).__qualname__
