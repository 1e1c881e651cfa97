"""The settings of a run: frozen, complete, and refusing what they do not know."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from tasks.core.errors import CertiflowError
from tasks.core.files import sha256_of
from tasks.core.properties.domain import Word
from tasks.core.properties.perturbation import Scale
from tasks.core.sources import own_data
from tasks.core.sources.catalogue import SOURCES, is_table, load
from tasks.core.training.training_settings import TrainingSettings
from tasks.core.uris import without_passwords
from tasks.core.verdicts import Engine

if TYPE_CHECKING:
    from tasks.core.data.datasets import Dataset
    from tasks.core.execution.asking import Resources

DATASETS = tuple(SOURCES)


def _known_dataset(name: str) -> str:
    if name not in DATASETS and Path(name).suffix not in own_data.SUFFIXES:
        raise ValueError(
            f"expected {', '.join(DATASETS)}, or a path of your own: an .npz file of images, or "
            "the .yaml schema of a table (`certiflow schema DATA.csv` proposes one)"
        )
    return name


DatasetName = Annotated[str, AfterValidator(_known_dataset), Field(examples=list(DATASETS))]
Radius = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


def _ascending(epsilons: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(sorted(set(epsilons)))


Grid = Annotated[tuple[Radius, ...], Field(min_length=1), AfterValidator(_ascending)]
PositiveGrid = Annotated[
    tuple[Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)], ...],
    Field(min_length=1),
    AfterValidator(_ascending),
]


def _count_or_all(samples: Any) -> Any:
    if samples != "all" and not (isinstance(samples, int) and samples >= 1):
        raise ValueError("expected a number of test points, 1 or more, or all")
    return samples


Samples = Annotated[Annotated[int, Field(ge=1)] | Literal["all"], BeforeValidator(_count_or_all)]


# Settings that say where and how fast, not what.
WITHOUT_EFFECT: dict[str, Any] = {
    "tracking": True,
    "data": {"cache", "fallback"},
    "verification": {"workers", "cluster"},
    "radius": {"workers", "cluster"},
    "properties": {"workers", "cluster"},
}


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _without_passwords(cls, values: Any) -> Any:
        """Settings are stored where others read them: in MLflow, Prefect and config.yaml."""
        for key, value in values.items() if isinstance(values, dict) else ():
            if isinstance(value, str) and without_passwords(value) != value:
                raise ValueError(
                    f"{key} is {without_passwords(value)!r} with a user name or password before "
                    "its host: settings are stored where others read them: leave these out"
                )
        return values


class DataSettings(_Section):
    """Which data, what instead when no source answers, and what an attacker may do to a table.

    Attributes:
        scale: of a table, what a feature moves by at epsilon 1: its range or its standard
            deviation among the training rows, or 1 in its own unit.
        category_changes: of a table, how many categories an attacker may change.
        positive: the name of the class whose recall counts; None: as the data themselves say.
        completions: of a table of the user's own, what stands for a feature's empty cells in the
            place of its training rows' usual value, as numbers and names of categories.
    """

    dataset: DatasetName = "mnist"
    fallback: DatasetName | None = None
    cache: Path = Path("data")
    scale: Scale = "range"
    category_changes: int = Field(default=0, ge=0)
    positive: Word | None = None
    completions: dict[str, Word] = {}

    @model_validator(mode="after")
    def _fits(self) -> DataSettings:
        moves = (self.scale, self.category_changes)
        if moves != ("range", 0) and not is_table(self.dataset):
            raise ValueError(
                f"scale is '{self.scale}' and category_changes is "
                f"{self.category_changes}, but {self.dataset} is images, whose pixels move alike: "
                "leave both out, or choose a table"
            )
        if self.completions and not own_data.is_table(self.dataset):
            raise ValueError(
                f"completions has {', '.join(self.completions)}, but {self.dataset} has no empty "
                "cells: leave it out, or name the schema of a table of your own"
            )
        return self

    def __hash__(self) -> int:
        """Of the values, since a dict has none."""
        return hash(self.model_dump_json())

    @property
    def name(self) -> str:
        """The dataset's name: that of the file, for one of the user's own."""
        return self.dataset if self.dataset in DATASETS else Path(self.dataset).stem

    def load(self) -> Dataset:
        """The dataset, from the cache or the user's own file.

        Raises:
            CertiflowError: a file is missing or is not what it must be; there is no such class.
        """
        data = load(
            self.dataset,
            self.cache,
            scale=self.scale,
            most_changes=self.category_changes,
            completions=self.completions,
        )
        if self.positive is None:
            return data
        if data.tolerance is not None:
            raise CertiflowError(
                f"data.positive is '{self.positive}': {self.name} has a tolerance and no classes; "
                "leave it out"
            )
        return replace(data, positive=self.positive_label(data.class_names))

    def positive_label(self, class_names: Sequence[str]) -> int | None:
        """The label of `positive`; raises `CertiflowError` when no class has that name."""
        if self.positive is None:
            return None
        if self.positive not in class_names:
            raise CertiflowError(
                f"data.positive is '{self.positive}': expected one of {', '.join(class_names)}"
            )
        return class_names.index(self.positive)


class AttackSettings(_Section):
    """FGSM and PGD over a grid of radii, on the whole test set."""

    epsilons: Grid = (0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
    pgd_steps: int = Field(default=20, ge=1)
    pgd_restarts: int = Field(default=1, ge=1)
    batch_size: int = Field(default=1000, ge=1)


def _cluster_address(address: str) -> str:
    from tasks.core.execution.cluster import check_address

    try:
        check_address(address)
    except CertiflowError as error:
        raise ValueError(str(error)) from error
    return address


class Effort(_Section):
    """What a question may cost.

    `cluster` is the address of a Dask scheduler, such as `tcp://host:8786`, whose workers then take
    the place of this machine's solver processes.
    """

    engine: Engine = "ladder"
    timeout_seconds: float = Field(default=20, gt=0, allow_inf_nan=False)
    memory_limit_mb: int = Field(default=4096, ge=256)
    workers: int | None = Field(default=None, ge=1)
    cluster: Annotated[str, AfterValidator(_cluster_address)] | None = None

    @property
    def resources(self) -> Resources:
        """Where solvers run."""
        from tasks.core.execution.asking import Resources

        return Resources(self.num_workers, self.memory_limit_bytes, self.cluster)

    @property
    def num_workers(self) -> int:
        """As many as set, else one for every core this process may use."""
        return self.workers or len(os.sched_getaffinity(0))

    @property
    def memory_limit_bytes(self) -> int:
        """Of each solver process."""
        return self.memory_limit_mb * 2**20


class VerificationSettings(Effort):
    """Proofs for a stratified sample of test points, or `all`, over their own grid of radii.

    Marabou is asked about `witness_share` of the proofs of other stages, each for
    `witness_seconds`. With `certificates` every proof is found once more, within the same time, and
    written so that the independent checker passes it.
    """

    samples: Samples = 20
    epsilons: PositiveGrid = (0.005, 0.01, 0.02, 0.05)
    witness_share: float = Field(default=0.1, ge=0, le=1)
    witness_seconds: float = Field(default=5, gt=0, allow_inf_nan=False)
    certificates: bool = False

    def count_of(self, test_size: int) -> int:
        """How many of so many test points."""
        return test_size if self.samples == "all" else self.samples


class RadiusSettings(Effort):
    """Critical radii of a stratified sample of test points."""

    samples: int = Field(default=20, ge=1)
    max_epsilon: float = Field(default=0.3, gt=0, le=1)
    tolerance: float = Field(default=0.001, gt=0, le=1)


class GlobalSettings(Effort):
    """How much any score may change between two inputs of a domain that lie near each other.

    The domain is the box around the mean training image, or a typical row (means, whole numbers
    rounded, the most frequent categories, which stay), of half-width `domain_radius` times each
    feature's scale, within its bounds; a pixel's scale is 1. The two inputs differ by at most
    `delta` times the scale, and only in what is mutable: other numbers are anywhere in the domain,
    but the same in both. `epsilon` None asks for the least one that can be proved.
    """

    delta: float = Field(default=0.01, gt=0, le=1)
    epsilon: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    domain_radius: float = Field(default=0.1, gt=0, le=1)
    tolerance: float = Field(default=0.05, gt=0, allow_inf_nan=False)


class PropertySettings(Effort):
    """What is required of a table's features, around a stratified sample of test points.

    Attributes:
        monotone: features with which the score of `data.positive` must go `up` or `down`.
        fair: features on which the decision must not depend.
    """

    monotone: dict[str, Literal["up", "down"]] = {}
    fair: tuple[str, ...] = ()
    samples: int = Field(default=20, ge=1)
    epsilons: PositiveGrid = (0.01,)

    @model_validator(mode="after")
    def _asks_for_something(self) -> PropertySettings:
        if not (self.monotone or self.fair):
            raise ValueError("properties asks for nothing: set monotone or fair, or leave it out")
        return self


class PromotionSettings(_Section):
    """When a challenger takes the champion's place; see `tasks.versions.promotion`.

    Attributes:
        epsilon: the reference radius; None means the greatest of `verification.epsilons`.
        samples: test points that both models are verified on, or all where there are fewer.
        clean_margin: by how much clean accuracy may fall.
        significance: a fall of certified accuracy counts when its p-value is below this.
        deployed: whether only proofs count that hold for the float32 model as it is served.
        audit: whether a version must have evidence that holds, of which the decision names the
            digest.
    """

    epsilon: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    samples: int = Field(default=100, ge=1)
    clean_margin: float = Field(default=0.005, ge=0, le=1)
    significance: float = Field(default=0.05, gt=0, lt=1)
    deployed: bool = False
    audit: bool = False


class TrackingSettings(_Section):
    """Where evidence goes."""

    experiment: str = Field(default="certiflow", min_length=1)
    output: Path = Path("runs")


class _Command(_Section):
    """All settings of a command."""

    def flat(self) -> dict[str, Any]:
        """Dotted keys and plain values, as MLflow's params want them."""
        return {
            f"{section}.{key}" if isinstance(values, dict) else section: value
            for section, values in self.model_dump(mode="json").items()
            for key, value in (values if isinstance(values, dict) else {"": values}).items()
        }


