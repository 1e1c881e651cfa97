"""The main flow: download, train, attack, bound, verify, report."""

from __future__ import annotations

import os
from typing import Any

from prefect import flow, get_client, runtime

from tasks import console, tracking
from tasks.attack import bounds, fgsm, pgd
from tasks.core.download import DatasetUnavailableError
from tasks.core.errors import CertiflowError
from tasks.data import DatasetRef, download, load
from tasks.report import Summary, report
from tasks.settings import Settings
from tasks.train import train
from tasks.verify import verify


def _flow_run_name() -> str:
    settings = runtime.flow_run.parameters["settings"]
    return Settings.model_validate(settings).title


@flow(name="robustness", flow_run_name=_flow_run_name, validate_parameters=True)
def robustness_flow(settings: Settings, fresh: bool = False) -> Summary:
    """Trains a classifier and records how robust it is, and what of that is proved.

    `fresh` ignores verdicts that were stored before.

    Raises:
        CertiflowError: one line saying what could not be done; the MLflow run is then FAILED and
            keeps what was done.
    """
    with tracking.tracked_run(settings.slug, settings.tracking, _tags(settings)) as run:
        run.settings(settings)
        dataset = obtain_dataset(settings, run)
        model = train(dataset, settings.training, settings.seed, run.ref)
        fgsm_file = fgsm(dataset, model, settings.attack, run.ref)
        pgd_file = pgd(dataset, model, fgsm_file, settings.attack, settings.seed, run.ref)
        bounds_file = bounds(dataset, model, fgsm_file, pgd_file, settings.attack, run.ref)
        verified_file = verify(
            dataset,
            model.file,
            settings.verification,
            settings.attack,
            settings.seed,
            run.ref,
            fresh,
        )
        attack_files = (fgsm_file, pgd_file, bounds_file)
        return report(dataset, model, attack_files, verified_file, settings, run.ref)


def _tags(settings: Settings) -> dict[str, Any]:
    return {
        "dataset": settings.data.dataset,
        "dataset.requested": settings.data.dataset,
        "git.commit": tracking.git_commit(),
        "prefect.flow_run_id": runtime.flow_run.id,
        "seed": settings.seed,
        "invocation": os.environ.get("CERTIFLOW_INVOCATION", "none"),
    }


def obtain_dataset(settings: Settings, run: tracking.Run) -> DatasetRef:
    """The dataset asked for, or the fallback, loudly, when no source of it answers."""
    cache = settings.data.cache.absolute()
    requested, fallback = settings.data.dataset, settings.data.fallback
    try:
        dataset = download(requested, cache)
    except DatasetUnavailableError as error:
        if fallback is None or fallback == requested:
            raise
        console.warn(f"{error}. Using {fallback} INSTEAD OF {requested}.")
        dataset = download(fallback, cache)
        used = settings.model_copy(
            update={"data": settings.data.model_copy(update={"dataset": fallback})}
        )
        run.rename(settings.slug, used.slug)
        _rename_flow_run(used.title)
    if settings.verification.samples > dataset.test_size:
        raise CertiflowError(
            f"verification.samples is {settings.verification.samples}: expected at most "
            f"{dataset.test_size}, the size of {dataset.name}'s test set"
        )
    run.tags({"dataset": dataset.name, "dataset.sha256": dataset.sha256})
    run.dataset(load(dataset))
    return dataset


def _rename_flow_run(name: str) -> None:
    with get_client(sync_client=True) as client:
        client.set_flow_run_name(runtime.flow_run.id, name)
