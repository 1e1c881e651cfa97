"""The schedule's corners, by hand."""

from __future__ import annotations

import pytest

from tasks.core.training.schedule import scheduled
from tasks.core.training.training_settings import TrainingSettings

SETTINGS = TrainingSettings(
    defence="ibp",
    epsilon=0.2,
    epochs=10,
    warmup_epochs=1,
    ramp_epochs=4,
    robust_weight_start=0.5,
    robust_weight=1.0,
    learning_rate=0.01,
    learning_rate_decay="cosine",
)


@pytest.mark.parametrize(
    ("progress", "epsilon", "weight", "learning_rate"),
    [
        (0, 0, 0.5, 0.01),
        (1, 0, 0.5, 0.01),
        (3, 0.1, 0.75, 0.01),  # half of the ramp
        (5, 0.2, 1, 0.01),  # its end; the decay begins
        (7.5, 0.2, 1, 0.005),  # half of the decay: (1 + cos 90°) / 2
        (10, 0.2, 1, 0),
    ],
)
def test_corners(progress: float, epsilon: float, weight: float, learning_rate: float) -> None:
    now = scheduled(SETTINGS, progress)
    assert now.epsilon == pytest.approx(epsilon)
    assert now.robust_weight == pytest.approx(weight)
    assert now.learning_rate == pytest.approx(learning_rate, abs=1e-12)


def test_without_a_schedule_all_is_full_from_the_start() -> None:
    now = scheduled(TrainingSettings(defence="pgd", epsilon=0.1), 0.0)
    assert (now.epsilon, now.robust_weight, now.ramp) == (0.1, 1.0, 1.0)
    assert now.learning_rate == scheduled(TrainingSettings(), 5).learning_rate == 0.001


def test_the_radius_trained_on_may_exceed_the_one_defended() -> None:
    settings = TrainingSettings(defence="ibp", epsilon=0.2, training_epsilon=0.3, epochs=10)
    assert scheduled(settings, 2).epsilon == pytest.approx(0.15)  # half of a ramp of 4 epochs
    assert scheduled(settings, 10).epsilon == 0.3
    assert settings.name.endswith("ibp-0.2")
    filled_in = TrainingSettings(defence="ibp", epsilon=0.2, training_epsilon=None)
    assert filled_in.training_epsilon == 0.2


def test_certified_training_ramps_by_itself() -> None:
    """What is left out is filled in, so that recorded settings are complete."""
    assert TrainingSettings(defence="ibp", epsilon=0.1, epochs=50).ramp_epochs == 20
    assert TrainingSettings(defence="ibp", epsilon=0.1, epochs=50, ramp_epochs=3).ramp_epochs == 3
    trades = TrainingSettings(defence="trades", epsilon=0.1)
    assert (trades.robust_weight, trades.robust_weight_start) == (6, 6)
