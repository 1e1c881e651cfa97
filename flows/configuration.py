"""YAML files and `--set` overrides read into `Settings`, with errors that name the key."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tasks import console
from tasks.core.errors import CertiflowError
from tasks.core.yaml_files import parsed_yaml, read_yaml, shown
from tasks.guarding.settings import GuardSettings
from tasks.settings import DataSettings, Settings, Study

if TYPE_CHECKING:
    from tasks.tracking import RunRecord  # MLflow takes seconds to import


def load_settings(path: Path, overrides: Sequence[str] = ()) -> tuple[Settings, list[str]]:
    """The settings in a YAML file, with `section.key=value` overrides on top, and notes.

    The notes say what was changed in what the user wrote, one line each.

    Raises:
        CertiflowError: one line naming the file or key, what was expected and what is allowed.
    """
    values = _read_yaml(path)
    for override in overrides:
        _apply(values, override)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise CertiflowError(_refusal(path, overrides, error, Settings)) from error
    return settings, _grid_notes(values, settings)


def load_guard_settings(
    path: Path, overrides: Sequence[str], given: dict[str, Any]
) -> GuardSettings:
    """A guarded service's: a file's values, `key=value` on top, and then those `given` by name.

    Raises:
        CertiflowError: as `load_settings`.
    """
    values = _read_yaml(path)
    for override in overrides:
        _apply(values, override)
    try:
        return GuardSettings.model_validate(values | given)
    except ValidationError as error:
        raise CertiflowError(_refusal(path, overrides, error, GuardSettings)) from error


def load_settings_aloud(path: Path, overrides: Sequence[str]) -> Settings:
    """`load_settings`, with its notes as warnings."""
    settings, notes = load_settings(path, overrides)
    for note in notes:
        console.warn(note)
    return settings


def load_study(path: Path, overrides: Sequence[str]) -> Study:
    """A study: YAML with `title`, `configurations` and `set`.

    The configurations are settings files relative to it; `set` holds overrides for all of them, and
    `overrides` go on top.

    Raises:
        CertiflowError: as `load_settings`; two configurations cannot be compared.
    """
    values = _read_yaml(path)
    files, common = values.get("configurations"), values.get("set", [])
    keys_fit = set(values) - {"set"} == {"title", "configurations"}
    if not (keys_fit and isinstance(files, list) and files and isinstance(common, list)):
        raise CertiflowError(
            f"{path}: not a study: expected 'title: …', 'configurations: [mnist.yaml, …]' and "
            "perhaps 'set: [verification.samples=50, …]', and nothing else"
        )
    common = [*map(str, common), *overrides]
    configurations = {
        Path(str(file)).stem: load_settings_aloud(path.parent / str(file), common) for file in files
    }
    if len(configurations) < len(files):
        raise CertiflowError(f"{path}: configurations {files}: two have the same name")
    try:
        return Study(title=str(values["title"]), configurations=configurations)
    except ValidationError as error:
        raise CertiflowError(f"{path}: {_message(error.errors()[0])}") from error


def recorded_settings(run: RunRecord) -> Settings:
    """The settings that a run of the main flow was made with.

    Raises:
        CertiflowError: the run has none, or they are of another version of certiflow.
    """
    path = run.artifact("config.yaml")
    if path is None:
        raise CertiflowError(f"run {run.name} has no config.yaml: it is no run of the main flow")
    try:
        return load_settings(path)[0]
    except CertiflowError as error:
        raise CertiflowError(
            f"the settings of run {run.name} do not fit this version of certiflow ({error})"
        ) from error


def data_of(settings: Settings, name: str) -> DataSettings:
    """Of a run on the dataset of that name: where those asked for could not be had, another's."""
    source = settings.data.dataset if settings.data.name == name else name
    return settings.data.model_copy(update={"dataset": source})


