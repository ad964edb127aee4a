"""The Space on the Hub: made or brought up to date, step by step, each failure with its cause."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx2
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    SpaceHardware,
    SpaceInfo,
    Volume,
)
from huggingface_hub.errors import HfHubHTTPError

from deploy.kinds import MARK
from generation.errors import (
    HubTokenRejected,
    SpaceNameTaken,
    SpaceNotPermitted,
    SpaceRefused,
    SpaceUnpaid,
)
from settings import SPACE_STORAGE

SLEEP: Final = 30 * 60  # seconds without a visitor after which paid hardware stops billing
CommitOperation = CommitOperationAdd | CommitOperationDelete
FREE: Final = (SpaceHardware.CPU_BASIC, SpaceHardware.ZERO_A10G)  # whose sleep isn't ours to set


@dataclass(frozen=True)
class Wanted:
    """What the Space is to be. `secrets` are values that only the Hub gets to see."""

    space: str
    folder: Path
    variables: Mapping[str, str]
    secrets: Mapping[str, str] = field(repr=False)
    hardware: SpaceHardware | None = None
    bucket: str | None = None
    private: bool = False


def publish(api: HfApi, wanted: Wanted) -> None:
    """Make the Space, or bring it up to date; files that it no longer needs go.

    Settings come before files, so that its first start has them.

    Raises:
        DeployError: with the step at which it ended; doing it again goes on from there.
    """
    found = _found(api, wanted.space)
    if found is None:
        _create(api, wanted)
    for name, value in wanted.variables.items():
        with _step("set a variable of", wanted.space):
            api.add_space_variable(wanted.space, name, value)
    for name, value in wanted.secrets.items():
        with _step("set a secret of", wanted.space):
            api.add_space_secret(wanted.space, name, value)
    if wanted.bucket is not None:
        mounted = Volume(type="bucket", source=wanted.bucket, mount_path=str(SPACE_STORAGE))
        with _step("mount the bucket on", wanted.space):
            api.set_space_volumes(wanted.space, [mounted])
    _upload(api, wanted)
    hardware = wanted.hardware
    if found is not None and hardware is not None and hardware != _hardware(found):
        with _step("change the hardware of", wanted.space):
            api.request_space_hardware(wanted.space, hardware, sleep_time=_sleep(hardware))


def _found(api: HfApi, space: str) -> SpaceInfo | None:
    """The Space if it exists and is one of these, or has no program yet."""
    with _step("look for", space):
        if not api.repo_exists(space, repo_type="space"):
            return None
        info = api.space_info(space)
    tags = info.card_data.tags if info.card_data else None
    files = {file.rfilename for file in info.siblings or ()}
    if MARK not in (tags or ()) and "app.py" in files:
        raise SpaceNameTaken(space=space)
    return info


def _create(api: HfApi, wanted: Wanted) -> None:
    with _step("create", wanted.space):
        api.create_repo(
            wanted.space,
            repo_type="space",
            space_sdk="gradio",
            private=wanted.private,
            space_hardware=wanted.hardware,
            space_sleep_time=_sleep(wanted.hardware),
        )


def _upload(api: HfApi, wanted: Wanted) -> None:
    """One commit, for each starts a build; `upload_folder` may make several of it."""
    with _step("write the files of", wanted.space):
        there = api.list_repo_files(wanted.space, repo_type="space")
        api.create_commit(
            wanted.space,
            list(_operations(wanted.folder, set(there) - {".gitattributes"})),
            commit_message="Bring the page up to date",
            repo_type="space",
        )


def _operations(folder: Path, there: set[str]) -> Iterator[CommitOperation]:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        there.discard(name)
        yield CommitOperationAdd(name, path)
    yield from (CommitOperationDelete(name) for name in there)


def _hardware(info: SpaceInfo) -> str | None:
    return info.runtime.requested_hardware if info.runtime else None


def _sleep(hardware: SpaceHardware | None) -> int | None:
    return None if hardware is None or hardware in FREE else SLEEP


@contextmanager
def _step(doing: str, space: str) -> Iterator[None]:
    """Name what went wrong. The Hub's own words stay out: they may repeat what was sent."""
    try:
        yield
    except HfHubHTTPError as exc:
        raise _refusal(exc.response.status_code, doing, space) from None
    except (httpx2.HTTPError, ValueError, OSError) as exc:
        raise SpaceRefused(doing=doing, space=space, reason=type(exc).__name__) from None


def _refusal(status: int, doing: str, space: str) -> Exception:
    if status == 401:
        return HubTokenRejected()
    if status == 402:
        return SpaceUnpaid(doing=doing, space=space)
    if status == 403:
        return SpaceNotPermitted(doing=doing, space=space)
    if status == 409:
        return SpaceNameTaken(space=space)
    return SpaceRefused(doing=doing, space=space, reason=f"HTTP {status}")
