"""What a training is: architecture, defence and schedule, complete and checked."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.core.data.datasets import Extent
from tasks.core.errors import CertiflowError
from tasks.core.training.architectures import Architecture, describe

Defence = Literal["none", "fgsm", "pgd", "trades", "ibp", "crown_ibp", "sabr"]
ATTACKED: tuple[Defence, ...] = ("fgsm", "pgd", "trades")
CERTIFIED: tuple[Defence, ...] = ("ibp", "crown_ibp", "sabr")

IMAGE_AXES = (2, 3)  # without channels, and with them
HALF = 0.5  # the probability at which the greater of two logits decides

MAX_EPSILON = 0.5  # beyond it every pixel can be moved to one grey, and all images to one

# What each kind of defence takes where the settings do not say.
MOST_EPOCHS = 1_000_000
RAMP_SHARE = 0.4  # of the epochs, for certified training
TRADES_WEIGHT = 6.0  # 1/lambda of Zhang et al. 2019

Radius = Annotated[float, Field(gt=0, le=MAX_EPSILON, allow_inf_nan=False)]


class TrainingSettings(BaseModel):
    """The network and how it is trained.

    The radius trained on is 0 for `warmup_epochs`, then grows linearly for `ramp_epochs` to
    `training_epsilon`; the robust loss's weight goes from `robust_weight_start` to `robust_weight`
    over the ramp. What is left out is filled in by the defence, so that the settings of a run are
    complete.

    Attributes:
        epsilon: the L-infinity radius defended, in pixel units; None without a defence. Validation
            measures at it.
        training_epsilon: at the ramp's end; `epsilon` where it is left out. Networks trained on
            greater boxes may be proved on more of the smaller ones (Shi et al. 2021).
        attack_steps: of the attack inside `pgd`, `trades` and `sabr`.
        subselection_ratio: how much of epsilon the box of `sabr` has: 1 is `ibp`, 0 would be `pgd`.
        learning_rate_decay: `cosine` lets it fall to zero between the ramp's end and the last epoch
            (Loshchilov and Hutter 2017, without restarts).
        shift: augmentation: every image is moved by up to so many pixels each way, at random.
        normalise: tables get a first layer that takes raw values to mean 0 and variance 1 over the
            training inputs; images never do.
        batch_normalisation: between the layers and their ReLUs; folded for proofs.
        class_weights: `balanced` gives every class the same share of the loss, clean and robust.
        decision_threshold: the probability of `data.positive`, one of two classes, above which the
            trained model decides for it; a part of the model, and of all that is asked of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    architecture: Architecture = "dense"
    hidden: tuple[Annotated[int, Field(ge=1, le=8192)], ...] = (128,)
    defence: Defence = "none"
    epsilon: Radius | None = None
    training_epsilon: Radius | None = None
    attack_steps: int = Field(default=10, ge=1)
    subselection_ratio: float = Field(default=0.4, gt=0, le=1)
    robust_weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    robust_weight_start: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    warmup_epochs: float = Field(default=0, ge=0, allow_inf_nan=False)
    ramp_epochs: float = Field(default=0, ge=0, allow_inf_nan=False)
    epochs: int = Field(default=5, ge=1, le=MOST_EPOCHS)
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=0.001, gt=0, allow_inf_nan=False)
    learning_rate_decay: Literal["none", "cosine"] = "none"
    shift: int = Field(default=0, ge=0)
    normalise: bool = True
    batch_normalisation: bool = False
    class_weights: Literal["none", "balanced"] = "none"
    decision_threshold: float = Field(default=HALF, gt=0, lt=1)
    validation_fraction: float = Field(default=0.1, ge=0, lt=1)
    restore_best_epoch: bool = False

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        defence = given.get("defence", "none")
        weight = TRADES_WEIGHT if defence == "trades" else 1.0
        filled: dict[str, Any] = {"robust_weight": weight} | given
        filled.setdefault("robust_weight_start", filled["robust_weight"])
        if filled.get("training_epsilon") is None:
            filled["training_epsilon"] = filled.get("epsilon")
        epochs = filled.get("epochs", cls.model_fields["epochs"].default)
        if defence in CERTIFIED and isinstance(epochs, int) and epochs <= MOST_EPOCHS:
            filled.setdefault("ramp_epochs", RAMP_SHARE * epochs)
        return filled

    @model_validator(mode="after")
    def _defence_has_its_radius(self) -> TrainingSettings:
        if (self.defence == "none") != (self.epsilon is None):
            raise ValueError(
                "defence 'none' takes no epsilon: leave it out, or choose a defence"
                if self.defence == "none"
                else f"defence '{self.defence}' needs an epsilon, the radius it defends"
            )
        if (self.training_epsilon is None) != (self.epsilon is None):
            raise ValueError(
                f"training_epsilon is {self.training_epsilon}: it is the radius that a defence "
                "trains on, beside its epsilon: leave it out without one"
            )
        if self.defence != "trades" and max(self.robust_weight, self.robust_weight_start) > 1:
            raise ValueError(
                "robust_weight is the robust loss's share of the loss: expected at most 1 (only "
                "'trades' adds its robust loss to the clean one)"
            )
        return self

    @model_validator(mode="after")
    def _schedule_fits(self) -> TrainingSettings:
        scheduled = self.warmup_epochs + self.ramp_epochs
        if scheduled > self.epochs:
            raise ValueError(
                f"warmup_epochs {self.warmup_epochs:g} + ramp_epochs {self.ramp_epochs:g} are "
                f"longer than the training of {self.epochs} epochs, which would never reach full "
                "epsilon: shorten them, or train longer"
            )
        return self

    @model_validator(mode="after")
    def _validation_is_there(self) -> TrainingSettings:
        needs = {"restore_best_epoch": self.restore_best_epoch, "fgsm": self.defence == "fgsm"}
        for name, asked in needs.items():
            if asked and self.validation_fraction == 0:
                raise ValueError(f"{name} needs a validation_fraction above 0")
        return self

    def check_data(self, data: Extent) -> None:
        """Raises `CertiflowError` where a setting needs classes, a positive one, or images."""
        if data.num_outputs == 1:
            raise CertiflowError(
                "the target is a number, and certiflow trains classifiers: train a model with one "
                "linear output elsewhere, then `certiflow evaluate MODEL --data SCHEMA`"
            )
        is_of_two = data.num_outputs == 2 and data.positive is not None
        if self.decision_threshold != HALF and not is_of_two:
            raise CertiflowError(
                f"training.decision_threshold is {self.decision_threshold:g}: it is a probability "
                "of the positive one of two classes: set data.positive, or leave it out"
            )
        if len(data.input_shape) in IMAGE_AXES:
            return
        shape = f"inputs of shape {data.input_shape} are rows of a table"
        if self.architecture != "dense":
            raise CertiflowError(
                f"training.architecture is {self.architecture}, which needs images; {shape}: "
                "choose dense"
            )
        if self.shift:
            raise CertiflowError(
                f"training.shift is {self.shift}, which moves images; {shape}: leave it out"
            )

    @property
    def name(self) -> str:
        """Of the network, for runs and tables: `dense-128`, `cnn_small-100 ibp-0.1`."""
        parts = [describe(self.architecture, self.hidden) + "-bn" * self.batch_normalisation]
        if self.epsilon is not None:
            parts.append(f"{self.defence}-{self.epsilon:g}")
        return " ".join(parts)

    @property
    def is_certified(self) -> bool:
        """Whether bounds, not attacks, are trained on."""
        return self.defence in CERTIFIED

    @property
    def is_attacked(self) -> bool:
        """Whether the training attacks its own images."""
        return self.defence in ATTACKED