def _grid_notes(values: dict[str, Any], settings: Settings) -> list[str]:
    grids = {"attack": settings.attack.epsilons, "verification": settings.verification.epsilons}
    notes = []
    for section, used in grids.items():
        given = (values.get(section) or {}).get("epsilons")
        if given is not None and [float(epsilon) for epsilon in given] != list(used):
            notes.append(f"{section}.epsilons was sorted and duplicates dropped: {list(used)}")
    return notes


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = read_yaml(path)
    except FileNotFoundError as error:
        known = ", ".join(sorted(map(str, Path("conf").glob("*.yaml")))) or "none here"
        raise CertiflowError(f"{path}: no such settings file; in conf/: {known}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise CertiflowError(
            f"{path}: expected sections such as 'training:', found {shown(values)}"
        )
    return values


def _apply(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise CertiflowError(
            f"--set {override}: expected KEY=VALUE, such as verification.samples=50"
        )
    *sections, name = key.split(".")
    for section in sections:
        if values.get(section) is None:
            values[section] = {}
        values = values[section]
        if not isinstance(values, dict):
            raise CertiflowError(f"--set {override}: '{section}' is a value, not a section")
    try:
        values[name] = parsed_yaml(text)
    except CertiflowError as error:
        raise CertiflowError(
            f"--set {override}: the value cannot be read as YAML: {error}"
        ) from error


def _refusal(
    path: Path, overrides: Sequence[str], error: ValidationError, settings: type[BaseModel]
) -> str:
    """All that pydantic says, each of the override or the file that it comes from."""
    by_source: dict[str, list[ErrorDetails]] = {}
    for detail in causes(error):
        key = ".".join(map(str, detail["loc"])) + "."
        mine = [each for each in overrides if key.startswith(each.partition("=")[0] + ".")]
        if _is_unknown(detail):
            mine += [each for each in overrides if each.startswith(key)]
        by_source.setdefault(f"--set {mine[-1]}" if mine else str(path), []).append(detail)
    parts = []
    for source, details in by_source.items():
        unknown = {str(detail["loc"][0]) for detail in details if _is_unknown(detail)}
        if source == str(path) and settings is Settings and _is_of_a_service(unknown):
            parts.append(f"{source}: settings of a service: certiflow guard --conf {path}")
        else:
            parts.append(f"{source}: {'; '.join(_described(details, settings))}")
    return "; ".join(parts)


def causes(error: ValidationError) -> list[ErrorDetails]:
    """Without what merely follows: a list with a wrong item is also called too short."""
    details = error.errors()
    inner = [detail["loc"][:-1] for detail in details]
    return [each for each in details if each["type"] != "too_short" or each["loc"] not in inner]


def _is_unknown(detail: ErrorDetails) -> bool:
    return detail["type"] == "extra_forbidden"


def _is_of_a_service(unknown: set[str]) -> bool:
    """Whether the keys that no run has are a service's, which names its model."""
    return "model" in unknown and unknown <= set(GuardSettings.model_fields)


def _described(details: Sequence[ErrorDetails], settings: type[BaseModel]) -> list[str]:
    """Each, but what is allowed in a section only once."""
    said, told = list[str](), set[tuple[int | str, ...]]()
    for detail in details:
        section = detail["loc"][:-1]
        again = _is_unknown(detail) and section in told
        words = describe(detail, settings)
        said.append(words.partition("allowed are")[0].rstrip(": ") if again else words)
        told |= {section} if _is_unknown(detail) else set()
    return said


def describe(detail: ErrorDetails, settings: type[BaseModel] = Settings) -> str:
    """One error of pydantic's: the key, what it is, and what is allowed."""
    location = [str(part) for part in detail["loc"]]
    key = ".".join(location) or "settings"
    if _is_unknown(detail):
        allowed = _allowed_keys(location[:-1], settings)
        close = difflib.get_close_matches(location[-1], allowed, n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        return f"unknown key '{key}': {hint}allowed are {', '.join(allowed)}"
    if detail["type"] == "value_error" and isinstance(detail["input"], dict):
        return f"{key}: {_message(detail)}"  # of several keys, whose values the message has
    return f"{key} is {shown(detail['input'])}: {_message(detail)}"


def _message(detail: ErrorDetails) -> str:
    message = detail["msg"].removeprefix("Value error, ")
    return message[0].lower() + message[1:]


def _allowed_keys(sections: Sequence[str], model: type[BaseModel]) -> list[str]:
    for section in sections:
        annotation = model.model_fields[section].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
