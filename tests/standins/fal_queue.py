"""fal's queue for one endpoint: submit, status, stream, result, cancel, and the media it makes."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qs

from .fal_images import EXTENSIONS, picture
from .fal_jobs import COMPLETED, IN_PROGRESS, IN_QUEUE, Job, JobBook
from .fal_routes import APP, REQUEST, Call, Guard, Route
from .fal_schema import Invalid, checked, detail
from .fault_table import FaultTable
from .wire import Answer, Headers

ENDPOINT = "fal-ai/z-image/turbo/lora"
FLAG_WORD = "FLAGME"
"""The word in a prompt that the safety checker objects to."""
EXPANSION = ", highly detailed, natural light"
STREAM_TICK = 0.02
MODEL_ERROR: Headers = (("X-Fal-Retryable", "false"), ("x-fal-billable-units", "0"))


@dataclass(frozen=True)
class Behaviour:
    """Choices where fal's documentation leaves one, or a test wants the other."""

    validates: Literal["submit", "result"] = "submit"
    """Where a body that breaks the schema gets its 422."""
    cancel_stops_running: bool = False
    """Whether the runner heeds a cancellation; by default it is signalled and goes on."""
    media_host: str = "v3.fal.media"
    """Where media live for clients that came by fal's own host names."""


class Queue:
    """Handlers for the queue's routes; each answers one `Call`."""

    def __init__(self, jobs: JobBook, faults: FaultTable, behaviour: Behaviour) -> None:
        self._jobs = jobs
        self._faults = faults
        self._behaviour = behaviour

    def routes(self, guard: Guard) -> tuple[Route, ...]:
        media = r"/files/b/(?P<request_id>[\w-]+)/(?P<fetch>\d+)/(?P<index>\d+)\.\w+"
        return (
            Route("GET", media, "media", self.media),
            Route("GET", REQUEST + "/status/stream", "status", self.stream, guard),
            Route("GET", REQUEST + "/status", "status", self.status, guard),
            Route("GET", REQUEST, "result", self.result, guard),
            Route("PUT", REQUEST + "/cancel", "cancel", self.cancel, guard),
            Route("POST", APP + r"(?P<path>(/[\w.-]+)*)", "submit", self.submit, guard),
        )

    def submit(self, call: Call) -> Answer:
        app = call.names["app"]
        if app + call.names["path"] != ENDPOINT:
            return Answer.json(404, {"detail": f'Application "{app}" not found'})
        try:
            job = self._job(checked(_parsed(call.body)))
        except Invalid as invalid:
            if self._behaviour.validates == "submit":
                return Answer.json(422, {"detail": invalid.details}, MODEL_ERROR)
            job = self._job({}, tuple(invalid.details))
        return self._accepted(call, job)

    def _job(self, arguments: Mapping[str, Any], invalid: tuple[Any, ...] = ()) -> Job:
        now, faults = self._jobs.clock.now(), self._faults.take_each("job")
        return Job(arguments, self._jobs.timing, now, faults, invalid)

    def _accepted(self, call: Call, job: Job) -> Answer:
        self._jobs.accept(job)
        state = {"status": IN_QUEUE, "queue_position": self._position(job)}
        body = state | _urls(call, job) | {"logs": None, "metrics": {}}
        headers = (("x-fal-request-id", job.request_id),)
        return Answer.json(200, body, headers, request_id=job.request_id, accepted=True)

    def _position(self, job: Job) -> int:
        now = self._jobs.clock.now()
        return job.position(now) if job.status(now) == IN_QUEUE else 0

    def status(self, call: Call) -> Answer:
        job = self._jobs.find(call.names["request_id"])
        if job is None:
            return _unknown_request()
        job.polls += 1
        state = self._state(job, _wants_logs(call)) | _urls(call, job)
        code = 200 if state["status"] == COMPLETED else 202
        return Answer.json(code, state, request_id=job.request_id)

    def _state(self, job: Job, with_logs: bool) -> dict[str, Any]:
        now = self._jobs.clock.now()
        status = job.status(now)
        if status == IN_QUEUE:
            return {"status": status, "queue_position": job.position(now)}
        state = {"status": status, "logs": job.logs(now) if with_logs else None}
        return state if status == IN_PROGRESS else state | _outcome(job)

    def stream(self, call: Call) -> Answer:
        job = self._jobs.find(call.names["request_id"])
        if job is None:
            return _unknown_request()
        headers = (("Content-Type", "text/event-stream"),)
        return Answer(200, headers, stream=self._events(job, call), request_id=job.request_id)

    async def _events(self, job: Job, call: Call) -> AsyncIterator[bytes]:
        last: dict[str, Any] = {}
        while last.get("status") != COMPLETED:
            state = self._state(job, _wants_logs(call)) | _urls(call, job)
            if state != last:
                yield b"data: " + json.dumps(state).encode() + b"\n\n"
            else:
                await asyncio.sleep(STREAM_TICK)  # the clock may be anyone's: it has no event
            last = state

    def result(self, call: Call) -> Answer:
        job = self._jobs.find(call.names["request_id"])
        if job is None:
            return _unknown_request()
        if self._jobs.status(job) != COMPLETED:
            return Answer.json(400, {"detail": "Request is still in progress"})
        job.fetches += 1
        return _failure(job) or self._output(call, job)

    def _output(self, call: Call, job: Job) -> Answer:
        wanted, flagged = job.arguments, is_flagged(job)
        images = [self._image(call, job, index) for index in range(image_count(job))]
        expansion = EXPANSION if wanted["enable_prompt_expansion"] else ""
        body = {
            "images": images,
            "timings": {"inference": job.timing.job_seconds},
            "seed": job.seed,
            "has_nsfw_concepts": [flagged] * len(images),
            "prompt": wanted["prompt"] + expansion,
        }
        return Answer.json(200, body, _result_headers(job), request_id=job.request_id)

    def _image(self, call: Call, job: Job, index: int) -> dict[str, Any]:
        width, height = job.arguments["image_size"]
        kind = f"image/{job.arguments['output_format']}"
        url = self._media_url(call, job, index)
        if job.arguments["sync_mode"]:
            url = f"data:{kind};base64,{base64.b64encode(render(job, index)).decode()}"
        return {"url": url, "width": width, "height": height, "content_type": kind}

    def _media_url(self, call: Call, job: Job, index: int) -> str:
        """The same at every fetch, unless the first ones are to expire."""
        fetch = job.fetches if job.fault("expired") else 1
        extension = EXTENSIONS[job.arguments["output_format"]]
        base = media_base(call, self._behaviour.media_host)
        return f"{base}/files/b/{job.request_id}/{fetch}/{index}.{extension}"

    def media(self, call: Call) -> Answer:
        job, index = self._jobs.find(call.names["request_id"]), int(call.names["index"])
        stale = job is not None and job.fault("expired") and call.names["fetch"] == "1"
        if job is None or stale or index >= image_count(job):
            return Answer.json(404, {"detail": "Not Found"})
        kind = f"image/{job.arguments['output_format']}"
        headers = (("Content-Type", kind),)
        return Answer(200, headers, render(job, index), request_id=job.request_id)

    def cancel(self, call: Call) -> Answer:
        job = self._jobs.find(call.names["request_id"])
        if job is None:
            return Answer.json(404, {"status": "NOT_FOUND"})
        status = self._jobs.status(job)
        if status == COMPLETED:
            body = {"status": "ALREADY_COMPLETED"}
            return Answer.json(400, body, request_id=job.request_id)
        job.cancelled = status == IN_QUEUE or self._behaviour.cancel_stops_running
        body = {"status": "CANCELLATION_REQUESTED"}
        return Answer.json(202, body, request_id=job.request_id, accepted=True)


