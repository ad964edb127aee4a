"""Every error a person can meet: its cause (message) and what to do next (hint).

    PlaygroundError
    ├── InvalidRequest          a value is out of range; nothing was sent
    ├── BackendUnavailable      this way of making images isn't ready
    │   ├── KeyMissing          the hosted endpoint needs a fal key
    │   ├── PackagesMissing     the local pipeline's packages aren't installed
    │   └── PoolUnreachable     the pool of GPUs takes no jobs
    ├── AllowanceError          the owner of this page doesn't allow it; nothing was sent
    │   ├── NotAllowedHere      a value that is the owner's to allow
    │   ├── TooManyRequests     this visitor's images for now are used up
    │   ├── BudgetSpent         today's dollars of all visitors are used up
    │   └── SpendingStopped     the owner switched spending off
    ├── SubmitError
    │   ├── NotSent             no byte reached the endpoint
    │   ├── OutcomeUnknown      sent, but the answer was lost: it may have been accepted
    │   └── Refused             the endpoint said no
    │       ├── KeyRejected     401
    │       ├── BalanceExhausted  402, or 403 with a locked account
    │       ├── NotPermitted    403
    │       ├── ModelUnavailable  404
    │       ├── RequestRejected 422, with the field it names
    │       ├── ContentRefused  422 of the content policy
    │       └── RateLimited     429, with the seconds to wait
    ├── JobError
    │   ├── JobFailed           accepted, then failed on the endpoint
    │   ├── EngineFailed        failed on this machine, and the engine goes on
    │   ├── EngineCrashed       the engine's own process ended under it
    │   ├── PoolLost            replicas of the pool died under it
    │   ├── GpuNotLent          ZeroGPU lent no GPU for it
    │   ├── JobExpired          the endpoint no longer knows it
    │   ├── JobOverdue          not finished by the deadline; still running there
    │   ├── JobCancelled        somebody stopped it; for a caller who waits
    │   ├── KeyRevoked          the key stopped working while the job was running
    │   ├── NoImages            finished without a single image
    │   └── AnswerRefused       an answer that must not be followed
    ├── AdapterError
    │   ├── ReferenceInvalid    what was typed names no adapter
    │   ├── HubUnreachable      the Hub is down, slow or not to be found
    │   ├── HubLimited          429, with the seconds to wait
    │   ├── AdapterNotFound     no such repository or file, or a private one
    │   ├── AdapterGated        its author asks for an agreement first
    │   ├── SignInLapsed        it takes the visitor's sign-in, whose time is over
    │   ├── NoWeights           a repository without a safetensors file
    │   ├── SeveralFiles        which of them is for the person to say
    │   ├── AdapterRefused      not a safetensors file, hostile, or no adapter
    │   └── AdapterUnavailable  it could not be brought to the backend
    ├── MediaError
    │   ├── MediaExpired        the image's address is gone
    │   ├── MediaBroken         the bytes are incomplete or did not arrive
    │   └── MediaRefused        not an image, too large, or at a forbidden address
    ├── StorageError
    │   ├── DiskFull
    │   ├── DatabaseBusy
    │   ├── DatabaseUnreachable  its server is away
    │   ├── DataFolderInUse     another playground owns the folder
    │   ├── DataFolderUnusable  it can't be made or written
    │   ├── DatabaseNewer       a newer playground wrote it
    │   ├── DatabaseAddressWrong  no such database can be opened
    │   ├── DatabaseDriverMissing  its package isn't installed
    │   └── NotInHistory        no such job for this visitor
    ├── SignInFailed            the visitor is not signed in: why
    │   ├── SignInDeclined      they said no on Hugging Face
    │   ├── SignInStale         no such sign-in was begun in this browser, or it is used up
    │   └── SignInUnavailable   Hugging Face can't be reached, or refuses
    ├── RecipeMissing           a dropped image holds no recipe
    └── DeployError             the page couldn't be put on a Space
        ├── HubTokenMissing     nobody is signed in to the Hub
        ├── HubTokenRejected    401
        ├── SpaceNotPermitted   403
        ├── SpaceUnpaid         402
        ├── SpaceNameTaken      a Space of that name is something else
        ├── SpaceRefused        any other answer, or none, with the step it belongs to
        └── FolderNotEmpty      the folder for its files holds others

`message` and `hint` are templates over the error's facts, so that the page can
say them in another language and the journal can keep them.
"""

