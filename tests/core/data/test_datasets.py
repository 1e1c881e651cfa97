"""Samples of a dataset: stratified, seeded, nested."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.core.data.datasets import Dataset, stratified_sample
from tasks.core.errors import CertiflowError


def test_sample_is_stratified_seeded_and_nested(digits: Dataset) -> None:
    small = stratified_sample(digits.test_labels, 25, seed=3)
    assert (np.bincount(digits.test_labels[small], minlength=10) >= 2).all()
    assert len(set(small)) == 25
    np.testing.assert_array_equal(small, np.sort(small))
    np.testing.assert_array_equal(small, stratified_sample(digits.test_labels, 25, seed=3))
    assert set(small) <= set(stratified_sample(digits.test_labels, 60, seed=3))
    assert set(small) != set(stratified_sample(digits.test_labels, 25, seed=4))
    assert len(stratified_sample(digits.test_labels, 360, seed=0)) == 360


@pytest.mark.parametrize("count", [0, 361])
def test_sample_of_a_wrong_size(count: int, digits: Dataset) -> None:
    with pytest.raises(CertiflowError, match=f"verification.samples is {count}: expected 1 to 360"):
        stratified_sample(digits.test_labels, count, seed=0)
