"""The registered models: their versions, and which of them is the champion."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from filelock import FileLock, Timeout
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from tasks.core.errors import CertiflowError
from tasks.core.files import temporary_folder
from tasks.tracking.descriptions import (
    DECISIONS,
    TOLD_PREFIX,
    shortened,
    told_decisions,
    with_decisions,
    with_guard,
)
from tasks.tracking.store import first_line, local_database, open_store

PREFIX = "certiflow-"  # a registered model is named after its dataset
CHAMPION, CHALLENGER = "champion", "challenger"
DECISION_PREFIX = "promotion."  # of a version's tags about the last decision on it
DECISION = f"{DECISION_PREFIX}decision"  # what was decided
NEVER_PREDICTED = "never_predicted"  # names of classes that no test point is given
MODEL_SUFFIXES = (".keras", ".onnx")
HISTORY = "champions"  # tag of the registered model: the versions that were champion, oldest first
HISTORY_LENGTH = 100
LOCK_SECONDS = 60


@dataclass(frozen=True)
class Version:
    """A registered version as it was when it was read."""

    model: str
    number: int
    run_id: str
    description: str
    tags: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.model}/{self.number}"


class RegisteredModel:
    """The versions of one registered model and its aliases."""

    def __init__(self, name: str) -> None:
        open_store()
        self.name = name
        self._client = MlflowClient()

    def versions(self) -> list[Version]:
        """All versions, the newest first; none when the model is not registered."""
        found = self._client.search_model_versions(f"name = '{self.name}'")
        return sorted(map(_version, found), key=lambda version: -version.number)

    def version(self, number: int) -> Version:
        """Raises `CertiflowError` when there is no such version."""
        versions = {version.number: version for version in self.versions()}
        if number not in versions:
            known = ", ".join(map(str, sorted(versions))) or "none"
            raise CertiflowError(f"{self.name} has no version {number}; there are: {known}")
        return versions[number]

    def decision(self, number: int) -> dict[str, str]:
        """The tags about the last decision on a version; none where it is gone or undecided."""
        try:
            tags = self._client.get_model_version(self.name, str(number)).tags
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return {}
            raise
        return {key: value for key, value in tags.items() if key.startswith(DECISION_PREFIX)}

    def aliases(self) -> dict[str, int]:
        """Which version each alias means."""
        try:
            found = self._client.get_registered_model(self.name).aliases
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return {}
            raise
        return {alias: int(number) for alias, number in found.items()}

    def champion_number(self) -> int | None:
        """Of the version in service, if any."""
        return self.aliases().get(CHAMPION)

    def champion(self) -> Version | None:
        """The version in service, if any."""
        number = self.champion_number()
        return None if number is None else self.version(number)

    def previous_champion(self) -> int | None:
        """The version that was champion before the present one, and still exists."""
        champion = self.champion_number()
        existing = {version.number for version in self.versions()}
        earlier = [number for number in self._history(champion) if number in existing]
        return next((number for number in reversed(earlier) if number != champion), None)

    def challenge(self, version: Version) -> None:
        """Makes `version` the challenger."""
        self._client.set_registered_model_alias(self.name, CHALLENGER, str(version.number))

    def crown(self, version: Version) -> None:
        """Makes `version` the champion, in one step of the store, and notes whom it follows."""
        earlier = self._history(self.champion_number())
        self._client.set_registered_model_alias(self.name, CHAMPION, str(version.number))
        self._remember([*earlier, version.number])
        if self.aliases().get(CHALLENGER) == version.number:
            self._client.delete_registered_model_alias(self.name, CHALLENGER)

    def roll_back(self, version: Version) -> None:
        """Makes `version`, an earlier champion, the champion again, and forgets the later ones."""
        earlier = self._history(version.number)
        self._client.set_registered_model_alias(self.name, CHAMPION, str(version.number))
        self._remember(earlier)

    def annotate(self, version: Version, tags: Mapping[str, Any], paragraph: str) -> None:
        """Writes a decision's tags over those of the one before, and tells it.

        The description ends with the last decisions; all are kept, one a tag, oldest first.
        """
        number = str(version.number)
        for key in version.tags.keys() - tags.keys():
            if key.startswith(DECISION_PREFIX):
                self._client.delete_model_version_tag(self.name, number, key)
        for key, value in tags.items():
            self._client.set_model_version_tag(self.name, number, key, str(value))
        told = [*told_decisions(version.tags), paragraph]
        key = f"{TOLD_PREFIX}{len(told)}"
        self._client.set_model_version_tag(self.name, number, key, paragraph)
        own = self.version(version.number).description.partition(DECISIONS)[0]
        self._client.update_model_version(self.name, number, with_decisions(own, told))

    def describe_guard(self, version: Version, told: str, tags: Mapping[str, Any]) -> None:
        """Writes what was found of a version's guard into its description, and its key numbers."""
        number, now = str(version.number), self.version(version.number)
        for key, value in tags.items():
            self._client.set_model_version_tag(self.name, number, key, str(value))
        described = with_guard(now.description, told)
        self._client.update_model_version(self.name, number, described)

    def describe(self, markdown: str) -> None:
        """The description that the model's page shows."""
        self._client.update_registered_model(self.name, shortened(markdown))

    def _history(self, until: int | None) -> list[int]:
        """The champions up to `until`, which is the last; all when it never was one.

        A process that died between setting the alias and noting it leaves the tag behind the alias.
        """
        tag = self._client.get_registered_model(self.name).tags.get(HISTORY, "")
        numbers = [int(word) for word in tag.split() if word.isdigit()]
        if until is None or until not in numbers:
            return numbers if until is None else [*numbers, until]
        last = len(numbers) - numbers[::-1].index(until)
        return numbers[:last]

    def _remember(self, numbers: list[int]) -> None:
        tag = " ".join(map(str, numbers[-HISTORY_LENGTH:]))
        self._client.set_registered_model_tag(self.name, HISTORY, tag)