from __future__ import annotations

from typing import ClassVar, TypedDict

Fact = str | int | float | bool | None


class ErrorRecord(TypedDict):
    """An error as the journal keeps it."""

    type: str
    facts: dict[str, Fact]


class PlaygroundError(Exception):
    """Base of all errors a person can meet; `facts` fill the two templates."""

    message: ClassVar[str] = "Something went wrong."
    hint: ClassVar[str] = "Try again; if it happens again, restart the playground."

    def __init__(self, **facts: Fact) -> None:
        self.facts = facts
        super().__init__(f"{self.cause} {self.remedy}")

    @property
    def cause(self) -> str:
        """What happened, in one English sentence."""
        return self.message.format(**self.facts)

    @property
    def remedy(self) -> str:
        """What to do next, in one English sentence."""
        return self.hint.format(**self.facts)

    def record(self) -> ErrorRecord:
        """The error as plain JSON; `from_record` is its inverse."""
        return {"type": type(self).__name__, "facts": self.facts}

    @staticmethod
    def from_record(record: ErrorRecord) -> PlaygroundError:
        """Rebuild an error from the journal; what an older version wrote may become the base."""
        kinds = {kind.__name__: kind for kind in PlaygroundError.tree()}
        try:
            return kinds[record["type"]](**record["facts"])
        except KeyError:  # an unknown type, or a fact that its texts have gained since
            return PlaygroundError(**record["facts"])

    @classmethod
    def tree(cls) -> list[type[PlaygroundError]]:
        """This class and all below it."""
        return [cls, *_descendants(cls)]

    def __reduce__(self) -> tuple[object, ...]:
        return (PlaygroundError.from_record, (self.record(),))


def _descendants(kind: type[PlaygroundError]) -> list[type[PlaygroundError]]:
    children = kind.__subclasses__()
    return children + [below for child in children for below in _descendants(child)]


class InvalidRequest(PlaygroundError):
    """Facts: `field`, the dotted wire name, and `problem`, which names the range."""

    message = "{field}: {problem}."
    hint = "Change it and generate again; nothing was sent."


# -- a backend that isn't ready ------------------------------------------------


class BackendUnavailable(PlaygroundError):
    """Facts: `backend` and `reason`."""

    message = "The {backend} backend isn't ready: {reason}."
    hint = "Choose another backend in the header."


class KeyMissing(BackendUnavailable):
    message = "The hosted endpoint needs a fal key."
    hint = "Enter a key in the header, or set FAL_KEY and restart."


class PackagesMissing(BackendUnavailable):
    """Facts: `packages`."""

    message = "The local pipeline needs packages that aren't installed: {packages}."
    hint = "Run: pip install -r requirements-local.txt"


class PoolUnreachable(BackendUnavailable):
    """Facts: `reason`, without the address."""

    message = "The pool of GPUs takes no jobs: {reason}."
    hint = "Check PLAYGROUND_RAY_ADDRESS and `serve status`, or choose another backend."


# -- what the owner of a public page allows ------------------------------------


class AllowanceError(PlaygroundError):
    """Refused before anything was journaled or sent."""

    message = "The owner of this page doesn't allow this."
    hint = "Nothing was sent. Change the request, or try again later."


class NotAllowedHere(AllowanceError):
    """Facts: `field`, the wire name, and `value`."""

    message = "{field} can't be {value} on this page: its owner doesn't allow it."
    hint = "Change it and try again; nothing was sent."


class TooManyRequests(AllowanceError):
    """Facts: `allowed` images in each `period`, and `wait`, both as times with their unit."""

    message = "Each visitor may make {allowed} images in {period} here; this would be more."
    hint = "Possible again in {wait}, or now with a fal key of your own. Nothing was sent."


