"""The data card says what the data are and what an attacker may do to them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tasks.core.data.card import data_card
from tasks.core.data.datasets import Dataset
from tasks.core.data.sources import load
from tests.core.data.test_schema import values
from tests.core.data.test_tables import CELLS, csv_of, written


def test_of_a_table(tmp_path: Path) -> None:
    features = values()["features"]
    features[1] |= {"unit": "EUR", "direction": "up", "scale": 250}
    path = written(
        tmp_path,
        csv_of(CELLS),
        features=features,
        positive="left",
        licence="CC0",
        relations=["age >= 0"],
    )
    lines = data_card(load(path, tmp_path)).splitlines()
    assert lines[0] == "# Data card: customers"
    assert "- licence: CC0" in lines
    assert "- citation: not stated" in lines
    assert "- columns that are not used: id" in lines
    assert "| kept | 8 | 2 |" in lines
    assert "| left, whose recall counts | 8 | 2 |" in lines
    assert "| age | integer | 18 to 99 | no |" in lines
    assert "| balance | real | 0 to 1000 EUR | up, by 250 at epsilon 1 |" in lines
    assert "| region | category | north, south | no |" in lines
    assert "- `age >= 0`" in lines
    changing = load(path, tmp_path, most_changes=1)
    assert "| region | category | north, south | to another, at most 1 in all |" in (
        data_card(changing).splitlines()
    )


def test_of_images(digits: Dataset) -> None:
    text = data_card(replace(digits, positive=3))
    assert "1437 images to train on, 360 to test on; SHA-256 " + digits.sha256 in text
    assert "- licence: CC BY 4.0\n" in text
    assert "\n| 3, whose recall counts | " in text
    assert "Images of 8 x 8, values in [0, 1]" in text
