"""Model cards: every claim in the front matter, and nothing of a name that is not text."""

from __future__ import annotations

import re

import pytest
import yaml

from tasks.core.bundle.described import DataDescription
from tasks.core.bundle.recount import Name, Number
from tasks.core.bundle.statement import Claim, claims
from tasks.core.data.datasets import Dataset
from tasks.core.errors import CertiflowError
from tasks.presentation.model_card import model_card, numbers_of

NUMBERS: dict[Name, Number] = {
    ("clean_accuracy", None): Number(0.9777777777777777, 360),
    ("pgd/robust_accuracy", 1e-05): Number(1e-05, 360),
    ("verification/certified_accuracy", 0.05): Number(0.6, 10),
}


@pytest.fixture
def data(digits: Dataset) -> DataDescription:
    return DataDescription.of(digits, "digits", (1, 2))


@pytest.fixture
def claimed(data: DataDescription) -> tuple[Claim, ...]:
    values = {name: number.value for name, number in NUMBERS.items()}
    return claims(values, NUMBERS, data, "2026-11-27", "somebody")


def test_numbers_come_back_in_all_their_digits(
    data: DataDescription, claimed: tuple[Claim, ...]
) -> None:
    card = model_card("certiflow-digits/1", "dense-16", data, claimed)
    assert dict(numbers_of(card)) == {name: number.value for name, number in NUMBERS.items()}


def test_the_front_matter_is_a_model_index(
    data: DataDescription, claimed: tuple[Claim, ...]
) -> None:
    card = model_card("certiflow-digits/1", "dense-16", data, claimed)
    front = yaml.safe_load(card.split("---\n")[1])
    (model,) = front["model-index"]
    (result,) = model["results"]
    assert model["name"] == "certiflow-digits/1"
    assert result["task"] == {"type": "image-classification"}
    assert result["dataset"]["revision"] == data.sha256
    assert {"type", "value", "args"} == set(result["metrics"][0])


def test_sampled_shares_have_their_interval(
    data: DataDescription, claimed: tuple[Claim, ...]
) -> None:
    card = model_card("certiflow-digits/1", "dense-16", data, claimed)
    (line,) = [row for row in card.splitlines() if row.startswith("| verification/")]
    assert "| 26-88% | 10, stratified sample |" in line  # tables of Clopper and Pearson: 6 of 10


def test_names_are_text(data: DataDescription, claimed: tuple[Claim, ...]) -> None:
    name = "evil\n---\n# [x](http://x) <b>"
    card = model_card(name, name, data.model_copy(update={"name": name}), claimed)
    assert len(numbers_of(card)) == len(NUMBERS)
    assert "<b>" not in card.split("\n---\n", maxsplit=1)[1]
    assert re.findall(r"^# .*", card, re.MULTILINE) == ["# evil --- # [x]\\(http://x) &lt;b>"]


@pytest.mark.parametrize(
    "card", ["", "# no front matter", "---\n: : :\n---\n", "---\nmodel-index: 3\n---\n"]
)
def test_what_is_no_card_is_told(card: str) -> None:
    with pytest.raises(CertiflowError, match=r"model_card\.md: expected a front matter"):
        numbers_of(card)
