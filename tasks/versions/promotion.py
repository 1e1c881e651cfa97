"""Who is champion: the gate, a person's word over it, and the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from tasks import console
from tasks.core.errors import CertiflowError
from tasks.core.evidence.gate import GateEvidence, Judgement, judge, proved
from tasks.core.verdicts import Verdict
from tasks.data import DatasetRef, load
from tasks.presentation import descriptions
from tasks.presentation.records import Decision, Word
from tasks.settings import Settings
from tasks.tracking import RegisteredModel, Version, downloaded_model, model_name
from tasks.train import never_predicted
from tasks.verify import sample_for, verify_sample
from tasks.versions import decisions
from tasks.versions.decisions import NO_CHAMPION, check_not_champion, deciding, recorded, said

if TYPE_CHECKING:
    from tasks.evidence.demanded import Demanded

NOT_HELD = "its evidence does not hold"


@task(name="gate", cache_policy=NO_CACHE)
def gate(version: int, dataset: DatasetRef, settings: Settings) -> Decision:
    """Makes the version champion if it is no worse than the present one, on the same points.

    Both models are evaluated on the present test set and verified on a sample of it, the
    champion's own seed choosing; verdicts that are stored cost nothing. If another flow changes
    the champion meanwhile, the comparison begins anew with that one. With `promotion.audit` a
    version whose evidence does not hold is refused.

    Raises:
        CertiflowError: there is no such version, it is the champion already, or a point's
            verification ended in an error: nothing is decided then.
    """
    model = RegisteredModel(model_name(dataset.name))
    challenger = model.version(version)
    check_not_champion(model, challenger)
    model.challenge(challenger)
    evidence = _audited(challenger, dataset) if settings.promotion.audit else None
    while True:
        champion = model.champion()
        judgement = None if champion is None else _compare(challenger, champion, dataset, settings)
        with deciding(model):
            if model.champion_number() != (None if champion is None else champion.number):
                console.say("gate", "another flow changed the champion: comparing anew")
                continue
            decision = _decision(challenger, champion, judgement, settings, evidence)
            if decision.decision == "promoted":
                model.crown(challenger)
            recorded(model, decision)
        return _shown(decision)


@task(name="force", cache_policy=NO_CACHE)
def force(name: str, version: int, reason: str) -> Decision:
    """`decisions.force`, as a step of Prefect's."""
    return _shown(decisions.force(name, version, reason))


@task(name="rollback", cache_policy=NO_CACHE)
def roll_back(name: str, reason: str) -> Decision:
    """`decisions.roll_back`, as a step of Prefect's; what is said of the restored version."""
    taken, restored = decisions.roll_back(name, reason)
    _shown(taken)
    return _shown(restored)


@task(name="first champion", cache_policy=NO_CACHE)
def crown_first(version: int, dataset: DatasetRef, settings: Settings) -> Decision | None:
    """`decisions.crown_first`, as a step of Prefect's; with `promotion.audit` on its evidence."""
    name, evidence = model_name(dataset.name), None
    model = RegisteredModel(name)
    if settings.promotion.audit and decisions.is_first(model):
        found = _audited(model.version(version), dataset)
        if found.problem:
            console.warn(f"{name}/{version} is no champion: {NOT_HELD}: {found.problem}")
            return None
        evidence = found.sha256
    decision = decisions.crown_first(name, version, evidence)
    return None if decision is None else _shown(decision)


def _audited(version: Version, dataset: DatasetRef) -> Demanded:
    from tasks.evidence.demanded import demanded

    return demanded(version, dataset)


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
    from tasks.core.models.tolerance import answering

    data = load(dataset)
    model = answering(loading.load(downloaded_model(f"models:/{version}")), data)
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
    logits = model.runtime.logits(data.test_inputs.reshape(-1, *model.input_shape))
    predictions = logits.argmax(axis=1)
    return GateEvidence(
        clean=predictions == data.test_labels,
        certified=proved(found, deployed=settings.promotion.deployed),
        never_predicted=never_predicted(data, predictions),
    )


def _decision(
    challenger: Version,
    champion: Version | None,
    judgement: Judgement | None,
    settings: Settings,
    evidence: Demanded | None,
) -> Decision:
    name, number = challenger.model, challenger.number
    if evidence is not None and evidence.problem:
        against = None if champion is None else champion.number
        return said(name, number, "refused", f"{NOT_HELD}: {evidence.problem}", against)
    digest = None if evidence is None else evidence.sha256
    if champion is None or judgement is None:
        return said(name, number, "promoted", NO_CHAMPION, None, evidence=digest)
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
    return said(name, number, word, judgement.reason, champion.number, numbers, digest)


def _shown(decision: Decision) -> Decision:
    """The decision, which is an artifact in Prefect from now on."""
    create_markdown_artifact(
        descriptions.of_decision(decision),
        key="certiflow-decision",
        description=f"{decision.model}/{decision.version}: {decision.decision}",
    )
    return decision