class BudgetSpent(AllowanceError):
    """Facts: `left` and `needed`, in dollars."""

    message = "Today's budget of this page is spent: {left} is left, this needs up to {needed}."
    hint = "It resets at 00:00 UTC; enter a fal key of your own to go on now. Nothing was sent."


class SpendingStopped(AllowanceError):
    message = "The owner of this page has stopped spending for now."
    hint = "Enter a fal key of your own to go on, or come back later. Nothing was sent."


# -- submitting ----------------------------------------------------------------


class SubmitError(PlaygroundError):
    """The request did not become a job that we can follow."""


class NotSent(SubmitError):
    """Facts: `reason`. Raised only while no byte of the request had left."""

    message = "The endpoint could not be reached ({reason}); nothing was sent."
    hint = "Check the connection and generate again; it costs nothing twice."


class OutcomeUnknown(SubmitError):
    """Facts: `reason`. The request left this machine and its answer was lost."""

    message = "The request was sent but its answer was lost ({reason})."
    hint = "It may be running and may be billed. Check again, or submit again knowing that."


class Refused(SubmitError):
    """Facts: `status` and `reason`."""

    message = "The endpoint refused the request ({status}): {reason}."
    hint = "Nothing was generated. Change the request, or try again later."


class KeyRejected(Refused):
    message = "The key was rejected."
    hint = "Check it on fal.ai/dashboard/keys and enter it again."


class BalanceExhausted(Refused):
    message = "The fal account has no balance left."
    hint = "Top up at fal.ai/dashboard/billing, then generate again."


class NotPermitted(Refused):
    message = "This key may not use the endpoint: {reason}."
    hint = "Use a key with the API scope from fal.ai/dashboard/keys."


class ModelUnavailable(Refused):
    message = "Model unavailable: the endpoint answered “not found”."
    hint = "Try again in a few minutes; fal's status page is status.fal.ai."


class RequestRejected(Refused):
    """Facts also hold `field`."""

    message = "The endpoint rejected {field}: {reason}."
    hint = "Change it and generate again. fal may bill a rejected request."


class ContentRefused(Refused):
    message = "The endpoint's content policy refused the prompt."
    hint = "Rephrase it and generate again. fal may bill a rejected request."


class RateLimited(Refused):
    """Facts: `retry_after` in whole seconds."""

    message = "Too many requests: the endpoint asks to wait {retry_after} s."
    hint = "Nothing was generated. Generate again when the time is up."


# -- a job that was accepted ---------------------------------------------------


class JobError(PlaygroundError):
    """The job was taken, and it did not end as hoped."""


class JobFailed(JobError):
    """Facts: `reason` and `billing`, one of "not charged" and "may be billed"."""

    message = "The endpoint failed while making the image: {reason}."
    hint = "This job is {billing}. Generate again, or change the request."


class EngineFailed(JobError):
    """Facts: `reason`. Nothing of it is billed."""

    message = "The local engine failed while making the image: {reason}."
    hint = "Generate again, or change the request; the server's log says where it failed."


class EngineCrashed(JobError):
    """Facts: `reason`, how its process ended."""

    message = "The local engine crashed while making the image: {reason}."
    hint = (
        "The page goes on, and the next job starts the engine anew. Generate again; if it "
        "repeats, try a smaller size or fewer images, or another backend."
    )


class PoolLost(JobError):
    """Facts: `reason` and `times`. Nothing of it is billed."""

    message = "The pool of GPUs lost this job {times} times: {reason}."
    hint = "Generate again; if it repeats, try a smaller size, and see `serve status`."


class GpuNotLent(JobError):
    """Facts: `reason`, in ZeroGPU's words."""

    message = "ZeroGPU lent no GPU for this image: {reason}."
    hint = (
        "Generate again later, or choose another backend in the header. Whoever is signed in to "
        "Hugging Face has a larger share."
    )


class JobExpired(JobError):
    """Facts: `request_id`."""

    message = "The endpoint no longer has this result (request {request_id})."
    hint = "Results are kept for about an hour. Look for it in fal's own history, or run it again."


class JobOverdue(JobError):
    """Facts: `minutes`. The job stays open."""

    message = "No result after {minutes} minutes; the endpoint is still working on it."
    hint = "Keep waiting, or cancel it."


