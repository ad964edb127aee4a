"""Models on this machine: a folder as it is, or a Hub repository downloaded with progress."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from huggingface_hub.utils.tqdm import tqdm

from backends.local.job import Stop, Stopped
from backends.local.options import LocalOptions
from generation.errors import BackendUnavailable

KINDS: Final = ("*.json", "*.safetensors", "*.txt", "*.jinja", "*.model")  # no pickle, no code
_WRITTEN: Final = "huggingface_hub.snapshot_download"  # its bar of bytes written, of two
_EVERY: Final = 1.0  # seconds between two lines of progress

Report = Callable[[str], None]


def find_model(name: str, options: LocalOptions, report: Report, stop: Stop) -> Path:
    """The folder of a model, downloaded if it must be; a download goes on where it was left.

    Raises:
        BackendUnavailable: it is neither here nor to be had.
        Stopped: `stop` said so while it was downloading.
    """
    if Path(name).is_dir():
        return Path(name)
    try:
        return _download(name, options, _progress(name, report, stop))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as exc:
        cause = getattr(exc, "strerror", None) or type(exc).__name__
        reason = f"{name!r} is no folder and could not be downloaded ({cause})"
        raise BackendUnavailable(backend="local", reason=reason) from exc


def _download(name: str, options: LocalOptions, progress: type[tqdm]) -> Path:
    token = options.token.get_secret_value() if options.token else False
    folder = snapshot_download(
        name,
        allow_patterns=list(KINDS),
        token=token,
        endpoint=options.hub,
        tqdm_class=progress,
        max_workers=4,
    )
    return Path(folder)


def _progress(name: str, report: Report, stop: Stop) -> type[tqdm]:
    """A progress bar that is told instead of drawn: the bytes of all files together."""
    said = [0.0]
    lock = threading.Lock()

    class Told(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._told = kwargs.get("name") == _WRITTEN
            drawn_nowhere = {**kwargs, "disable": False, "file": _Nowhere()}
            super().__init__(*args, **drawn_nowhere)  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> bool | None:
            if stop():
                raise Stopped
            shown: bool | None = super().update(n)
            with lock:
                due = self._told and time.monotonic() - said[0] >= _EVERY
                said[0] = time.monotonic() if due else said[0]
            if due:
                report(
                    f"Downloading {name}: {self.n / 1e9:.2f} of {(self.total or 0) / 1e9:.2f} GB"
                )
            return shown

    return Told


class _Nowhere:
    """A terminal that nobody reads."""

    def write(self, _text: str) -> int:
        return 0

    def flush(self) -> None:
        return None