class ModelSettings(_Command):
    """What is asked of a model that exists; the sections that are not asked are None."""

    model: str
    seed: int = Field(default=0, ge=0, lt=2**32)
    data: DataSettings = DataSettings()
    attack: AttackSettings = AttackSettings()
    verification: VerificationSettings | None = None
    radius: RadiusSettings | None = None
    global_robustness: GlobalSettings | None = None
    tracking: TrackingSettings = TrackingSettings()


class Settings(_Command):
    """All settings of a run."""

    seed: int = Field(default=0, ge=0, lt=2**32)
    data: DataSettings = DataSettings()
    training: TrainingSettings = TrainingSettings()
    attack: AttackSettings = AttackSettings()
    verification: VerificationSettings = VerificationSettings()
    radius: RadiusSettings | None = RadiusSettings()
    properties: PropertySettings | None = None
    promotion: PromotionSettings = PromotionSettings()
    tracking: TrackingSettings = TrackingSettings()

    @property
    def reference_epsilon(self) -> float:
        """The radius that versions are compared and promoted at."""
        return self.promotion.epsilon or self.verification.epsilons[-1]

    @property
    def attacked_epsilon(self) -> float:
        """The radius at which attacks are looked at closely: the defended one, if there is one."""
        return self.training.epsilon or self.reference_epsilon

    @property
    def fingerprint(self) -> str:
        """Digest of every setting that may change what a run finds."""
        values = self.model_dump(mode="json", exclude=WITHOUT_EFFECT)
        return sha256_of(json.dumps(values, sort_keys=True).encode())

    @property
    def title(self) -> str:
        """Dataset and network, such as `mnist dense-128`."""
        return f"{self.data.name} {self.training.name}"

    @property
    def slug(self) -> str:
        """The title for names of runs and folders, such as `mnist-dense-128`."""
        return self.title.replace(" ", "-")


