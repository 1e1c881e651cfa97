"""Who is champion, as flows: the gate, a person's word, and the way back."""

from __future__ import annotations

from prefect import flow

from flows.configuration import data_of, recorded_settings
from flows.processes import environment
from tasks.core.errors import CertiflowError
from tasks.data import download
from tasks.presentation.records import Decision
from tasks.settings import DATASETS
from tasks.tracking import PREFIX, RegisteredModel, find_version, model_meant, run_of
from tasks.versions.promotion import force, gate, roll_back


@flow(name="promote", flow_run_name="{version}")
def promote_flow(version: str, reason: str | None = None) -> Decision:
    """Judges a version, or makes it champion on a person's word when there is a `reason`.

    `version` is `certiflow-mnist/3`, an alias, or `3` of the model of the newest version. It is
    judged by the settings of its own run.

    Raises:
        CertiflowError: there is no such version; it is the champion; its data cannot be had.
    """
    found = find_version(version)
    if found is None:
        raise CertiflowError(f"{version}: expected a version such as 3 or {PREFIX}mnist/3")
    if reason is not None:
        return force(found.model, found.number, reason)
    settings = recorded_settings(run_of(found))
    trained_on = found.model.removeprefix(PREFIX)
    data = data_of(settings, trained_on)
    if data.dataset not in DATASETS and settings.data.name != trained_on:
        raise CertiflowError(f"{found}: its run was not made for {trained_on}; use --force")
    dataset = download(data)
    if settings.promotion.audit or RegisteredModel(found.model).champion_number() is not None:
        environment.load_keras()
    return gate(found.number, dataset, settings)


@flow(name="rollback", flow_run_name="{model}")
def rollback_flow(reason: str, model: str | None = None) -> Decision:
    """Makes the previous champion of `model`, or of the newest version's, the champion again.

    Raises:
        CertiflowError: there is no such model, no champion, or none before it.
    """
    return roll_back(model_meant(model), reason)