@contextmanager
def local_store_locked(name: str) -> Iterator[bool]:
    """Nobody else changes the model's champion in the block; False, with no lock, on a server.

    Raises:
        CertiflowError: another process holds the lock for too long.
    """
    database = local_database()
    if database is None:
        yield False
        return
    try:
        with FileLock(database.with_name(f".{database.name}.{name}.lock"), timeout=LOCK_SECONDS):
            yield True
    except Timeout as error:
        raise CertiflowError(
            f"{name}: another process has been deciding on its champion for {LOCK_SECONDS} s; "
            "wait for it, or end it"
        ) from error


def model_name(dataset: str) -> str:
    """Of the registered model for a dataset."""
    return f"{PREFIX}{dataset}"


def registered_models() -> list[str]:
    """Names of certiflow's registered models."""
    open_store()
    found = MlflowClient().search_registered_models(f"name LIKE '{PREFIX}%'")
    return sorted(model.name for model in found)


def model_meant(name: str | None = None) -> str:
    """The registered model of that name, or that of the newest version where none is named.

    Raises:
        CertiflowError: there is none of that name, or none at all.
    """
    names = registered_models()
    if names and name is None:
        return max(names, key=_newest)
    if not names:
        raise CertiflowError("registered models: none yet; `make run-flow` registers one")
    if name not in names:
        raise CertiflowError(f"{name}: expected one of the registered models: {', '.join(names)}")
    return name


def _newest(name: str) -> int:
    """When the model's newest version was registered; 0 when it has none."""
    found = MlflowClient().search_model_versions(f"name = '{name}'")
    return max((version.creation_timestamp for version in found), default=0)


def downloaded_model(uri: str) -> Path:
    """The model file behind `models:/name@alias`, `models:/name/3` or `runs:/…`, in a copy.

    The copy is removed when this process ends. Raises `CertiflowError` when the store does not
    answer, has no such model, or holds no single Keras or ONNX file under it.
    """
    open_store()
    folder = temporary_folder("certiflow-model-")
    try:
        found = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder)))
    except Exception as error:  # unknown URI, gone files and dead servers share no class
        raise _unavailable(uri, error) from error
    files = [found] if found.is_file() else sorted(found.rglob("*"))
    models = [path for path in files if path.suffix in MODEL_SUFFIXES]
    if len(models) != 1:
        names = ", ".join(path.name for path in models) or "none"
        raise CertiflowError(
            f"{uri}: expected one {' or '.join(MODEL_SUFFIXES)} file, found {names}"
        )
    return models[0]


def run_of_model(uri: str) -> str | None:
    """The id of the run that logged the model behind a URI as `downloaded_model` takes it, if any.

    Raises:
        CertiflowError: the store does not answer, or has no such model.
    """
    open_store()
    try:
        return mlflow.models.get_model_info(uri).run_id
    except Exception as error:  # as above
        raise _unavailable(uri, error) from error


def _unavailable(uri: str, error: Exception) -> CertiflowError:
    there, named = "", re.match("models:/([^/@]+)", uri)
    is_missing = getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST"
    if named and is_missing:  # the store answers
        numbers = [str(version.number) for version in RegisteredModel(named[1]).versions()]
        there = f"; {named[1]} has versions {', '.join(numbers)}" if numbers else ""
    return CertiflowError(
        f"{uri}: MLflow at {mlflow.get_tracking_uri()} cannot give this model "
        f"({first_line(error)}){there}; give models:/name@alias or models:/name/version"
    )


def _version(found: ModelVersion) -> Version:
    return Version(
        model=found.name,
        number=int(found.version),
        run_id=found.run_id or "",
        description=found.description or "",
        tags=dict(found.tags),
    )
