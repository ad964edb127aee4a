"""What the Hub's API says about a repository: the record, its fields on demand, its files."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .hub_repos import Repo, RepoFile

Record = dict[str, Any]

EXPANDABLE = (
    "author", "baseModels", "cardData", "config", "createdAt", "disabled", "downloads",
    "downloadsAllTime", "evalResults", "gated", "inference", "inferenceProviderMapping",
    "lastModified", "library_name", "likes", "mask_token", "model-index", "pipeline_tag",
    "private", "safetensors", "sha", "siblings", "spaces", "tags", "transformersInfo",
    "trendingScore", "widgetData", "gguf", "resourceGroup", "xetEnabled", "childrenModelCount",
    "usedStorage",
)  # fmt: skip
LISTED = (
    "likes", "trendingScore", "private", "downloads", "tags", "pipeline_tag", "library_name",
    "createdAt", "modelId",
)  # fmt: skip
LISTED_IN_FULL = (*LISTED, "author", "gated", "lastModified", "sha", "siblings")
INFO = (
    "author", "cardData", "config", "createdAt", "disabled", "downloads", "gated", "lastModified",
    "library_name", "likes", "modelId", "model-index", "pipeline_tag", "private", "sha",
    "siblings", "spaces", "tags", "usedStorage", "widgetData",
)  # fmt: skip
FIRST_COMMIT = "initial commit"


def record(repo: Repo, names: Iterable[str], base: str, *, blobs: bool = False) -> Record:
    """The named fields; those that this repository doesn't have are left out, as on the Hub."""
    values: Record = {"_id": repo.object_id, "id": repo.id}
    for name in names:
        value = FIELDS[name](repo, base) if name in FIELDS else None
        if value is not None or name == "model-index":
            values[name] = value
    if blobs:
        values["siblings"] = [_sibling_with_sizes(file) for file in repo.all_files]
    replaced = {key: value for key, value in repo.extra.items() if key in values}
    return values | replaced


def _siblings(repo: Repo, _: str) -> list[Record]:
    return [{"rfilename": file.name} for file in repo.all_files]


def _sibling_with_sizes(file: RepoFile) -> Record:
    sizes: Record = {"rfilename": file.name, "blobId": file.oid, "size": file.length}
    if not file.is_lfs:
        return sizes
    pointer = len(file.pointer)
    lfs = {"sha256": file.sha256, "size": file.length, "pointerSize": pointer}
    return sizes | {"lfs": lfs}


def _base_models(repo: Repo, _: str) -> Record | None:
    models = [{"_id": Repo(name).object_id, "id": name} for name in repo.base_models]
    return {"relation": repo.relation, "models": models} if models else None


def _card(repo: Repo, key: str) -> Any:
    return repo.card.get(key) if isinstance(repo.card, dict) else None


def _pipeline(repo: Repo, _: str) -> Any:
    tags = repo.all_tags
    derived = "text-to-image" if isinstance(tags, list) and "text-to-image" in tags else None
    return _card(repo, "pipeline_tag") or derived


def _widgets(repo: Repo, base: str) -> Any:
    """The card's widgets with addresses that lead to their pictures, where they are paths."""
    widgets = _card(repo, "widget")
    if not isinstance(widgets, list):
        return widgets
    return [_with_address(repo, widget, base) for widget in widgets]


def _with_address(repo: Repo, widget: Any, base: str) -> Any:
    output = widget.get("output") if isinstance(widget, dict) else None
    if not isinstance(output, dict):
        return widget
    url = output.get("url")
    if not isinstance(url, str) or "://" in url:
        return widget
    return widget | {"output": output | {"url": repo.picture_url(base, url)}}


def _gguf(repo: Repo, _: str) -> Record | None:
    sizes = [file.length for file in repo.files if file.suffix == ".gguf"]
    return {"total": sum(sizes), "architecture": "lumina2"} if sizes else None


FIELDS: Mapping[str, Callable[[Repo, str], Any]] = {
    "author": lambda repo, _: repo.author,
    "baseModels": _base_models,
    "cardData": lambda repo, _: repo.card,
    "childrenModelCount": lambda *_: dict.fromkeys(
        ("adapter", "merge", "quantized", "finetune"), 0
    ),
    "config": lambda *_: {},
    "createdAt": lambda repo, _: repo.created,
    "disabled": lambda *_: False,
    "downloads": lambda repo, _: repo.downloads,
    "downloadsAllTime": lambda repo, _: repo.downloads * 3,
    "gated": lambda repo, _: repo.gated,
    "gguf": _gguf,
    "lastModified": lambda repo, _: repo.updated,
    "library_name": lambda repo, _: repo.library,
    "likes": lambda repo, _: repo.likes,
    "modelId": lambda repo, _: repo.id,
    "pipeline_tag": _pipeline,
    "private": lambda repo, _: repo.private,
    "sha": lambda repo, _: repo.sha,
    "siblings": _siblings,
    "spaces": lambda *_: [],
    "tags": lambda repo, _: repo.all_tags,
    "trendingScore": lambda repo, _: repo.trending,
    "usedStorage": lambda repo, _: sum(file.length for file in repo.files),
    "widgetData": _widgets,
    "xetEnabled": lambda *_: True,
}


def tree_entry(repo: Repo, file: RepoFile, expand: bool) -> Record:
    """A file in the listing of a folder; `expand` adds its last commit and its scans."""
    entry: Record = {"type": "file", "oid": file.oid, "size": file.length, "path": file.name}
    if file.is_lfs:
        pointer = len(file.pointer)
        entry["lfs"] = {"oid": file.sha256, "size": file.length, "pointerSize": pointer}
    if expand:
        scan = {"status": "safe", "message": "No issue", "reportLink": "", "reportLabel": ""}
        scans = {"status": "safe", "avScan": scan, "pickleImportScan": None}
        entry |= {"lastCommit": _last_commit(repo, file.date), "securityFileStatus": scans}
    return entry


def folder_entry(repo: Repo, path: str, expand: bool) -> Record:
    entry: Record = {"type": "directory", "oid": repo.sha, "size": 0, "path": path}
    return entry | ({"lastCommit": _last_commit(repo, None)} if expand else {})


def _last_commit(repo: Repo, date: str | None) -> Record:
    first = date == repo.created
    title = FIRST_COMMIT if first else "Upload files with huggingface_hub"
    return {"id": repo.sha, "title": title, "date": date or repo.updated}