class JobCancelled(JobError):
    message = "The job was cancelled."
    hint = "Generate again if that was a mistake."


class KeyRevoked(JobError):
    """The job stays open and goes on once a key is there."""

    message = "The key no longer works while a job of yours is running."
    hint = "Enter a working key: the job is kept and its result will be fetched."


class NoImages(JobError):
    message = "The endpoint finished without an image."
    hint = "Generate again; if it repeats, change the prompt or the adapters."


class AnswerRefused(JobError):
    """Facts: `host`."""

    message = "The endpoint's answer points to a foreign host ({host}); it was not followed."
    hint = "Check the proxy and host settings. The job may be billed; see fal's dashboard."


# -- adapters ------------------------------------------------------------------


class AdapterError(PlaygroundError):
    """An adapter that can't be read or handed over; nothing was sent, nothing is billed."""

    message = "The adapter can't be used."
    hint = "Choose another one."


class ReferenceInvalid(AdapterError):
    """Facts: `reference` and `problem`."""

    message = "{reference} names no adapter: it {problem}."
    hint = "Paste owner/name, a Hub link, or the https address of a .safetensors file."


class HubUnreachable(AdapterError):
    """Facts: `reason`."""

    message = "The Hugging Face Hub can't be reached ({reason})."
    hint = "Try again in a moment; pasted references still work."


class HubLimited(AdapterError):
    """Facts: `retry_after` in whole seconds."""

    message = "The Hugging Face Hub asks to wait {retry_after} s."
    hint = "Try again then; a Hub token (HF_TOKEN) raises the limit."


class AdapterNotFound(AdapterError):
    """Facts: `reference`."""

    message = "{reference} was not found, or it is private."
    hint = "Check the spelling; for a private one sign in, or set HF_TOKEN on a page of your own."


class AdapterGated(AdapterError):
    """Facts: `repo` and `link`, where access is asked for."""

    message = "{repo} is gated: its author asks you to accept terms first."
    hint = "Ask for access on {link}, then sign in, or set HF_TOKEN on a page of your own."


class SignInLapsed(AdapterError):
    """Facts: `reference`."""

    message = "{reference} takes your sign-in, whose time is over."
    hint = "Sign in again at the top of the page; your history stays as it is."


class NoWeights(AdapterError):
    """Facts: `repo`."""

    message = "{repo} holds no safetensors file."
    hint = "Choose another adapter: other formats may run code and are not taken."


class SeveralFiles(AdapterError):
    """Facts: `repo`, and `files`, the first names."""

    message = "{repo} holds several files: {files}."
    hint = "Choose one of them: paste its own link, or pick it in its slot."


class AdapterRefused(AdapterError):
    """Facts: `name` and `reason`."""

    message = "{name} can't be used: {reason}."
    hint = "Choose another file or another adapter; nothing was sent."


class AdapterUnavailable(AdapterError):
    """Facts: `name` and `reason`."""

    message = "{name} could not be brought to the backend: {reason}."
    hint = "Generate again; if it repeats, choose another adapter. Nothing was sent."


# -- the image files -----------------------------------------------------------


class MediaError(PlaygroundError):
    """The job is done, and its image could not be brought here."""


class MediaExpired(MediaError):
    message = "The image is no longer kept where it was made."
    hint = "Run the same recipe again: its seed is kept."


class MediaBroken(MediaError):
    """Facts: `reason`."""

    message = "The image did not arrive whole ({reason})."
    hint = "The result is kept: check again to fetch it once more."


class MediaRefused(MediaError):
    """Facts: `reason`."""

    message = "The file was refused: {reason}."
    hint = "Only PNG, JPEG and WebP images up to 16 megapixels are taken."


# -- disk and database ---------------------------------------------------------


class StorageError(PlaygroundError):
    """The playground's own data folder."""

    message = "The history can't be read or written."
    hint = "Check the data folder's disk and permissions, then try again."


class DiskFull(StorageError):
    message = "The disk is full."
    hint = "Free some space; nothing is sent while results can't be kept."


