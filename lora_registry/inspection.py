"""What the page is told of one adapter before it costs anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from generation.errors import AdapterError, AdapterRefused
from lora_format.anatomy import Anatomy
from lora_registry.cards import Card, WeightFile
from lora_registry.hub_source import Repository
from lora_registry.references import HubReference
from lora_registry.triggers import TriggerWord, merge, trigger_words
from lora_registry.verdicts import Fit, Verdict, verdicts


@dataclass(frozen=True, slots=True)
class Inspection:
    """One adapter.

    `reference` is what goes into a request's path: pinned to a commit where it
    is known. `files` are all to choose from, `file` the one that was chosen or
    is proposed, `fit` a verdict for every backend. `moved_to` is the present
    name of a repository that was asked for by a former one. `problem` says why
    something can't be read for now; `private`, that its files take a token.
    """

    reference: str
    repo: str | None
    name: str
    file: str | None
    sha: str | None
    files: tuple[WeightFile, ...]
    card: Card | None
    anatomy: Anatomy | None
    fit: Mapping[str, Verdict]
    trigger_words: tuple[TriggerWord, ...]
    moved_to: str | None
    problem: AdapterError | None
    private: bool


def of_repository(
    reference: str,
    found: Repository,
    file: str,
    anatomy: Anatomy | None,
    prose: tuple[TriggerWord, ...],
    problem: AdapterError | None,
) -> Inspection:
    """An adapter on the Hub, at one commit."""
    card = found.card
    return Inspection(
        reference=reference,
        repo=card.id,
        name=card.name,
        file=file,
        sha=found.sha,
        files=card.files,
        card=card,
        anatomy=anatomy,
        fit=verdicts(anatomy, card.base_models),
        trigger_words=merge(card.trigger_words, _in_header(anatomy), prose),
        moved_to=card.id if card.id.lower() != found.asked.lower() else None,
        problem=problem,
        private=found.closed,
    )


def of_unreachable(reference: str, ref: HubReference, problem: AdapterError) -> Inspection:
    """What was pasted while the Hub can't be asked: it may well be right."""
    return Inspection(
        reference=reference,
        repo=ref.repo,
        name=ref.repo.partition("/")[2],
        file=ref.file,
        sha=ref.revision if ref.pinned else None,
        files=(),
        card=None,
        anatomy=None,
        fit=verdicts(None),
        trigger_words=(),
        moved_to=None,
        problem=problem,
        private=False,
    )


def of_file(
    reference: str,
    name: str,
    sha: str | None,
    anatomy: Anatomy | None,
    problem: AdapterError | None = None,
    *,
    private: bool = False,
) -> Inspection:
    """A single file: uploaded, or at an address that isn't the Hub's."""
    return Inspection(
        reference=reference,
        repo=None,
        name=name.removesuffix(".safetensors"),
        file=name,
        sha=sha,
        files=(),
        card=None,
        anatomy=anatomy,
        fit=verdicts(anatomy),
        trigger_words=_in_header(anatomy),
        moved_to=None,
        problem=problem,
        private=private,
    )


def refuse_unfit(
    anatomy: Anatomy, name: str, backend: str, base_models: tuple[str, ...] = ()
) -> None:
    """Stop what can't work before anything is paid; what may work is only warned of.

    Raises:
        AdapterRefused: no adapter, or one of another family.
    """
    verdict = verdicts(anatomy, base_models)[backend]
    if verdict.fit in (Fit.NOT_AN_ADAPTER, Fit.OTHER_FAMILY):
        raise AdapterRefused(name=name, reason=verdict.reason.rstrip("."))


def _in_header(anatomy: Anatomy | None) -> tuple[TriggerWord, ...]:
    return trigger_words(anatomy.trigger_words, "header") if anatomy else ()
