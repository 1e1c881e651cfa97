"""The main flow: download, train, attack, bound, verify, report."""

from __future__ import annotations

import os
from typing import Any

from prefect import flow, get_client, runtime

from flows.processes import environment
from tasks import console, tracking
from tasks.attack import bounds, fgsm, pgd
from tasks.core.errors import CertiflowError
from tasks.core.pairs.requirements import required
from tasks.core.sources.download import DatasetUnavailableError
from tasks.data import DatasetRef, download, load
from tasks.guarding.files import guard_files
from tasks.masking import masking
from tasks.presentation.data_card import write_card
from tasks.presentation.records import Summary
from tasks.radius import radius
from tasks.report import report
from tasks.requirements import properties
from tasks.settings import Settings, decimal
from tasks.train import ModelRef, train
from tasks.verify import verify
from tasks.versions.data_profile import write_profile
from tasks.versions.promotion import crown_first


def _flow_run_name() -> str:
    settings = runtime.flow_run.parameters["settings"]
    return Settings.model_validate(settings).title


@flow(name="robustness", flow_run_name=_flow_run_name, validate_parameters=True)
def robustness_flow(settings: Settings, fresh: bool = False, parent: str | None = None) -> Summary:
    """Trains a classifier and records how robust it is, and what of that is proved.

    The first version of a model is its champion; later ones are judged by the promote flow.
    `fresh` ignores verdicts and states of trainings that were stored before; `parent` is the MLflow
    run that this one is a part of.

    Raises:
        CertiflowError: one line saying what could not be done; the MLflow run is then FAILED and
            keeps what was done.
    """
    tags = run_tags(settings) | ({} if parent is None else {tracking.PARENT_TAG: parent})
    with tracking.tracked_run(settings.slug, settings.tracking, tags) as run:
        run.settings(settings)
        dataset = obtain_dataset(settings, run)
        summary = assess(settings, dataset, run, fresh)
        first = crown_first(int(summary.model_version), dataset, settings)
        return summary.model_copy(update={"champion": first is not None})


def assess(settings: Settings, dataset: DatasetRef, run: tracking.Run, fresh: bool) -> Summary:
    """Trains a model and finds out what holds of it: the way from the data to the version."""
    check_questions(settings, dataset)
    record_dataset(dataset, run)
    environment.load_keras()
    model = train(dataset, settings.training, settings.seed, run.ref, fresh)
    return judge(settings, dataset, model, run, fresh)


def judge(
    settings: Settings, dataset: DatasetRef, model: ModelRef, run: tracking.Run, fresh: bool
) -> Summary:
    """Finds out what holds of a model: the way from there to the version."""
    seed, ref = settings.seed, run.ref
    fgsm_file = fgsm(dataset, model, settings.attack, ref)
    pgd_file = pgd(dataset, model, fgsm_file, settings.attack, seed, ref)
    masking(dataset, model, settings.attacked_epsilon, seed, ref)
    bounds_file = bounds(dataset, model, fgsm_file, pgd_file, settings.attack, ref)
    verified_file = verify(
        dataset, model.file, settings.verification, settings.attack, seed, ref, fresh
    )
    radius_file = None
    if settings.radius is not None:
        radius_file = radius(dataset, model.file, settings.radius, seed, ref, fresh)
    guard_files(dataset, model, settings, ref)
    properties_file = None
    if settings.properties is not None:
        properties_file = properties(dataset, model.file, settings.properties, seed, ref, fresh)
    attack_files = (fgsm_file, pgd_file, bounds_file)
    questions = (verified_file, radius_file, properties_file)
    return report(dataset, model, attack_files, questions, settings, ref)


def run_tags(settings: Settings) -> dict[str, Any]:
    """What a run of the main flow can be found by in MLflow."""
    return {
        "dataset": settings.data.name,
        "dataset.requested": settings.data.name,
        "architecture": settings.training.name,
        "defence": settings.training.defence,
        "git.commit": tracking.git_commit(),
        tracking.FLOW_RUN_TAG: runtime.flow_run.id,
        "seed": settings.seed,
        "settings.sha256": settings.fingerprint,
        "reference_epsilon": decimal(settings.reference_epsilon),
        tracking.INVOCATION_TAG: os.environ.get("CERTIFLOW_INVOCATION", "none"),
    }


def record_dataset(dataset: DatasetRef, run: tracking.Run) -> None:
    """The dataset as an input of the run, with the profile that later data are compared with."""
    data = load(dataset)
    run.tags({"dataset": dataset.name, "dataset.sha256": dataset.sha256})
    run.dataset(data)
    write_profile(data, run)
    write_card(data, run)


def obtain_dataset(settings: Settings, run: tracking.Run) -> DatasetRef:
    """The dataset asked for, or the fallback, loudly, when no source of it answers."""
    requested, fallback = settings.data.dataset, settings.data.fallback
    try:
        dataset = download(settings.data)
    except DatasetUnavailableError as error:
        if fallback is None or fallback == requested:
            raise
        console.warn(f"{error}. Using {fallback} INSTEAD OF {requested}.")
        used = settings.model_copy(
            update={"data": settings.data.model_copy(update={"dataset": fallback})}
        )
        dataset = download(used.data)
        run.rename(settings.slug, used.slug)
        _rename_flow_run(used.title)
    return dataset


def check_questions(settings: Settings, dataset: DatasetRef) -> None:
    """Before the training, not after it."""
    if settings.properties is not None:
        required(settings.properties.monotone, settings.properties.fair, load(dataset))
    for key in ("verification", "radius", "properties"):
        section = getattr(settings, key)
        if section is None or section.samples == "all":
            continue
        if section.samples > dataset.test_size:
            raise CertiflowError(
                f"{key}.samples is {section.samples}: expected at most {dataset.test_size}, "
                f"the size of {dataset.name}'s test set"
            )


def _rename_flow_run(name: str) -> None:
    with get_client(sync_client=True) as client:
        client.set_flow_run_name(runtime.flow_run.id, name)
