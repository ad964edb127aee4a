"""Failures of the engine in words: what it raised, or how its process ended. Free of torch."""

from __future__ import annotations

import signal
import traceback
from typing import Final

from backends.local.job import Stopped
from generation.errors import EngineCrashed, EngineFailed, PlaygroundError

LONGEST: Final = 300  # characters of somebody else's message
_NATIVE: Final = "most likely in a driver or a native library"
_ENDINGS: Final = {  # by name: not every system has every one
    "SIGKILL": "it was killed by the system, most likely because main memory ran out",
    "SIGSEGV": f"a segmentation fault, {_NATIVE}",
    "SIGBUS": f"a bus error, {_NATIVE}",
    "SIGABRT": f"it aborted, {_NATIVE}",
    "SIGTERM": "somebody terminated it",
}


def as_ours(failure: BaseException) -> PlaygroundError | Stopped:
    """An engine's failure as an error for people, or as the wish to stop that it was."""
    if isinstance(failure, PlaygroundError | Stopped):
        return failure
    reason = f"{type(failure).__name__}: {failure}"[:LONGEST]
    if _beyond_repair(failure):
        return EngineCrashed(reason=reason)
    return EngineFailed(reason=reason)


def caught(failure: Exception) -> PlaygroundError | Stopped:
    """`as_ours`, for whoever caught it in the engine: where a fault happened is printed."""
    if not isinstance(failure, PlaygroundError | Stopped):
        traceback.print_tb(failure.__traceback__)  # the places alone: its words may quote a prompt
    return as_ours(failure)


def _beyond_repair(failure: BaseException) -> bool:
    """After a fault on the GPU, CUDA refuses everything else that its process asks for."""
    names = {kind.__name__ for kind in type(failure).__mro__}  # torch.AcceleratorError
    return "AcceleratorError" in names or "CUDA error" in str(failure)


def crash(status: int) -> EngineCrashed:
    """The end of the engine's process by its status, as `subprocess` counts: −9 is SIGKILL."""
    if status >= 0:
        return EngineCrashed(reason=f"it ended by itself, with status {status}")
    try:
        name = signal.Signals(-status)
    except ValueError:  # a real-time signal
        return EngineCrashed(reason=f"signal {-status}")
    words = _ENDINGS.get(name.name) or str(signal.strsignal(name)).lower()
    return EngineCrashed(reason=f"{words} ({name.name})")