class Study(_Section):
    """Configurations by name, to be compared: of one dataset, experiment and reference radius."""

    title: str
    configurations: dict[str, Settings]

    @model_validator(mode="after")
    def _comparable(self) -> Study:
        same: dict[str, Callable[[Settings], Any]] = {
            "data.dataset": lambda settings: settings.data.dataset,
            "data.fallback": lambda settings: settings.data.fallback,
            "tracking.experiment": lambda settings: settings.tracking.experiment,
            "the reference radius (promotion.epsilon, or the greatest of verification.epsilons)": (
                lambda settings: settings.reference_epsilon
            ),
        }
        for key, value in same.items():
            found = {name: value(each) for name, each in self.configurations.items()}
            if len(set(found.values())) > 1:
                listed = ", ".join(f"{name}: {each}" for name, each in found.items())
                raise ValueError(f"{key} differs between the configurations ({listed})")
        return self

    @property
    def any_settings(self) -> Settings:
        """One of the configurations, for what is the same in all."""
        return next(iter(self.configurations.values()))


def decimal(epsilon: float) -> str:
    """The shortest decimal form of a radius, for metric names and tables: 0.1, 0.00001, 0."""
    import numpy as np

    if not math.isfinite(epsilon):
        raise ValueError(f"epsilon is {epsilon}: expected a finite number")
    return np.format_float_positional(epsilon, trim="-")