class DatabaseBusy(StorageError):
    message = "The history database is locked by another program."
    hint = "Close it, then generate again; nothing is sent while it is locked."


class DatabaseUnreachable(StorageError):
    message = "The history database can't be reached."
    hint = "Try again in a moment; if it stays away, look at its server. Nothing is sent meanwhile."


class DataFolderInUse(StorageError):
    """Facts: `folder`."""

    message = "Another playground is using the data folder {folder}."
    hint = "Close it, or set PLAYGROUND_DATA_DIR to another folder."


class DataFolderUnusable(StorageError):
    """Facts: `folder` and `reason`."""

    message = "The data folder {folder} can't be used: {reason}."
    hint = "Make it writable, or set PLAYGROUND_DATA_DIR to another folder."


class DatabaseNewer(StorageError):
    message = "A newer version of the playground wrote this history."
    hint = "Update the playground, or set PLAYGROUND_DATA_DIR to another folder."


class DatabaseAddressWrong(StorageError):
    """Facts: `reason`, without the address: it may hold a password."""

    message = "PLAYGROUND_DATABASE_URL can't be used: {reason}."
    hint = "Correct it, or leave it out: the history is then a file in the data folder."


class DatabaseDriverMissing(StorageError):
    """Facts: `package`."""

    message = "PLAYGROUND_DATABASE_URL needs the package {package}, which isn't installed."
    hint = "Run: pip install -r requirements-postgres.txt"


class NotInHistory(StorageError):
    message = "There is no such job in your history."
    hint = "It may have been deleted; open the History tab to see what is there."


class SignInFailed(PlaygroundError):
    """Base of what keeps a visitor from being signed in."""

    message = "You are not signed in."
    hint = "Go back and try again; the page works without it."


class SignInDeclined(SignInFailed):
    """They said no, which is no fault."""

    message = "You are not signed in: the request was declined on Hugging Face."
    hint = "Nothing was changed; the page works without it."


class SignInStale(SignInFailed):
    """The answer belongs to no sign-in that this browser has begun."""

    message = "This sign-in wasn't begun in this browser, or it is too old."
    hint = "Go back and sign in again; the browser must keep this page's cookies."


class SignInUnavailable(SignInFailed):
    """Facts: `reason`."""

    message = "Hugging Face didn't complete the sign-in ({reason})."
    hint = "Go back and try again in a moment; the page works without it."


class RecipeMissing(PlaygroundError):
    message = "This image carries no recipe."
    hint = "Drop an original file: screenshots and re-saved copies lose their recipe."


# -- putting it on a Space -----------------------------------------------------


class DeployError(PlaygroundError):
    """`python -m deploy.space` ended before it was done; what was done stays."""


class HubTokenMissing(DeployError):
    message = "Nobody is signed in to the Hugging Face Hub here."
    hint = "Run `hf auth login`, or set HF_TOKEN to a token that may write."


class HubTokenRejected(DeployError):
    message = "The Hub doesn't accept this token."
    hint = "Make one that may write at huggingface.co/settings/tokens, then run `hf auth login`."


class SpaceNotPermitted(DeployError):
    """Facts: `doing`, the step, and `space`."""

    message = "This token isn't allowed to {doing} {space!r}."
    hint = "Use a token with write access to that owner's Spaces, or an owner that is you."


class SpaceUnpaid(DeployError):
    """Facts: `doing`, the step, and `space`."""

    message = "The Hub asks to be paid before it will {doing} {space!r}."
    hint = "Free accounts: add --hardware zero-a10g; else add a payment method to your account."


class SpaceNameTaken(DeployError):
    """Facts: `space`."""

    message = "The Space {space!r} exists and is something else."
    hint = "Choose another name; or delete that Space first, if nobody misses it."


class SpaceRefused(DeployError):
    """Facts: `doing`, the step, `space`, and `reason`."""

    message = "The Hub didn't {doing} {space!r} ({reason})."
    hint = "Run the same command again: it goes on where it ended."


class FolderNotEmpty(DeployError):
    """Facts: `folder`."""

    message = "The folder {folder!r} has files in it already."
    hint = "Name a new one, or empty it first."
