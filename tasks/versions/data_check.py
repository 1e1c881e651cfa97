"""The data check of a retraining: what is new, and has it drifted from the champion's data?"""

from __future__ import annotations

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from tasks import console
from tasks.core.data import drift
from tasks.core.data.drift import DataProfile
from tasks.core.errors import CertiflowError
from tasks.data import DatasetRef, load
from tasks.presentation.records import DataCheck
from tasks.settings import Settings
from tasks.tracking import DECISION, RegisteredModel, Version, model_name, run_of
from tasks.versions.data_profile import profile_of, recorded_profile


@task(name="check data", cache_policy=NO_CACHE)
def check_data(dataset: DatasetRef, settings: Settings) -> DataCheck:
    """Compares the data with the champion's training data and with what was judged before.

    Raises:
        CertiflowError: the inputs' shape, a table's columns or the set of labels is another than
            the champion's: such models cannot be compared.
    """
    model = RegisteredModel(model_name(dataset.name))
    champion = model.champion()
    old = None if champion is None or not champion.run_id else recorded_profile(run_of(champion))
    new = profile_of(load(dataset), old)
    if champion is not None and old is not None:
        _check_comparable(dataset, new, old, champion)
    check = DataCheck(
        dataset=dataset.name,
        sha256=dataset.sha256,
        champion=None if champion is None else champion.number,
        changed=champion is None or champion.tags.get("dataset.sha256") != dataset.sha256,
        drift=None if old is None else drift.drift(new, old),
        judged=_judged(model, dataset, settings),
    )
    console.say("data", check.sentence)
    if check.drift is not None and check.drift.word == "major":
        console.warn(f"{check.sentence}: the champion may no longer fit what it meets")
    create_markdown_artifact(check.sentence, key="certiflow-data-check")
    return check


def _check_comparable(
    dataset: DatasetRef, new: DataProfile, old: DataProfile, champion: Version
) -> None:
    for what, ours, theirs in (
        ("inputs of shape", new.shape, old.shape),
        ("labels from 0 to", len(new.labels) - 1, len(old.labels) - 1),
        ("columns", ", ".join(new.features), ", ".join(old.features)),
    ):
        if ours != theirs:
            raise CertiflowError(
                f"{dataset.source} has {what} {ours}, the data of champion {champion} {theirs}: "
                "they cannot be compared; give the new data a name of their own"
            )


def _judged(model: RegisteredModel, dataset: DatasetRef, settings: Settings) -> int | None:
    same = {"dataset.sha256": dataset.sha256, "settings.sha256": settings.fingerprint}
    for version in model.versions():
        if DECISION in version.tags and same.items() <= version.tags.items():
            return version.number
    return None