def media_base(call: Call, media_host: str) -> str:
    """Media beside the API for clients that came by address, else on fal's media host."""
    fal_hosts = (".fal.run", "fal.ai", ".falrun.com")
    return f"https://{media_host}" if call.base.endswith(fal_hosts) else call.base


def is_flagged(job: Job) -> bool:
    wanted = job.arguments
    objects = wanted["enable_safety_checker"] and FLAG_WORD in wanted["prompt"]
    return bool(objects or job.fault("flagged"))


def image_count(job: Job) -> int:
    fewer = job.fault("fewer_images")
    asked: int = job.arguments["num_images"]
    return 0 if job.fault("no_images") else min(asked, fewer.amount) if fewer else asked


def render(job: Job, index: int) -> bytes:
    """An image of a batch: the first has the seed that is reported, each next one more."""
    dark = is_flagged(job) or job.fault("black") is not None
    wanted = job.arguments
    return picture(wanted["image_size"], wanted["output_format"], job.seed + index, dark)


def billable_units(job: Job) -> float:
    """Megapixels (10^6 pixels, not rounded) of all images made.

    fal documents only "per megapixel"; the surcharge for prompt expansion is not in the units.
    """
    size: tuple[int, int] = job.arguments["image_size"]
    return image_count(job) * size[0] * size[1] / 1e6


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as exc:
        raise Invalid([detail(["body"], "JSON decode error", "json_invalid")]) from exc


def _urls(call: Call, job: Job) -> dict[str, str]:
    """Under owner and app only, on the host the client came by."""
    base = f"{call.base}/{call.names['app']}/requests/{job.request_id}"
    return {
        "request_id": job.request_id,
        "response_url": base,
        "status_url": f"{base}/status",
        "cancel_url": f"{base}/cancel",
    }


def _wants_logs(call: Call) -> bool:
    return parse_qs(call.head.query).get("logs", ["0"])[0].lower() in ("1", "true")


def _unknown_request() -> Answer:
    return Answer.json(404, {"detail": "Request not found"})


def _outcome(job: Job) -> dict[str, Any]:
    outcome: dict[str, Any] = {"metrics": {"inference_time": job.timing.job_seconds}}
    failure = job.fault("fails")
    if job.cancelled:
        return outcome | {"error": "Request was cancelled", "error_type": "client_cancelled"}
    if failure and failure.error:
        outcome |= {"error": failure.error, "error_type": failure.error_type}
    return outcome


def _failure(job: Job) -> Answer | None:
    """The result of a job that failed, or None. A schema error shows here, not in the status."""
    if job.cancelled:
        body = {"detail": "Request was cancelled", "error_type": "client_cancelled"}
        return Answer.json(499, body, request_id=job.request_id)
    if job.invalid:
        body_422 = {"detail": list(job.invalid)}
        return Answer.json(422, body_422, MODEL_ERROR, request_id=job.request_id)
    fault = job.fault("fails")
    if fault is None:
        return None
    kind = (("X-Fal-Error-Type", fault.error_type),) if fault.error_type else ()
    retryable = "true" if fault.status >= 500 else "false"
    fate = (("X-Fal-Retryable", retryable), ("x-fal-billable-units", "0"))
    headers = (("Content-Type", "application/json"), *kind, *fate)
    return Answer(fault.status, headers, fault.body, request_id=job.request_id)


def _result_headers(job: Job) -> Headers:
    units = f"{billable_units(job):g}"
    return (("x-fal-request-id", job.request_id), ("x-fal-billable-units", units))
