"""What is looked at before anything starts."""

from __future__ import annotations

import pytest

from flows.actions.looking import extent_of, short_name
from tasks.settings import DataSettings


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("nets/other.keras", "other"),
        ("models:/net/3", "net-3"),
        ("models:/net@champion", "net-champion"),
        ("runs:/abc/model", "abc-model"),
    ],
)
def test_a_model_is_told_by_a_name_that_says_which(model: str, name: str) -> None:
    assert short_name(model) == name


def test_the_positive_class_is_known_without_the_files() -> None:
    """That of the settings, else that of the data."""
    assert extent_of(DataSettings(dataset="pneumonia")).positive == 1
    assert extent_of(DataSettings(dataset="pneumonia", positive="normal")).positive == 0
    assert extent_of(DataSettings(dataset="mnist")).positive is None
