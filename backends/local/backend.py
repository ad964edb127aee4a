"""The local backend: the engine in its own thread, as a stream of events.

Nothing here imports torch: the page starts without it, and says what to install.
"""

from __future__ import annotations

import asyncio
import contextlib
import pkgutil
import shutil
from collections.abc import AsyncIterator, Callable
from functools import cache
from pathlib import Path
from typing import Final

from backends.base import CancelOutcome, Capabilities, Resources
from backends.local.job import Job, Stop, Stopped, Tell
from backends.local.line import Line, Ticket, Work
from backends.local.options import LocalOptions
from generation.errors import (
    BackendUnavailable,
    JobCancelled,
    JobFailed,
    MediaExpired,
    PackagesMissing,
    PlaygroundError,
)
from generation.events import Event, Finished, Handle, Running
from generation.imagefile import CheckedImage, check_image
from generation.request import GenerationRequest
from generation.result import GenerationResult, ImageFile

PACKAGES: Final = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "psutil")
IGNORED: Final = ("acceleration",)
_DRIVERS: Final = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")  # NVIDIA's, in WSL, AMD's


class LocalBackend:
    """Z-Image Turbo on this machine. Image i of a request uses seed + i.

    There is no handle: a job lives in its stream, and one that a restart
    interrupted runs again from the same seed. `work` makes the engine's `run`
    in the engine's thread, when the first job is there.
    """

    name = "local"

    def __init__(self, options: LocalOptions, work: Callable[[LocalOptions], Work] | None = None):
        self._options = options
        self._make = work or _engine
        self._work: Work | None = None
        self._line = Line(self._run)

    def capabilities(self, resources: Resources) -> Capabilities:
        """Ready with its packages and a GPU, or with the processor if that was asked for."""
        return Capabilities(
            fields=frozenset(GenerationRequest.model_fields) - frozenset(IGNORED),
            lora_scale=(-4, 4),
            billed=False,
            previews=True,
            lora_source="file",
            problem=_problem(self._options),
        )

    async def prepare(self, request: GenerationRequest, resources: Resources) -> Resources:
        """Nothing: an adapter is a file by now, and is read where it is merged."""
        return resources

    async def generate(
        self, request: GenerationRequest, resources: Resources
    ) -> AsyncIterator[Event]:
        """Wait in line, then follow the engine; closing the stream stops it within one step.

        Raises:
            PlaygroundError: what kept the job from being done; the engine goes on.
        """
        self.capabilities(resources).check(request)
        job = Job.of(request, resources.lora_files)
        heard: asyncio.Queue[Event | BaseException] = asyncio.Queue()
        ticket = Ticket(job, _across(asyncio.get_running_loop(), heard), resources.owner)
        self._line.join(ticket)
        try:
            while True:
                event = await heard.get()
                if isinstance(event, BaseException):
                    raise _translated(event) from event
                yield _named(event, job.request)
                if isinstance(event, Finished):
                    return
        finally:
            self._line.leave(ticket)

    def resume(self, handle: Handle, resources: Resources) -> AsyncIterator[Event]:
        """Never: a stream without `Submitted` leaves nothing to resume."""
        raise RuntimeError(f"the local backend gives no handle, so {handle!r} isn't its own")

    async def cancel(self, handle: Handle, resources: Resources) -> CancelOutcome:
        """Nothing to cancel: closing the stream is how it stops."""
        return CancelOutcome.UNCONFIRMED

    async def fetch(self, image: ImageFile) -> CheckedImage:
        """The bytes in the result itself.

        Raises:
            MediaExpired: the result is from before a restart, and came back without them.
        """
        if image.data is None:
            raise MediaExpired
        return await asyncio.to_thread(check_image, image.data)

    async def close(self) -> None:
        """End the running job before its next forward, and the thread with it."""
        await asyncio.to_thread(self._line.close)

    def _run(self, job: Job, tell: Tell, stop: Stop) -> GenerationResult:
        """In the line's thread."""
        if self._work is None:
            tell(Running(logs=("Starting PyTorch",)))
            self._work = self._make(self._options)
        return self._work(job, tell, stop)


def _engine(options: LocalOptions) -> Work:
    """The real one; here begins what needs torch, in seconds that only a job should wait for."""
    from backends.local.engine import Engine

    return Engine(options).run


def _across(
    loop: asyncio.AbstractEventLoop, heard: asyncio.Queue[Event | BaseException]
) -> Callable[[Event | BaseException], None]:
    """From the line's thread into the loop of whoever listens; nobody may, at the end."""

    def hear(event: Event | BaseException) -> None:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(heard.put_nowait, event)

    return hear


def _translated(failure: BaseException) -> PlaygroundError:
    if isinstance(failure, PlaygroundError):
        return failure
    if isinstance(failure, Stopped):
        return JobCancelled()
    reason = f"{type(failure).__name__}: {failure}"[:300]
    return JobFailed(reason=reason, billing="not charged")


def _named(event: Event, request: GenerationRequest) -> Event:
    """With the fields that were asked for and that nothing here honours."""
    if not isinstance(event, Finished):
        return event
    defaults = GenerationRequest.model_fields
    ignored = tuple(n for n in IGNORED if getattr(request, n) != defaults[n].default)
    return Finished(event.result.model_copy(update={"ignored": ignored}))


def _problem(options: LocalOptions) -> BackendUnavailable | None:
    if missing := [name for name in PACKAGES if name not in _installed()]:
        listed = ", ".join(missing)
        return PackagesMissing(backend="local", reason="packages", packages=listed)
    if options.device != "cpu" and not _has_gpu():
        reason = "this machine shows no GPU; PLAYGROUND_LOCAL_DEVICE=cpu does without, slowly"
        return BackendUnavailable(backend="local", reason=reason)
    return None


@cache
def _installed() -> frozenset[str]:
    """The top-level modules that could be imported, without importing any."""
    return frozenset(module.name for module in pkgutil.iter_modules())


@cache
def _has_gpu() -> bool:
    """Whether there is a driver; what it can do is seen when the model is loaded."""
    return shutil.which("nvidia-smi") is not None or any(Path(p).exists() for p in _DRIVERS)
