"""Who is champion: the gate, a person's word over it, and the way back."""

from __future__ import annotations

import getpass
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from prefect import get_client, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists

from tasks import console, descriptions
from tasks.core.errors import CertiflowError
from tasks.core.evidence.gate import GateEvidence, Judgement, judge, proved
from tasks.core.verdicts import Verdict
from tasks.data import DatasetRef, load
from tasks.records import Decision, Word
from tasks.settings import Settings
from tasks.tracking import (
    RegisteredModel,
    Version,
    downloaded_model,
    local_store_locked,
    model_name,
)
from tasks.verify import sample_for, verify_sample

DECIDING_SECONDS = 120


@task(name="gate", cache_policy=NO_CACHE)
def gate(version: int, dataset: DatasetRef, settings: Settings) -> Decision:
    """Makes the version champion if it is no worse than the present one, on the same points.

    Both models are evaluated on the present test set and verified on a sample of it, the
    champion's own seed choosing; verdicts that are stored cost nothing. If another flow changes
    the champion meanwhile, the comparison begins anew with that one.

    Raises:
        CertiflowError: there is no such version, it is the champion already, or a point's
            verification ended in an error: nothing is decided then.
    """
    model = RegisteredModel(model_name(dataset.name))
    challenger = model.version(version)
    _check_not_champion(model, challenger)
    model.challenge(challenger)
    while True:
        champion = model.champion()
        judgement = None if champion is None else _compare(challenger, champion, dataset, settings)
        with _deciding(model):
            if model.champion_number() != (None if champion is None else champion.number):
                console.say("gate", "another flow changed the champion: comparing anew")
                continue
            decision = _decision(challenger, champion, judgement, settings)
            if decision.decision == "promoted":
                model.crown(challenger)
            _record(model, decision)
        return decision


@task(name="force", cache_policy=NO_CACHE)
def force(name: str, version: int, reason: str) -> Decision:
    """Makes the version champion on a person's word, whatever the gate would say."""
    model = RegisteredModel(name)
    chosen = model.version(version)
    with _deciding(model):
        before = _check_not_champion(model, chosen)
        model.crown(chosen)
        decision = _said(name, version, "forced", reason, before)
        _record(model, decision)
    return decision


@task(name="rollback", cache_policy=NO_CACHE)
def roll_back(name: str, reason: str) -> Decision:
    """Makes the champion before the present one the champion again.

    Raises:
        CertiflowError: there is no champion, or none before it.
    """
    model = RegisteredModel(name)
    with _deciding(model):
        champion, previous = model.champion(), model.previous_champion()
        if champion is None:
            raise CertiflowError(
                f"{name} has no champion yet: there is nothing to roll back; "
                "`certiflow promote` makes one"
            )
        if previous is None:
            raise CertiflowError(f"{champion} is the first champion: there is none before it")
        model.roll_back(model.version(previous))
        _record(model, _said(name, champion.number, "rolled back", reason, previous))
        decision = _said(name, previous, "restored", reason, champion.number)
        _record(model, decision)
    return decision


def _check_not_champion(model: RegisteredModel, version: Version) -> int | None:
    """The champion's number, if any."""
    champion = model.champion_number()
    if champion == version.number:
        raise CertiflowError(f"{version} is the champion already")
    return champion


def _compare(
    challenger: Version, champion: Version, dataset: DatasetRef, settings: Settings
) -> Judgement:
    seed = int(champion.tags.get("seed", settings.seed))
    return judge(
        _evidence(challenger, dataset, settings, seed),
        _evidence(champion, dataset, settings, seed),
        clean_margin=settings.promotion.clean_margin,
        significance=settings.promotion.significance,
    )


def _evidence(version: Version, dataset: DatasetRef, settings: Settings, seed: int) -> GateEvidence:
    """Of one model, on points that depend on the data, their number and the seed alone.

    Marabou is not asked to witness proofs again: each version's own run did that.
    """
    from tasks.core.models import loading

    data = load(dataset)
    model = loading.load(downloaded_model(f"models:/{version}"))
    count = min(settings.promotion.samples, len(data.test_labels))
    sample = sample_for(model, data, count, seed)
    found = verify_sample(
        model,
        sample,
        (settings.reference_epsilon,),
        settings.verification,
        settings.attack,
        seed,
        title=f"gate v{version.number}",
    )
    failed = [result.reason for result in found if result.verdict is Verdict.ERROR]
    if failed:  # it would count as unproved, and a champion without its proofs is easily beaten
        raise CertiflowError(
            f"{version}: {len(failed)} of {count} points could not be verified ({failed[0]}): "
            "nothing was decided; judge it again with `certiflow promote`"
        )
    logits = model.runtime.logits(data.test_images.reshape(-1, *model.input_shape))
    return GateEvidence(
        clean=logits.argmax(axis=1) == data.test_labels,
        certified=proved(found, deployed=settings.promotion.deployed),
    )


def _decision(
    challenger: Version, champion: Version | None, judgement: Judgement | None, settings: Settings
) -> Decision:
    name, number = challenger.model, challenger.number
    if champion is None or judgement is None:
        return _said(name, number, "promoted", "no champion to compare with", None)
    word: Word = "promoted" if judgement.accepted else "refused"
    numbers = {
        "epsilon": settings.reference_epsilon,
        "points": judgement.certified.points,
        "certified_accuracy": judgement.certified.new,
        "certified_accuracy_champion": judgement.certified.old,
        "certified_p_value": judgement.certified.p_value,
        "unnoticed_points": judgement.unnoticed,
        "test_images": judgement.clean.points,
        "clean_accuracy": judgement.clean.new,
        "clean_accuracy_champion": judgement.clean.old,
        "clean_p_value": judgement.clean.p_value,
        "clean_margin": settings.promotion.clean_margin,
        "significance": settings.promotion.significance,
    }
    return _said(name, number, word, judgement.reason, champion.number, numbers)


def _said(
    model: str,
    version: int,
    word: Word,
    reason: str,
    against: int | None,
    numbers: Mapping[str, int | float | None] | None = None,
) -> Decision:
    return Decision(
        model=model,
        version=version,
        decision=word,
        reason=reason,
        against=against,
        numbers={key: value for key, value in (numbers or {}).items() if value is not None},
        by=getpass.getuser(),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _record(model: RegisteredModel, decision: Decision) -> None:
    """In the version's tags and description, the model's description, and Prefect's artifacts."""
    markdown = descriptions.of_decision(decision)
    version = model.version(decision.version)
    model.annotate(version, decision.tags, markdown)
    model.describe(descriptions.of_model(model.champion_number(), decision))
    create_markdown_artifact(
        markdown, key="certiflow-decision", description=f"{version}: {decision.decision}"
    )


@contextmanager
def _deciding(model: RegisteredModel) -> Iterator[None]:
    """One flow at a time: by a lock beside a local store, else by a limit of Prefect's server.

    The limit's slot is a lease, which ends by itself when the flow that holds it dies.
    """
    with local_store_locked(model.name) as locked:
        if locked:
            yield
            return
    limit = f"deciding on {model.name}"
    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=limit, limit=1))
    try:
        with concurrency(limit, timeout_seconds=DECIDING_SECONDS, strict=True):
            yield
    except TimeoutError as error:
        raise CertiflowError(
            f"{model.name}: another flow has been deciding on its champion for "
            f"{DECIDING_SECONDS} s; wait for it, or end it"
        ) from error
