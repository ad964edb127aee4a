"""The local backend: what it can do here, and jobs handed in at its desk.

Nothing here imports torch, nor does anything else in the page's process, but for ZeroGPU's
desk: the page starts without it, and says what to install.
"""

from __future__ import annotations

import asyncio
import logging
import pkgutil
import platform
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from functools import cache, partial
from pathlib import Path
from typing import Final

from backends.base import CancelOutcome, Capabilities, Resources
from backends.local.desk import Desk, EngineDesk
from backends.local.job import Job
from backends.local.options import LocalOptions
from backends.local.process import EngineProcess
from backends.local.validation import folder_here, validated
from generation.errors import BackendUnavailable, MediaExpired, PackagesMissing
from generation.events import Event, Handle
from generation.imagefile import CheckedImage, check_image
from generation.request import GenerationRequest
from generation.result import ImageFile
from zerogpu import ON_ZEROGPU

log = logging.getLogger("playground.local")

PACKAGES: Final = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "psutil")
_DRIVERS: Final = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")  # NVIDIA's, in WSL, AMD's


class LocalBackend:
    """Z-Image Turbo on this machine. Image i of a request uses seed + i.

    There is no handle: a job lives in its stream, and one that a restart
    interrupted runs again from the same seed. `desk` is where jobs go: one
    engine in a process of its own, or on ZeroGPU one that runs in forks of this one,
    unless something else is given. `problem` is why it takes none now: what this
    machine lacks, unless the desk is elsewhere.
    """

    name = "local"

    def __init__(
        self,
        options: LocalOptions,
        desk: Desk | None = None,
        problem: Callable[[], BackendUnavailable | None] | None = None,
    ) -> None:
        self._options = options
        self._desk = desk or _desk(options)
        self._problem = problem or partial(_problem, options)

    def capabilities(self, resources: Resources) -> Capabilities:
        """Ready with its packages and a GPU, or with the processor if that was asked for."""
        return Capabilities(
            fields=frozenset(GenerationRequest.model_fields),
            lora_scale=(-4, 4),
            billed=False,
            rationed=True,
            previews=True,
            lora_source="file",
            problem=self._problem(),
            notes=_notes(self._options),
        )

    async def prepare(self, request: GenerationRequest, resources: Resources) -> Resources:
        """Nothing: an adapter is a file by now, and is read where it is merged."""
        return resources

    async def generate(
        self, request: GenerationRequest, resources: Resources
    ) -> AsyncIterator[Event]:
        """Follow the job from its desk; closing the stream stops it within one step.

        Raises:
            PlaygroundError: what kept the job from being done; the engine goes on.
        """
        self.capabilities(resources).check(request)
        job = Job.of(request, resources.lora_files)
        async with aclosing(self._desk.stream(job, resources.owner)) as events:  # type: ignore[type-var]
            async for event in events:
                yield event

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

    def start(self) -> None:
        """Start the engine, if it could run: loading the model takes longer than an image."""
        if self._problem() is None:
            self._desk.start()

    async def close(self) -> None:
        """End the running job, and the engine with it."""
        await self._desk.close()


def _desk(options: LocalOptions) -> Desk:
    if ON_ZEROGPU and not _missing():
        try:
            from backends.local.zerogpu import desk  # which imports torch
        except ImportError as exc:  # a torch that doesn't fit its system
            log.warning("The local engine can't be had on ZeroGPU: %s", exc)
        else:
            return desk(options)
    return EngineDesk(EngineProcess(options))


def _problem(options: LocalOptions) -> BackendUnavailable | None:
    if missing := _missing():
        listed = ", ".join(missing)
        return PackagesMissing(backend="local", reason="packages", packages=listed)
    if platform.system() == "Windows":
        reason = "on Windows it runs inside WSL"  # only there can a process inherit a socket
        return BackendUnavailable(backend="local", reason=reason)
    if options.device != "cpu" and not ON_ZEROGPU and not _has_gpu():
        reason = "this machine shows no GPU; PLAYGROUND_LOCAL_DEVICE=cpu does without, slowly"
        return BackendUnavailable(backend="local", reason=reason)
    return None


def _notes(options: LocalOptions) -> dict[str, str]:
    model = folder_here(options.model)
    if model is not None and validated(options.data, model):
        return {}
    return {"acceleration": "unvalidated"}


def _missing() -> list[str]:
    return [name for name in PACKAGES if name not in _installed()]


@cache
def _installed() -> frozenset[str]:
    """The top-level modules that could be imported, without importing any."""
    return frozenset(module.name for module in pkgutil.iter_modules())


@cache
def _has_gpu() -> bool:
    """Whether there is a driver; what it can do is seen when the model is loaded."""
    return shutil.which("nvidia-smi") is not None or any(Path(p).exists() for p in _DRIVERS)
