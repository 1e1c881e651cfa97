"""The data card says whose the data are, what they hold and what an attacker may do to them."""

from __future__ import annotations

from pathlib import Path

from tasks.core.data.datasets import Dataset
from tasks.core.sources.catalogue import load
from tasks.presentation.data_card import of_data
from tests.core.data.test_schema import values
from tests.core.data.test_tables import CELLS, csv_of, written


def test_of_a_table(tmp_path: Path) -> None:
    features = values()["features"]
    features[1] |= {"unit": "EUR", "direction": "up", "scale": 250}
    path = written(
        tmp_path, csv_of(CELLS), features=features, licence="CC0", relations=["age >= 0"]
    )
    lines = of_data(load(path, tmp_path)).splitlines()
    assert lines[0] == "# customers"
    assert "- Licence: CC0" in lines
    assert "- Source: not stated" in lines
    assert "- columns that are not used: id" in lines
    assert "| kept | 8 | 2 |" in lines
    assert "| age | integer | 18 to 99 |  | 0 | 0 | refused |" in lines
    assert "| balance | real | 0 to 1,000 | EUR | 0 | 250 | refused |" in lines
    assert "| region | category | north, south |  | stays | stays | refused |" in lines
    assert "- `age >= 0`" in lines
    changing = of_data(load(path, tmp_path, most_changes=1))
    assert "| region | category | north, south |  | one of 1 changes | one of 1" in changing


def test_of_images(digits: Dataset) -> None:
    text = of_data(digits)
    assert f"1,437 images to train on, 360 to test on. Content: `{digits.sha256}`." in text
    assert "- Licence: CC BY 4.0\n" in text
