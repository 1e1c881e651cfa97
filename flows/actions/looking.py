"""What is looked at before anything is started: a wrong word costs a second, and leaves no run."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from flows.actions.verify_command import MLFLOW_URIS, model_path
from flows.configuration import causes, describe
from tasks.core.data.datasets import Extent
from tasks.core.data.schema import Schema, read_schema
from tasks.core.errors import CertiflowError
from tasks.core.files import plain
from tasks.core.models.inspection import check_fit, ends
from tasks.core.pairs.near_pairs import near_pairs
from tasks.core.pairs.requirements import required
from tasks.core.sources.catalogue import SOURCES
from tasks.core.sources.own_data import is_table
from tasks.settings import DataSettings, Effort, ModelSettings, Settings

NNET_SUFFIX = ".nnet"


def look_at_settings(*runs: Settings) -> None:
    """The data that training will need, as far as they are on this machine; folder and cluster.

    Raises:
        CertiflowError: a file of the user's own that is no dataset; training that needs images and
            rows of a table, or classes and a target that is a number; more samples than test
            points; a folder that cannot be written; a cluster that does not answer.
    """
    for settings in runs:
        settings.training.check_data(extent_of(settings.data))
        _look_at_questions(settings)


def look_at_model(
    model: str, data: dict[str, Any], seed: int, sections: dict[str, Any]
) -> tuple[ModelSettings, Path]:
    """The settings for the `sections` of `ModelSettings` asked, of `DataSettings`, and the file.

    Raises:
        CertiflowError: a value out of range, named; as `look_at_settings`; no two inputs differ
            that global robustness is asked of; there is no such model, it cannot be read or
            verified, or it has other inputs or outputs than the dataset.
    """
    values = {"model": model, "seed": seed, "data": data} | sections
    try:
        settings = ModelSettings.model_validate(values)
    except ValidationError as error:
        raise CertiflowError("; ".join(describe(detail) for detail in causes(error))) from error
    completed = completed_for(model, settings.data)
    settings = settings.model_copy(update={"data": completed})
    name, extent = settings.data.name, extent_of(settings.data)
    for section in (settings.verification, settings.radius):
        if section is not None:
            check_samples("--samples", section.samples, name, extent)
    _check_pairs(settings)
    _check_folder(settings.tracking.output)
    _check_clusters(settings.verification, settings.radius, settings.global_robustness)
    file = plain(model_path(model))
    check_fit(ends(file), name, extent)
    return settings, file.absolute()


def look_at_evaluation(model: str, settings: Settings) -> tuple[Settings, Path]:
    """The settings that ask for it, completed for the model, and the file that is evaluated.

    Raises:
        CertiflowError: as `look_at_settings`, but for the training, and `look_at_model`; a model
            that MLflow has no form for.
    """
    completed = completed_for(model, settings.data)
    settings = settings.model_copy(update={"data": completed})
    _look_at_questions(settings)
    file = plain(model_path(model))
    if file.suffix.lower() == NNET_SUFFIX:
        raise CertiflowError(
            f"{file}: MLflow keeps Keras and ONNX models only: convert it to ONNX, or ask about it "
            "with `certiflow verify`"
        )
    check_fit(ends(file), settings.data.name, extent_of(settings.data))
    return settings, file.absolute()


def completed_for(model: str, data: DataSettings) -> DataSettings:
    """The data with their empty cells taken to be what they were when the model was trained.

    That is known of models in MLflow; what the settings say themselves goes first.

    Raises:
        CertiflowError: no such model or schema, or what is recorded of it cannot be read.
    """
    if not (model.startswith(MLFLOW_URIS) and is_table(data.dataset)):
        return data
    schema = read_schema(Path(data.dataset), Schema)
    if schema.missing == "error":
        return data
    from tasks.versions.data_profile import completions_of

    recorded = completions_of(model)
    names = [feature.name for feature in schema.features if feature.name in recorded]
    known = {name: recorded[name] for name in names} | data.completions
    return data.model_copy(update={"completions": known})


def short_name(model: str) -> str:
    """What tables call a model: its file's name, of `models:/net/3` and `models:/net@best` both."""
    if model.startswith(MLFLOW_URIS):
        return re.sub(r"[/@]+", "-", model.partition(":/")[2].strip("/"))
    return Path(model).stem


def data_named(dataset: str, **moves: Any) -> DataSettings:
    """Of a dataset, schema or file by its name, and how its rows may move.

    Raises `CertiflowError` when it is none, or has no such moves.
    """
    try:
        return DataSettings(dataset=dataset, **moves)
    except ValidationError as error:
        said = [describe(detail).removeprefix("settings: ") for detail in causes(error)]
        raise CertiflowError("; ".join(f"--data: {each}" for each in said)) from error


def extent_of(data: DataSettings) -> Extent:
    """Of a dataset by name without its files, which may not be here yet."""
    if data.dataset in SOURCES:
        source = SOURCES[data.dataset]
        asked = data.positive_label(source.class_names)
        return source.extent if asked is None else replace(source.extent, positive=asked)
    return data.load().extent


def _look_at_questions(settings: Settings) -> None:
    name, extent = settings.data.name, extent_of(settings.data)
    for key in ("verification", "radius", "properties"):
        section = getattr(settings, key)
        if section is not None:
            check_samples(f"{key}.samples", section.samples, name, extent)
    if settings.properties is not None and settings.data.dataset not in SOURCES:
        asked = settings.properties
        required(asked.monotone, asked.fair, settings.data.load())
    _check_folder(settings.tracking.output)
    _check_clusters(settings.verification, settings.radius, settings.properties)


def check_samples(key: str, samples: int | Literal["all"], name: str, data: Extent) -> None:
    """Raises `CertiflowError` where there are fewer test points than are asked for."""
    if samples != "all" and samples > data.test_size:
        raise CertiflowError(
            f"{key} is {samples}: expected at most {data.test_size}, the size of {name}'s test set"
        )


def _check_pairs(settings: ModelSettings) -> None:
    """Of data of the user's own, whose features may be such that no two inputs differ."""
    asked = settings.global_robustness
    if asked is not None and settings.data.dataset not in SOURCES:
        near_pairs(settings.data.load(), asked.domain_radius, asked.delta)


def _check_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CertiflowError(
            f"{folder}: {error.strerror}: make it writable, free some space, or choose another "
            "folder with tracking.output"
        ) from error


def _check_clusters(*sections: Effort | None) -> None:
    for address in {section.cluster for section in sections if section is not None}:
        if address is not None:
            from tasks.core.execution.cluster import check_answer

            check_answer(address)
