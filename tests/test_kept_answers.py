"""A kept answer of the oracle is used for its own question only, and never trusted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tasks.core.arrays import FloatArray
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.specification import UnsafeRegion
from tests import kept_answers
from tests.kept_answers import ANEW, KeptAnswers, digest, oracle_digest
from tests.networks import box, hand_computed
from tests.oracle import least_excess_at

# y0 - y1 = relu(x1 + x2) + 1 - relu(x1 - x2) is least, -1, at (1, -1), and 1 at the origin
NETWORK = hand_computed()
REGION = UnsafeRegion(box([-1.0, -1.0], [1.0, 1.0]), np.array([[1.0, -1.0]]), np.zeros(1))


def unasked(network: ReluNetwork, region: UnsafeRegion) -> tuple[float, FloatArray]:
    raise NotImplementedError


def with_kept(folder: Path, value: float, point: list[float], *, its_turn: bool) -> KeptAnswers:
    answers, key = KeptAnswers(folder / "kept.json"), digest(NETWORK, REGION)
    answers.kept[key] = value, point
    answers.turn = int(key, 16) % ANEW if its_turn else -1
    return answers


def test_what_takes_long_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_answers, "LONG_SECONDS", -1.0)
    answers = KeptAnswers(tmp_path / "kept.json")
    answers.answer(NETWORK, REGION, least_excess_at)
    answers.save()
    again = KeptAnswers(tmp_path / "kept.json")
    again.turn = -1
    value, point = again.answer(NETWORK, REGION, unasked)
    assert value == pytest.approx(-1)
    np.testing.assert_allclose(point, [1, -1], atol=1e-6)


def test_they_are_those_of_the_oracle_as_it_is(pytestconfig: pytest.Config) -> None:
    """Else they would be computed again each time: `pytest --keep-answers` keeps them anew."""
    assert pytestconfig.getoption("keep_answers") or KeptAnswers().oracle == oracle_digest()


def test_another_question_is_asked(tmp_path: Path) -> None:
    answers = with_kept(tmp_path, -1.0, [1.0, -1.0], its_turn=False)
    moved = replace(REGION, offsets=np.full(1, 1e-9))
    wider = replace(REGION, box=box([-1.0, -1.0], [1.0, 1.0 + 1e-9]))
    for region in (moved, wider):
        with pytest.raises(NotImplementedError):
            answers.answer(NETWORK, region, unasked)


@pytest.mark.parametrize(
    ("value", "point"), [(-1.1, [1.0, -1.0]), (-0.9, [1.0, -1.0]), (-1.0, [1.0, -1.1])]
)
def test_a_point_must_attain_the_value(value: float, point: list[float], tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        with_kept(tmp_path, value, point, its_turn=False).answer(NETWORK, REGION, unasked)


def test_a_value_that_is_not_the_least_is_found_in_its_turn(tmp_path: Path) -> None:
    answers = with_kept(tmp_path, 1.0, [0.0, 0.0], its_turn=True)
    with pytest.raises(AssertionError, match="less is -1"):
        answers.answer(NETWORK, REGION, least_excess_at)
