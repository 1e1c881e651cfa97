"""What a `.keras` archive says of its model, without Keras, which takes seconds to import."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core.errors import CertiflowError

KERAS_SUFFIX = ".keras"
CONFIG, WEIGHTS = "config.json", "model.weights.h5"
SEEDS = "seed_generator"  # states of random layers, no parameters

Config = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Archive:
    """The model's own entry, with its layers' entries in `config.layers`, and its size."""

    model: Config
    parameters: int

    @property
    def numbered(self) -> dict[int, Config]:
        """Every layer but inputs, by its number in Keras's list, which has those of graphs only."""
        every = self.model["config"]["layers"]
        if kind(self.model) == "Sequential":
            every = [each for each in every if kind(each) != "InputLayer"]
        return {
            number: each for number, each in enumerate(every, start=1) if kind(each) != "InputLayer"
        }

    @property
    def layers(self) -> list[Config]:
        """The layers without their numbers."""
        return list(self.numbered.values())

    @property
    def inputs(self) -> list[Config]:
        """The settings of the inputs."""
        layers = self.model["config"]["layers"]
        return [each["config"] for each in layers if kind(each) == "InputLayer"]

    @property
    def last(self) -> Config | None:
        """The layer that gives the one output; None where there are several."""
        if kind(self.model) == "Sequential":
            return self.layers[-1]
        names = self.model["config"]["output_layers"]
        if len(names) == 3 and isinstance(names[0], str):
            names = [names]
        if len(names) != 1:
            return None
        (found,) = [each for each in self.layers if each["config"]["name"] == names[0][0]]
        return found


def kind(entry: Config) -> str:
    """The class of a layer or model."""
    return str(entry["class_name"])


def read_config(path: Path) -> Config:
    """The model's entry. Raises `CertiflowError` when the file is no archive of Keras 3."""
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read(CONFIG))
    except (OSError, zipfile.BadZipFile, ValueError, KeyError) as error:
        raise CertiflowError(
            f"{path}: Keras cannot load this model: it is no archive of Keras 3 ({error}); "
            "give a whole file as `model.save('….keras')` writes it"
        ) from error
    if not isinstance(config, dict):
        raise CertiflowError(f"{path}: Keras cannot load this model: {CONFIG} is no model's")
    return config


def read_archive(path: Path) -> Archive:
    """Raises `CertiflowError` when the file is no archive of Keras 3."""
    import h5py

    model = read_config(path)
    sizes: list[int] = []

    def count(name: str, entry: Any) -> None:
        if isinstance(entry, h5py.Dataset) and SEEDS not in name:
            sizes.append(int(entry.size))

    try:
        with (
            zipfile.ZipFile(path) as archive,
            h5py.File(io.BytesIO(archive.read(WEIGHTS))) as weights,
        ):
            weights["layers"].visititems(count)
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise CertiflowError(f"{path}: Keras cannot load this model's weights ({error})") from error
    return Archive(model, sum(sizes))
